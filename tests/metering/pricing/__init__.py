"""Tests of `metering.pricing`."""
