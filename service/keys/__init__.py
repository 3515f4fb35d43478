"""Master keys: where the key above all others is kept."""
