"""Changes of plan, wishes, moves, versions, credits and late usage in any order: each token is priced once, as granted.

The ledger is proved after every step: it adds up to zero, and its accounts are what the documents and payments say.

`STORY_EXAMPLES=200` looks longer.
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from billing.context import BillingContext
from billing.invoicing.period_close import close_tenant
from tests.billing.billed_tenant import with_rules
from tests.billing.ledger_proof import proved
from tests.billing.operator import OperatorSetup
from tests.billing.stories.tenant import LAST_MS, OWN, SAME_PRICE, StoryTenant

EXAMPLES = int(os.environ.get("STORY_EXAMPLES", "5"))
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking, which takes minutes."""
STEPS = st.one_of(
    st.tuples(st.just("later"), st.sampled_from((0, 0.5, 3, 9, 14))),
    st.tuples(st.just("grant"), st.integers(1, 180)),
    st.tuples(st.just("use"), st.integers(1, 180)),
    st.tuples(st.just("settle"), st.integers(0, 5)),
    st.tuples(st.just("move"), st.sampled_from(OWN)),
    st.tuples(st.just("start"), st.sampled_from(SAME_PRICE)),
    st.tuples(st.just("switch"), st.sampled_from(SAME_PRICE)),
    st.tuples(st.sampled_from(("wish", "abandon", "authorise", "take_back", "stop", "close")), st.just(0)),
    st.tuples(st.just("credit"), st.integers(0, 5)),
)


async def play(tenant: StoryTenant, name: str, value: float | str) -> None:
    """One step; one that makes no sense now does nothing."""
    match name, value:
        case "later", _ if tenant.now_ms > LAST_MS:
            return
        case "use", int():
            await tenant.grant(value)
            await tenant.settle(-1)
        case "wish", _:
            await tenant.ask("plus@1")
        case "credit", int():
            await tenant.credit(value, 0.6)
        case "close", _:
            await close_tenant(tenant.context, tenant.tenant_id)
            await tenant.pay()
        case (("abandon" | "authorise" | "take_back" | "stop"), _):
            await getattr(tenant, name)()
        case _:
            await getattr(tenant, name)(value)


@pytest.mark.slow
@given(steps=st.lists(STEPS, min_size=12, max_size=40))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=PHASES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_every_token_is_priced_once_under_the_terms_at_its_grant(
    context: BillingContext, setup: OperatorSetup, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, float | str]]
) -> None:
    rich = with_rules(context, hold_min_paise=10**12)
    tenant = await StoryTenant.open(rich, setup, monkeypatch)
    for name, value in steps:
        await play(tenant, name, value)
        await proved(rich)
    while tenant.running:
        await tenant.settle()
    await tenant.abandon()
    for _ in range(2):
        await tenant.later(14)
        await play(tenant, "close", 0)
    await tenant.later(35)
    for _ in range(3):
        await play(tenant, "close", 0)
    await proved(rich)
    billed = await tenant.billed()
    assert {window: paise for window, paise in billed.items() if paise} == {
        window: paise for window in tenant.grants.windows if (paise := tenant.grants.paise(window))
    }
