"""Tests of `billing.collection`."""
