"""Tests of `billing.documents`."""
