"""A message broker that any standard NSQ client uses unchanged."""
