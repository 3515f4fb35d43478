"""SQL: the record."""
