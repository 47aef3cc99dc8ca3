"""Measures usage, and decides whether a request may start.

From the lowest: `counts`, `models` and `sql`, `pricing`, `journal`, `quota`, `adjustments`, `admission`,
`settlement`, `reports`, `reconciliation`. Each imports only those before it. Metering asks billing nothing: billing
stores a tenant's entitlement in `entitlements`, and admission reads that.
"""
