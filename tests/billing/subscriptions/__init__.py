"""Tests of `billing.subscriptions`."""
