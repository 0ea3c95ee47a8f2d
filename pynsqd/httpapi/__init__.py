"""The HTTP side of the node."""
