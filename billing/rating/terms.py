"""What a version of a plan says, in the terms of those who price it and of those who admit by it. Pure.

A plan that blocks at its allowance bounds each priced meter of the tenant's period by it; one that bills bounds the
charge by its ceiling. Neither can be lifted by limits that an admin sets.
"""

import msgspec

from billing.models.catalogue import Plan
from billing.rating.overage import MeterTerms, PastAllowance, Terms
from metering.quota.limits import Ceiling, Limit, Meter, PlanLimits, PricedMeter
from metering.quota.windows import WindowKind


def terms_of(plan: Plan) -> Terms:
    """How its usage is priced. Raises ImpossibleTerms for what `publish_plan` would have refused."""
    meters = tuple(msgspec.convert(meter, MeterTerms) for meter in plan.meters)
    return Terms(meters, PastAllowance(plan.past_allowance), plan.ceiling_paise)


def limits_of(plan: Plan) -> PlanLimits:
    """What it gives to each user and to the tenant, and what bounds the tenant in any case."""
    return bounded(msgspec.convert(plan.limits, PlanLimits), terms_of(plan))


def bounded(limits: PlanLimits, terms: Terms) -> PlanLimits:
    """These limits under these terms."""
    if terms.past_allowance is PastAllowance.BLOCK:
        bounds = tuple(Limit(Meter(meter.meter.value), WindowKind.PERIOD, meter.allowance) for meter in terms.meters)
        return msgspec.structs.replace(limits, bounds=bounds, ceiling=None)
    priced = tuple(PricedMeter(Meter(meter.meter.value), meter.allowance, meter.rate_paise) for meter in terms.meters)
    ceiling = None if terms.ceiling_paise is None or not priced else Ceiling(terms.ceiling_paise, priced)
    return msgspec.structs.replace(limits, bounds=(), ceiling=ceiling)
