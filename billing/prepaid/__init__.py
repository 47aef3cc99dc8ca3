"""Filling and emptying wallets: top-ups, credit, expiry, refunds of unused money."""
