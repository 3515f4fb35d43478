"""Schema history, forward only."""
