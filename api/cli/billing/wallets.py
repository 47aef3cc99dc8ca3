"""`naka wallet` and `naka coupon`: prepaid balances, credit, refunds of unused money."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from api.cli.command import Call, Group
from api.cli.options import Limit, Reason, Tenant, tenant_name
from api.schemas.billing.wallet import NewCoupon, NewTopUp, NewWalletCredit, WalletRefund
from api.services.billing import wallets
from billing.gst.rupees import in_paise

app = Group()
coupon_app = Group()

Amount = Annotated[str, typer.Argument(metavar="RUPEES", help="Rupees, before GST.")]
Days = Annotated[int | None, typer.Option(help="Days until the credit expires; never by default.")]
Code = Annotated[str, typer.Argument(help="The coupon's code.")]


@app.answering("show")
def show_one(tenant: Tenant) -> Call:
    """Show a tenant's balance, and what it consists of."""
    return lambda context: wallets.find_wallet(context, tenant_name(tenant))


@app.answering("entries", "id", "kind", "paise", "bill_id", "period", "expires_at", "reason", "created_at")
def entries(tenant: Tenant, most: Limit = 50) -> Call:
    """List the movements of a tenant's wallet, newest first."""
    return lambda context: wallets.list_entries(context, tenant_name(tenant), size=most)


@app.answering("top-up", billing=True)
def top_up(
    tenant: Tenant,
    amount: Amount,
    *,
    qr: Annotated[bool, typer.Option("--qr", help="By a UPI QR code instead of a payment link.")] = False,
) -> Call:
    """Ask a tenant for money; the answer has the payment link, or the UPI QR code's link and image."""
    new = NewTopUp(paise=in_paise(amount), instrument="qr_code" if qr else "payment_link")
    return lambda context: wallets.top_up(context, new, tenant_name(tenant))


@app.answering("credit", billing=True)
def give_credit(
    tenant: Tenant,
    amount: Amount,
    reason: Reason,
    days: Days = None,
    reference: Annotated[str | None, typer.Option(help="A name that a tenant has once, so that it may repeat.")] = None,
) -> Call:
    """Give a tenant promotional credit."""
    new = NewWalletCredit(paise=in_paise(amount), reason=reason, days=days, reference=reference)
    return lambda context: wallets.give_credit(context, tenant_name(tenant), new)


@app.answering("refund", "number", "taxable_paise", "total_paise", "refers_to", billing=True)
def refund(
    tenant: Tenant,
    reason: Reason,
    amount: Annotated[str | None, typer.Option(help="Rupees before GST; all unused money by default.")] = None,
) -> Call:
    """Give unused money back, with a refund voucher for each top-up."""
    asked = WalletRefund(reason=reason, paise=None if amount is None else in_paise(amount))
    return lambda context: wallets.refund(context, tenant_name(tenant), asked)


@coupon_app.answering("list", "code", "paise", "credit_days", "expires_at", "uses", "max_uses")
def list_all(most: Limit = 50) -> Call:
    """List coupons, newest first."""
    return lambda context: wallets.list_coupons(context, size=most)


@coupon_app.answering("create")
def create(
    code: Code,
    amount: Amount,
    days: Days = None,
    until: Annotated[datetime | None, typer.Option(help="It can be used until then, in UTC.")] = None,
    uses: Annotated[int | None, typer.Option(help="How many tenants can use it; any number by default.")] = None,
) -> Call:
    """Create a coupon, which gives promotional credit once per tenant."""
    expires_at = None if until is None else until.replace(tzinfo=UTC)
    new = NewCoupon(code=code, paise=in_paise(amount), credit_days=days, expires_at=expires_at, max_uses=uses)
    return lambda context: wallets.create_coupon(context, new)


@coupon_app.answering("end")
def end(code: Code) -> Call:
    """End a coupon now. Credit that it gave stays."""
    return lambda context: wallets.end_coupon(context, code)
