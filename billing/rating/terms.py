"""The terms and limits of a plan's version, for pricing and for admission. Pure.

A plan that blocks bounds each priced meter of a tenant's period by its allowance; one that bills bounds the charge by
its ceiling, and a prepaid one by what the wallet holds. Limits that an admin sets can lift none of these.
"""

from dataclasses import replace
from typing import Any

import msgspec

from billing.models.catalogue import Plan
from billing.rating.overage import MeterTerms, PastAllowance, Terms
from metering.quota.limits import Ceiling, Limit, Meter, PlanLimits, PricedMeter
from metering.quota.windows import WindowKind


def terms_of(plan: Plan) -> Terms:
    """The terms of its usage. Raises ImpossibleTerms for terms that `publish_plan` refuses."""
    meters = tuple(msgspec.convert(meter, MeterTerms) for meter in plan.meters)
    return Terms(meters, PastAllowance(plan.past_allowance), plan.ceiling_paise)


def stored_terms(plan: Plan) -> dict[str, Any]:
    """The plan's terms as a row stores them."""
    return to_stored(terms_of(plan))


def to_stored(terms: Terms) -> dict[str, Any]:
    """Terms as JSON returns them, so that they compare equal to a row read back."""
    stored: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(terms))
    return stored


def limits_of(plan: Plan, terms: Terms | None = None) -> PlanLimits:
    """The limits of each user and of the tenant, with the tenant's bounds: by other terms than the plan's, if given.

    By the plan's own terms, a prepaid tenant has an empty wallet.
    """
    return bounded(msgspec.convert(plan.limits, PlanLimits), terms or unfunded(terms_of(plan)))


def unfunded(terms: Terms) -> Terms:
    """The terms with an empty wallet, if they are prepaid."""
    return funded(terms, 0)


def funded(terms: Terms, paise: int) -> Terms:
    """The terms with a wallet that pays so much of the whole period, if they are prepaid."""
    return replace(terms, ceiling_paise=paise) if terms.past_allowance is PastAllowance.PREPAID else terms


def early_overage(paid: Terms, coming: Terms) -> Terms | None:
    """The terms of a paid cycle that blocks, once a change to a plan that bills is authorised; None if nothing changes.

    The allowances that were paid for, and past them the coming plan's rates and ceiling. None, too, where the coming
    plan has no rate for a meter that the paid one bounds: the cycle stays blocked.
    """
    rates = {meter.meter: meter.rate_paise for meter in coming.meters}
    changes = paid.past_allowance is PastAllowance.BLOCK and coming.past_allowance is PastAllowance.BILL
    if not changes or not rates.keys() >= {meter.meter for meter in paid.meters}:
        return None
    meters = tuple(MeterTerms(meter.meter, meter.allowance, rates[meter.meter]) for meter in paid.meters)
    return Terms(meters, PastAllowance.BILL, coming.ceiling_paise)


def bounded(limits: PlanLimits, terms: Terms) -> PlanLimits:
    """The limits with the bounds or the ceiling of the terms."""
    if terms.past_allowance is PastAllowance.BLOCK:
        bounds = tuple(Limit(Meter(meter.meter.value), WindowKind.PERIOD, meter.allowance) for meter in terms.meters)
        return msgspec.structs.replace(limits, bounds=bounds, ceiling=None)
    priced = tuple(PricedMeter(Meter(meter.meter.value), meter.allowance, meter.rate_paise) for meter in terms.meters)
    paise = terms.ceiling_paise
    is_prepaid = terms.past_allowance is PastAllowance.PREPAID
    if paise is None and is_prepaid:
        paise = 0
    ceiling = None if paise is None or not priced else Ceiling(paise, priced, is_wallet=is_prepaid)
    return msgspec.structs.replace(limits, bounds=(), ceiling=ceiling)
