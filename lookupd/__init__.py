"""The discovery service: which node has which topic."""
