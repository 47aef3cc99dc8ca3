"""Tests of `api.observability`."""
