"""What every bench script shares: starting brokers, loading them from separate processes, and the table."""
