"""How much was used, and may this request start.

Rooms, from the lowest: `sql` and `models`, `pricing`, `journal`, `quota`, `adjustments`, `admission`, `settlement`,
`reports`, `reconciliation`. A room imports only those before it. Metering never asks billing anything: billing projects
a tenant's entitlement into `entitlements`, and admission reads that.
"""
