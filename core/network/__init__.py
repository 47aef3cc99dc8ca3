"""Addresses, outbound proxies, and the one HTTP client for URLs that tenants choose."""
