"""Tests of `billing.webhooks`."""
