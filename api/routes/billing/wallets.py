"""Routes of wallets: a tenant's own, and the operator's credit, refunds and coupons."""

from typing import Annotated

from fastapi import Path, Query

from api.auth.access import PlatformContext
from api.routes.billing.parameters import OwnContext
from api.routes.parameters import Cursor, PageSize, TenantId
from api.routes.route import admin_router, own_router
from api.schemas.billing.bills import BillItem
from api.schemas.billing.wallet import (
    CouponCode,
    CouponItem,
    NewCoupon,
    NewTopUp,
    NewWalletCredit,
    Redemption,
    TopUpItem,
    WalletEntryItem,
    WalletRefund,
    WalletRules,
    WalletSettingsItem,
    WalletView,
)
from api.schemas.pages import DEFAULT_SIZE, Page
from api.services.billing import wallets

router, own = admin_router(), own_router("/wallet")

Code = Annotated[CouponCode, Path(examples=["WELCOME-500"])]
CouponCursor = Annotated[
    CouponCode | None, Query(alias="cursor", description="`next` of the page before", examples=["WELCOME-500"])
]


@own.get("")
async def my_wallet(context: OwnContext) -> WalletView:
    """Show your balance, what it consists of, and top-ups that wait for payment."""
    return await wallets.find_wallet(context)


@own.get("/entries")
async def my_wallet_entries(
    context: OwnContext, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[WalletEntryItem]:
    """List the movements of your wallet, newest first."""
    return await wallets.list_entries(context, before=cursor, size=size)


@own.post("/top-ups", status_code=201)
async def new_top_up(body: NewTopUp, context: OwnContext) -> TopUpItem:
    """Add money. Pay it at `pay_url`; a repeated request returns the same top-up until it is paid.

    Without `pay_url` Razorpay hasn't answered yet: ask again in a minute. Another amount or instrument replaces an
    unpaid top-up.
    """
    return await wallets.top_up(context, body)


@own.put("/settings")
async def set_wallet_rules(body: WalletRules, context: OwnContext) -> WalletSettingsItem:
    """Set the low-balance alert, and automatic top-ups through your mandate."""
    return await wallets.set_rules(context, body)


@own.post("/coupons", status_code=201)
async def redeem_coupon(body: Redemption, context: OwnContext) -> WalletEntryItem:
    """Redeem a coupon."""
    return await wallets.redeem(context, body)


@router.get("/tenants/{tenant_id}/wallet")
async def wallet_of_tenant(tenant_id: TenantId, context: PlatformContext) -> WalletView:
    """Show a tenant's wallet."""
    return await wallets.find_wallet(context, tenant_id)


@router.get("/tenants/{tenant_id}/wallet/entries")
async def wallet_entries_of_tenant(
    tenant_id: TenantId, context: PlatformContext, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[WalletEntryItem]:
    """List the movements of a tenant's wallet, newest first."""
    return await wallets.list_entries(context, tenant_id, before=cursor, size=size)


@router.post("/tenants/{tenant_id}/wallet/credits", status_code=201)
async def give_wallet_credit(tenant_id: TenantId, body: NewWalletCredit, context: PlatformContext) -> WalletEntryItem:
    """Give a tenant promotional credit."""
    return await wallets.give_credit(context, tenant_id, body)


@router.post("/tenants/{tenant_id}/wallet/refunds", status_code=201)
async def refund_wallet(tenant_id: TenantId, body: WalletRefund, context: PlatformContext) -> list[BillItem]:
    """Give unused money back, with a refund voucher for each top-up."""
    return await wallets.refund(context, tenant_id, body)


@router.get("/coupons")
async def all_coupons(
    context: PlatformContext, cursor: CouponCursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[CouponItem]:
    """List coupons, newest first."""
    return await wallets.list_coupons(context, before=cursor, size=size)


@router.post("/coupons", status_code=201)
async def new_coupon(body: NewCoupon, context: PlatformContext) -> CouponItem:
    """Create a coupon."""
    return await wallets.create_coupon(context, body)


@router.post("/coupons/{coupon}/end")
async def end_coupon(coupon: Code, context: PlatformContext) -> CouponItem:
    """End a coupon now. Credit that it gave stays."""
    return await wallets.end_coupon(context, coupon)
