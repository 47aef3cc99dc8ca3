"""Tests, laid out like the packages they test, and journeys that tell one story a file."""

import os

# Production is the default everywhere; what tests start is development unless they say otherwise.
os.environ.setdefault("NAKA_ENV", "development")
