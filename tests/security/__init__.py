"""Attacks on the service: each finds nothing, and finds the hole that is planted for it."""
