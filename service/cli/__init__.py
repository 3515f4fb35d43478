"""The commands of `biodedup`: most of them talk HTTP to a running service."""
