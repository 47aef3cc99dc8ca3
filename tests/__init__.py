"""Tests, laid out like the packages they test, and end-to-end journeys, one story per file."""

import os

# The default is production; processes started by tests are in development.
os.environ.setdefault("NAKA_ENV", "development")
