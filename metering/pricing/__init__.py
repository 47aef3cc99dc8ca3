"""Prices: token classes, the exact cost of a request at the provider in nano-USD, and the append-only price list."""
