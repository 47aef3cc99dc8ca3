"""Wallets: balance, entries, top-ups, settings and coupons of a tenant; credit, refunds and coupons by its operator."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.billing.bills import BillItem
from api.schemas.billing.wallet import (
    CouponItem,
    NewCoupon,
    NewTopUp,
    NewWalletCredit,
    Redemption,
    TopUpItem,
    WalletEntryItem,
    WalletLot,
    WalletRefund,
    WalletRules,
    WalletSettingsItem,
    WalletView,
)
from api.schemas.pages import Page, page
from api.services.accounts.lookups import list_newest, operated_tenant, own_tenant, reach_tenant
from api.services.billing import razorpay_later
from api.services.context import ServiceContext
from billing.collection.collection import collect_bill
from billing.invoicing.bill_list import live_charges
from billing.invoicing.prepaid_bills import AUTOMATIC
from billing.models import Bill, Charge, WalletEntry
from billing.prepaid import credit, refunds, settings, top_ups
from billing.wallet.bounds import prepaid_periods
from billing.wallet.entries import balance_of, lots_of
from billing.wallet.funds import available
from core.clock import now_ms, to_ms
from core.tenancy.principal import Scope


async def find_wallet(context: ServiceContext, tenant: UUID | str | None = None) -> WalletView:
    """The wallet of the caller's tenant, or of this one. Raises NotFound."""
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        tenant_id = await _reach(context, session, tenant)
        at_ms = now_ms()
        balance = await balance_of(session, tenant_id)
        opened = await top_ups.open_top_ups(session, tenant_id)
        charges = await live_charges(session, opened)
        lots = [lot for lot in await lots_of(session, tenant_id) if lot.left_paise > 0]
        return WalletView(
            tenant_id=tenant_id,
            is_prepaid=await top_ups.prepaid_plan(session, tenant_id, at_ms) is not None,
            balance_paise=balance,
            unused_paise=available(balance, await prepaid_periods(session, tenant_id, at_ms)),
            lots=[WalletLot.completed(lot, kind="money" if lot.is_money else "promotion") for lot in lots],
            open_top_ups=[_top_up(bill, charges.get(bill.id)) for bill in opened],
            settings=WalletSettingsItem.of(await settings.find_settings(session, tenant_id)),
        )


async def list_entries(
    context: ServiceContext, tenant: UUID | str | None = None, *, before: UUID | None = None, size: int
) -> Page[WalletEntryItem]:
    """The entries of a wallet, newest first. Raises NotFound for the tenant."""
    tenant = own_tenant(context) if tenant is None else tenant
    return await list_newest(context, WalletEntryItem, WalletEntry, tenant, before=before, size=size)


async def top_up(context: ServiceContext, new: NewTopUp, tenant: UUID | str | None = None) -> TopUpItem:
    """Creates a top-up with its payment link or QR code, or returns the open one of this amount.

    Of the caller's tenant, or of this one. Raises NotFound, Invalid, Conflict.
    """
    tenant_id = own_tenant(context) if tenant is None else await operated_tenant(context, tenant)
    by_qr_code = new.instrument == "qr_code"
    bill = await top_ups.top_up(context.billing, context.actor, tenant_id, new.paise, by_qr_code=by_qr_code)
    with razorpay_later(bill=bill.id):
        await collect_bill(context.billing, tenant_id, bill.id)
    async with context.transaction() as session:
        bill = await session.get_one(Bill, (tenant_id, bill.id))
        return _top_up(bill, (await live_charges(session, [bill])).get(bill.id))


async def set_rules(context: ServiceContext, rules: WalletRules) -> WalletSettingsItem:
    """Replaces the settings. Raises Invalid."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        row = await settings.set_settings(session, context.actor, tenant_id, **rules.model_dump())
        return WalletSettingsItem.of(row)


async def redeem(context: ServiceContext, asked: Redemption) -> WalletEntryItem:
    """Adds a coupon's credit. Raises Invalid, Conflict."""
    tenant_id = own_tenant(context)
    return WalletEntryItem.of(await credit.redeem_coupon(context.billing, context.actor, tenant_id, asked.code))


async def give_credit(context: ServiceContext, tenant: UUID | str, new: NewWalletCredit) -> WalletEntryItem:
    """Gives a tenant promotional credit. Raises NotFound, Conflict."""
    tenant_id = await operated_tenant(context, tenant)
    row = await credit.give_credit(
        context.billing,
        context.actor,
        tenant_id,
        new.paise,
        reason=new.reason,
        days=new.days,
        reference=new.reference,
    )
    return WalletEntryItem.of(row)


async def refund(context: ServiceContext, tenant: UUID | str, asked: WalletRefund) -> list[BillItem]:
    """Gives unused money back. Returns the refund vouchers. Raises NotFound, Conflict."""
    tenant_id = await operated_tenant(context, tenant)
    made = await refunds.refund_unused(context.billing, context.actor, tenant_id, asked.paise, reason=asked.reason)
    return [BillItem.of(voucher) for voucher in made]


async def create_coupon(context: ServiceContext, new: NewCoupon) -> CouponItem:
    """Creates a coupon. Raises Conflict for a code that exists."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        row = await credit.new_coupon(
            session,
            context.actor,
            code=new.code,
            paise=new.paise,
            credit_days=new.credit_days,
            expires_ms=None if new.expires_at is None else to_ms(new.expires_at),
            max_uses=new.max_uses,
        )
        return CouponItem.of(row)


async def list_coupons(context: ServiceContext, *, before: str | None = None, size: int) -> Page[CouponItem]:
    """A page of coupons, newest first. `before`: the code of the last coupon of the page before."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        rows = await credit.list_coupons(session, before=before, limit=size + 1)
        return page(rows, size, CouponItem.of, lambda row: row.code)


async def end_coupon(context: ServiceContext, code: str) -> CouponItem:
    """Ends a coupon now. Raises NotFound."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        return CouponItem.of(await credit.end_coupon(session, context.actor, code))


async def _reach(context: ServiceContext, session: AsyncSession, tenant: UUID | str | None) -> UUID:
    return own_tenant(context) if tenant is None else (await reach_tenant(context, session, tenant)).id


def _top_up(bill: Bill, charge: Charge | None) -> TopUpItem:
    """A top-up, and the link or QR code that pays it if Razorpay has answered."""
    return TopUpItem.completed(
        bill,
        is_automatic=(bill.reason or "").startswith(AUTOMATIC),
        collected_by=None if charge is None else charge.instrument,
        pay_url=None if charge is None else charge.short_url,
        upi_link=None if charge is None else charge.upi_link,
        expire_by_ms=None if charge is None else charge.expire_by_ms,
    )
