"""Shapes for prices, usage reports, requests, corrections and reconciliation."""
