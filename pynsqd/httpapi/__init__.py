"""The HTTP side of the node: the ingest in front, aiohttp behind it."""
