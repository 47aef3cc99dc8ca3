"""Tests of `api.gateway`."""
