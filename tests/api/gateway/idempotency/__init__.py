"""Tests of `api.gateway.idempotency`."""
