"""Routes of the ledger, for platform admins: its balances, and a month as CSV or as an import file of Tally."""

from typing import Annotated, Any

from fastapi import Query, Response

from api.auth.access import PlatformContext, RuntimeDep
from api.routes.parameters import TenantWanted
from api.routes.route import admin_router
from api.routes.streamed import StreamedAnswer
from api.schemas.billing.ledger import MONTH, LedgerBalances, LedgerForm
from api.services.billing import ledger

router = admin_router()
MonthWanted = Annotated[str, Query(description="The month of booking", pattern=MONTH, examples=["2026-11"])]
FormWanted = Annotated[
    LedgerForm, Query(alias="format", description="`tally`: XML that Tally imports", examples=["csv"])
]
_FILES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/csv": {"schema": {"type": "string"}, "example": "date,tenant,entry,kind,document,...\r\n"},
            "application/xml": {"schema": {"type": "string"}, "example": "<ENVELOPE><HEADER>..."},
        }
    }
}


@router.get("/ledger")
async def show_balances(context: PlatformContext, tenant_id: TenantWanted = None) -> LedgerBalances:
    """Show the ledger's balances, and where bills and payments disagree with them."""
    return await ledger.ledger_balances(context, tenant_id)


@router.get("/ledger/export", responses=_FILES, response_class=Response)
async def export_month(
    *,
    context: PlatformContext,
    runtime: RuntimeDep,
    month: MonthWanted,
    form: FormWanted = "csv",
    tenant_id: TenantWanted = None,
) -> Response:
    """Download a month of the ledger for the accountant."""
    text = await ledger.export_ledger(context, month, form, tenant_id)
    media_type, ending = ("text/csv", "csv") if form == "csv" else ("application/xml", "xml")
    name, timeout_s = f"ledger-{month}.{ending}", runtime.settings.client_write_timeout_s
    return await StreamedAnswer.begin(text, media_type, write_timeout_s=timeout_s, filename=name)
