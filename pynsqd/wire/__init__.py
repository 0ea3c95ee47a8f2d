"""The NSQ protocols, sans-I/O: shared by the node and lookupd."""
