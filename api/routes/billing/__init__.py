"""Routes of billing, by domain.

`own`: a tenant's, under `/v1/billing`, for `tenant:admin`, confined to the caller's tenant even for an operator.
`router`: the operator's, under `/v1/admin` (`api.routes.admin`).
"""

from fastapi import APIRouter, Depends

from api.routes.answers import NO_TEXT, not_kept
from api.routes.billing import alerts, bills, catalogue, mandates, standing, subscriptions, wallets

router = APIRouter(prefix="/v1/billing", tags=["billing"], dependencies=[Depends(not_kept)], responses={400: NO_TEXT})
for module in (standing, catalogue, subscriptions, mandates, bills, wallets, alerts):
    router.include_router(module.own)
