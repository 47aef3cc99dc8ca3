"""Tests of `billing.razorpay`."""
