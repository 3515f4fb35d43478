"""Measurements of accuracy and speed, through the service's own code."""
