"""Routes of billing, by domain.

`own`: a tenant's, under `/v1/billing`, for `tenant:admin`, confined to the caller's tenant even for an operator.
`router`: the operator's, under `/v1/admin` (`api.routes.admin`).
"""

from api.routes.billing import alerts, bills, catalogue, mandates, standing, subscriptions, wallets

_MODULES = (standing, catalogue, subscriptions, mandates, bills, wallets, alerts)
routers = tuple(module.own for module in _MODULES)
