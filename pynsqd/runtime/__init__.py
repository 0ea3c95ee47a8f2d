"""What both daemons run on: flags, logs, signals, HTTP, listeners."""
