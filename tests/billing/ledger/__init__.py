"""Tests of `billing.ledger`."""
