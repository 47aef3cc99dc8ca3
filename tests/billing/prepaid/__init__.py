"""Top-ups, bills paid by the wallet, expiry and refunds."""
