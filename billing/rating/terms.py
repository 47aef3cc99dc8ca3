"""The terms and limits of a plan's version, for pricing and for admission. Pure.

A plan that blocks bounds each priced meter of a tenant's period by its allowance; one that bills bounds the charge by
its ceiling. Limits that an admin sets can lift neither.
"""

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
    """The terms as JSON returns them, so that they compare equal to a row read back."""
    terms: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(terms_of(plan)))
    return terms


def limits_of(plan: Plan, terms: Terms | None = None) -> PlanLimits:
    """The limits of each user and of the tenant, with the tenant's bounds: by other terms than the plan's, if given."""
    return bounded(msgspec.convert(plan.limits, PlanLimits), terms or terms_of(plan))


def bounded(limits: PlanLimits, terms: Terms) -> PlanLimits:
    """The limits with the bounds or the ceiling of the terms."""
    if terms.past_allowance is PastAllowance.BLOCK:
        bounds = tuple(Limit(Meter(meter.meter.value), WindowKind.PERIOD, meter.allowance) for meter in terms.meters)
        return msgspec.structs.replace(limits, bounds=bounds, ceiling=None)
    priced = tuple(PricedMeter(Meter(meter.meter.value), meter.allowance, meter.rate_paise) for meter in terms.meters)
    ceiling = None if terms.ceiling_paise is None or not priced else Ceiling(terms.ceiling_paise, priced)
    return msgspec.structs.replace(limits, bounds=(), ceiling=ceiling)
