"""biodedup: one person, one registration."""
