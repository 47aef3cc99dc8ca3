"""Recurring Payments and QR codes: tokens, their registration, debits with notices, and codes to scan.

`entities` (data), `tokens` (a mandate's life), `registrations` (its authorisation), `debits` (notice, tries, late
authorisation), `qr_codes`, `shapes` (JSON), `steps` (what falls due), `pages` (the payer's), `controls` (`/_sim`).
"""
