"""Tests of `billing.invoicing`."""
