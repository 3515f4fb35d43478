"""Measurements of accuracy and speed, through the service's own code."""

import service as service  # first of all: it switches off what would report to others
