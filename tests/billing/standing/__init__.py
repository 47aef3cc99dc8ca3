"""Tests of `billing.standing`."""
