"""What a tenant's admin sees and decides of its own bills, a module for each thing. Scope `tenant:admin` throughout."""

from fastapi import APIRouter, Depends

from api.routes.admin import NO_TEXT, not_kept
from api.routes.billing import alerts, bills, profile, subscription

router = APIRouter(prefix="/v1/billing", tags=["billing"], dependencies=[Depends(not_kept)], responses={400: NO_TEXT})
for module in (profile, subscription, bills, alerts):
    router.include_router(module.router)
