"""Budgets: which a request has, what fits them, their names and the words of their refusals."""

from dataclasses import replace
from uuid import UUID

import pytest

from core.tenancy.principal import Principal
from metering.pricing.price import PriceBook
from metering.quota.budgets import Budget, BudgetState, BudgetWindow, budgets_of
from metering.quota.counters import WindowState
from metering.quota.decision import budget_room, fit_budgets, fits_budget
from metering.quota.limits import Entitlement, Limit, Meter
from metering.quota.query import QuotaQuery, QuotaTerms, Refused
from metering.quota.refusal_words import budget_words
from metering.quota.schedule import Timeline
from metering.quota.windows import Window, WindowKind
from metering.tags.tags import TOKEN_KEY

MINUTE, DAY, PERIOD = WindowKind.MINUTE, WindowKind.DAY, WindowKind.PERIOD
HOUR_MS = 3_600_000
TOKENS_A_DAY = Budget("feature", "search", Meter.TOKENS, DAY, 1_500)
TOKEN_LIFE = Budget(TOKEN_KEY, "t-1", Meter.TOKENS, None, 1_500)
WHO = Principal(UUID(int=1), UUID(int=2), UUID(int=3), frozenset({"chat"}))
QUERY = QuotaQuery(WHO, "m", 100, 50, 50, 16, 60_000, Timeline(()), PriceBook({}))
TERMS = QuotaTerms(
    Entitlement((), None, None, None, b""),
    Window(DAY, "2026-11-22", 0, 10 * HOUR_MS),
    Window(PERIOD, "2026-11", 0, 20 * HOUR_MS),
    "2026-11~2",
    from_ms=0,
    until_ms=10 * HOUR_MS,
    prompt_rate=700,
    output_rate=1_000,
)


def state(budget: Budget, used: int = 0, held: int = 0) -> BudgetState:
    """The budget with so many output tokens used, and held."""
    window = WindowState((1, 0, used, 0, 0, 0, 0, 0, used * 1_000), (1 if held else 0, 0, held, 0, held * 1_000))
    return BudgetState(BudgetWindow(budget, "", 10 * HOUR_MS), window)


def test_a_request_has_the_budgets_of_its_tags_that_are_added_up_and_of_its_token() -> None:
    limits = {
        ("feature", "search"): (Limit(Meter.TOKENS, DAY, 1_500), Limit(Meter.SPEND, PERIOD, 7)),
        ("feature", "chat"): (Limit(Meter.TOKENS, DAY, 9),),
        ("team", "x"): (Limit(Meter.REQUESTS, MINUTE, 3),),
    }
    who = replace(WHO, token_id="t-1", budget=(("tokens", 1_500), ("spend", 9)))
    added_up = (("feature", "search"), (TOKEN_KEY, "t-1"))
    spend = Budget("feature", "search", Meter.SPEND, PERIOD, 7)
    of_token = (TOKEN_LIFE, Budget(TOKEN_KEY, "t-1", Meter.SPEND, None, 9))
    assert budgets_of(who, added_up, limits) == (TOKENS_A_DAY, spend, *of_token)
    assert budgets_of(WHO, (("feature", "search"),), limits) == (TOKENS_A_DAY, spend)
    assert budgets_of(WHO, (("feature", "other"),), limits) == ()


def test_names_and_units() -> None:
    spend = Budget("a.b_c", "x", Meter.SPEND, PERIOD, 7)
    assert [one.name for one in (TOKENS_A_DAY, TOKEN_LIFE, spend)] == [
        "tag-feature-tokens-day",
        "token-tokens",
        "tag-a.b_c-spend-period",
    ]
    assert (spend.bound, spend.unit, spend.in_unit(6_001), spend.room_in_unit(1_999)) == (7_000, "micro-usd", 7, 1)


def test_windows_are_named_as_rows_name_them() -> None:
    budgets = (
        TOKENS_A_DAY,
        replace(TOKENS_A_DAY, window=PERIOD),
        replace(TOKENS_A_DAY, window=MINUTE),
        TOKEN_LIFE,
    )
    who = replace(WHO, expires_at_ms=5 * HOUR_MS)
    terms = replace(TERMS, period=replace(TERMS.period, name="2026-11"))
    windows = replace(QUERY, principal=who, budgets=budgets).budget_windows(terms, HOUR_MS)
    assert [(one.budget.window_name, one.name, one.ends_ms) for one in windows] == [
        ("day", "2026-11-22", 10 * HOUR_MS),
        ("period", "2026-11", 20 * HOUR_MS),
        ("minute", "60", 61 * 60_000),
        ("life", "", 5 * HOUR_MS),
    ]


