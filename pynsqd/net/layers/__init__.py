"""What can stand between a socket and who speaks on it: TLS, snappy, deflate (PROTOCOL 1.6)."""
