"""Addresses and outbound proxies."""
