"""Tests, laid out like the packages they test, and journeys that tell one story a file."""
