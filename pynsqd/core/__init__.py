"""The broker: synchronous, no sockets, no clock, no log."""
