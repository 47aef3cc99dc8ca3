"""The ledger: every movement of money or debt as a double-entry row, written in the transaction that makes it.

A row is never changed; what was wrong is reversed by another. Balances are sums of rows, and `naka reconcile` compares
them with the bills, payments and wallets that they explain. Postgres down: Unavailable, with the movement itself.
"""
