"""Tests of the gallery indexes."""
