"""Vectors: the searchable galleries, a cache of the record."""
