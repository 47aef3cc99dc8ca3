"""Tests of `billing.catalogue`."""
