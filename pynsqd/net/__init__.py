"""The data sockets: asyncio protocols around the sans-I/O sessions."""
