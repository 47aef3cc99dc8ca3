"""Tests of `billing.gst`."""