@pytest.mark.parametrize(
    ("used", "held", "answer"),
    [
        (0, 0, 100),
        (1_350, 0, 100),
        (1_351, 0, 99),
        (1_434, 0, 16),
        (1_435, 0, "used"),
        (9_999, 0, "used"),
        (0, 1_350, 100),
        (0, 1_400, 50),
        (0, 1_401, "held"),
        (1_400, 30, "held"),
    ],
)
def test_what_fits_a_budget_of_tokens(used: int, held: int, answer: int | str) -> None:
    found = fit_budgets(QUERY, TERMS, [state(TOKENS_A_DAY, used, held)], HOUR_MS)
    if not isinstance(found, Refused):
        assert found == answer
        return
    assert (found.cause, found.budget, found.limit, found.used) == (answer, TOKENS_A_DAY, None, used)
    assert found.ends_ms == (10 * HOUR_MS if answer == "used" else HOUR_MS + 1_000)


def test_the_tightest_of_several_decides_and_the_one_that_ends_last_is_named() -> None:
    spend = Budget("feature", "search", Meter.SPEND, PERIOD, 200)
    assert fit_budgets(QUERY, TERMS, [state(TOKENS_A_DAY, 1_370), state(spend, 85)], HOUR_MS) == 80
    later = BudgetState(BudgetWindow(spend, "", 20 * HOUR_MS), state(spend, 200).state)
    found = fit_budgets(QUERY, TERMS, [state(TOKENS_A_DAY, 1_500), later], HOUR_MS)
    assert isinstance(found, Refused)
    assert (found.budget, found.ends_ms) == (spend, 20 * HOUR_MS)


def test_what_no_empty_budget_would_fit_is_refused_for_good() -> None:
    found = fit_budgets(QUERY, TERMS, [state(replace(TOKENS_A_DAY, limit=65))], HOUR_MS)
    assert isinstance(found, Refused)
    assert found.cause == "never"


def test_a_hold_fits_up_to_the_bound_and_what_takes_nothing_always_does() -> None:
    one = state(TOKENS_A_DAY, 1_000, 300)
    assert budget_room(one) == 200
    assert fits_budget(one, (1, 100, 100, 0, 0))
    assert not fits_budget(one, (1, 100, 101, 0, 0))
    overdrawn = state(Budget("feature", "search", Meter.WEB_SEARCHES, DAY, 0))
    assert fits_budget(overdrawn, (1, 100, 100, 0, 0))
    assert not fits_budget(overdrawn, (1, 100, 100, 1, 0))


RAISE = "To continue before, an admin of your account can raise this budget."
WHOSE = "Requests with this feature tag"
SHORTER = "Shorten it, or ask for a shorter answer."
ENDED = "Try again when one of them has ended."


@pytest.mark.parametrize(
    ("budget", "cause", "used", "wait_ms", "says"),
    [
        (
            TOKENS_A_DAY,
            "used",
            1_500,
            7 * HOUR_MS,
            f"{WHOSE} have used today's 1,500 tokens. They reset at 00:00, in 7 h 0 min. {RAISE}",
        ),
        (
            replace(TOKENS_A_DAY, window=MINUTE),
            "used",
            1_400,
            9_001,
            (
                f"{WHOSE} have used 1,400 of this minute's 1,500 tokens, and this request needs more"
                " than the rest. They reset in 10 s. Try again then."
            ),
        ),
        (
            replace(TOKENS_A_DAY, meter=Meter.SPEND, window=PERIOD),
            "used",
            9,
            2 * HOUR_MS,
            (
                "Requests with this feature tag have used this period's budget for model usage, or what is left is too"
                f" little for this request. It resets in 2 h 0 min. {RAISE}"
            ),
        ),
        (
            TOKENS_A_DAY,
            "held",
            1_200,
            1_000,
            f"Running requests with this feature tag hold the rest of today's 1,500 tokens; 1,200 used. {ENDED}",
        ),
        (
            TOKENS_A_DAY,
            "never",
            0,
            1_000,
            f"This request is too large for the feature tag's limit of 1,500 tokens per day. {SHORTER}",
        ),
        (TOKEN_LIFE, "used", 1_500, HOUR_MS, "This token has used its 1,500 tokens. Use a new token."),
        (
            replace(TOKEN_LIFE, meter=Meter.SPEND),
            "held",
            9,
            1_000,
            f"Running requests of this token hold the rest of its budget for model usage. {ENDED}",
        ),
        (
            TOKEN_LIFE,
            "never",
            0,
            1_000,
            f"This request is too large for this token's limit of 1,500 tokens. {SHORTER}",
        ),
    ],
)
def test_the_words_name_the_tags_key_and_never_its_value(
    budget: Budget, cause: str, used: int, wait_ms: int, says: str
) -> None:
    refused = Refused(
        1_000, cause, None, of_user=False, ends_ms=1_000 + wait_ms, worth_counting=False, holds_expired=False, used=used
    )
    said = budget_words(refused, budget)
    assert said == says
    assert "search" not in said
