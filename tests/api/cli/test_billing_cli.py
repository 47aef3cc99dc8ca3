"""`naka plan`, `naka operator` and `naka profile`: amounts are exact, and what is wrong is one line."""

import json

import pytest

from tests.api.cli.test_cli import Naka, naka

__all__ = ["naka"]
OPERATOR = ("--name", "Naka Cloud", "--line", "1 MG Road", "--city", "Bengaluru", "--postal-code", "560001")
GST = ("--state", "29", "--gstin", "29AAGCB7383J1Z4", "--email", "a@naka.example")


def test_a_plan_with_a_price(naka: Naka) -> None:
    words = ("--base", "2,999.05", "--meter", "output_tokens=2000000@1600.10", "--ceiling", "10000")
    plan = naka.json("plan", "publish", "team", "Team", *words, "--past-allowance", "bill", "--when-unpaid", "free")
    assert (plan["base_paise"], plan["ceiling_paise"], plan["when_unpaid"]) == (299_905, 1_000_000, "free")
    assert plan["meters"] == [{"meter": "output_tokens", "allowance": 2_000_000, "rate_paise": 160_010}]
    assert naka.json("plan", "list") == [plan]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--base", "a lot"), "is not an amount in rupees"),
        (("--base", "NaN"), "is not an amount in rupees"),
        (("--base", "Infinity"), "is not an amount in rupees"),
        (("--base", "1.005"), "a part of a paisa"),
        (("--base=-5",), "is not an amount in rupees"),
        (("--base", "0.99"), "the base price must be 0, or 100"),
        (("--meter", "tokens=1@1"), "is not METER=INCLUDED@RUPEES"),
        (("--meter", "output_tokens=x@1"), "is not METER=INCLUDED@RUPEES"),
        (("--past-allowance", "bill"), "a plan that bills needs a ceiling"),
    ],
)
def test_a_price_that_cannot_be_is_one_line(naka: Naka, words: tuple[str, ...], says: str) -> None:
    assert says in naka.fails("plan", "publish", "team", "Team", *words)
    assert naka.json("plan", "list") == []


def test_the_parties(naka: Naka) -> None:
    assert "naka operator set" in naka.fails("operator", "show")
    own = naka.json("operator", "set", *OPERATOR, *GST)
    assert naka.json("operator", "show") == own
    naka.json("plan", "publish", "free", "Free")
    naka.json("tenant", "create", "acme", "Acme", "--plan", "free")
    assert "no billing profile" in naka.fails("profile", "show", "acme")
    kept = naka.json("profile", "set", "acme", *OPERATOR, "--state", "27", "--email", "a@acme.example")
    assert naka.json("profile", "show", "acme") == kept
    wrong = ("--state", "27", "--email", "a@acme.example", "--gstin", "29AAGCB7383J1Z4")
    assert "another state" in naka.fails("profile", "set", "acme", *OPERATOR, *wrong)
    assert naka.json("profile", "show", "acme") == kept


def test_versions_are_offered_and_withdrawn(naka: Naka) -> None:
    naka.json("plan", "publish", "team", "Team")
    draft = naka.json("plan", "publish", "team", "Team", "--draft")
    assert (draft["version"], draft["state"]) == (2, "draft")
    assert naka.json("plan", "show", "team")["version"] == 1, "what is on offer"
    assert naka.json("plan", "offer", "team", "2")["state"] == "offered"
    assert [plan["state"] for plan in naka.json("plan", "list")] == ["withdrawn", "offered"]
    assert naka.json("plan", "withdraw", "team", "2")["state"] == "withdrawn"
    assert "no such plan" in naka.fails("plan", "offer", "team", "3")


def test_a_threshold_is_in_rupees(naka: Naka) -> None:
    words = ("--meter", "output_tokens=0@1", "--past-allowance", "bill", "--ceiling", "5000", "--threshold", "1,000.50")
    assert naka.json("plan", "publish", "team", "Team", *words)["threshold_paise"] == 100_050
    assert "only a plan that bills" in naka.fails("plan", "publish", "free", "Free", "--threshold", "10")


def test_a_plan_is_shown(naka: Naka) -> None:
    for base in ("100", "200"):
        naka.json("plan", "publish", "team", "Team", "--base", base)
    assert (naka.json("plan", "show", "team")["version"], naka.json("plan", "show", "team")["base_paise"]) == (
        2,
        20_000,
    )
    assert naka.json("plan", "show", "team", "--version", "1")["base_paise"] == 10_000
    assert "no such plan" in naka.fails("plan", "show", "moon")


def test_a_plan_names_its_models_and_features(naka: Naka) -> None:
    words = ("--feature", "web_search", "--feature", "mcp", "--model", "claude-haiku-*", "--model", "claude-sonnet-4-6")
    made = naka.json("plan", "publish", "team", "Team", *words)
    assert (made["features"], made["models"]) == (["mcp", "web_search"], ["claude-haiku-*", "claude-sonnet-4-6"])
    assert naka.json("plan", "show", "team") == made
    assert "claude-haiku-*" in naka.run("plan", "show", "team").stdout
    assert "claude-moon" in naka.fails("plan", "publish", "team", "Team", "--model", "claude-moon")


def test_a_plan_with_a_warning_is_published_and_the_warning_is_no_part_of_the_answer(naka: Naka) -> None:
    words = ("plan", "publish", "team", "Team", "--meter", "output_tokens=1000", "--model", "claude-haiku-4-5")
    even = naka.run(*words, "--json")
    assert (even.returncode, even.stderr) == (0, "")
    done = naka.run(*words, "--model", "claude-opus-5", "--json")
    assert (done.returncode, json.loads(done.stdout)["version"]) == (0, 2)
    assert done.stderr.splitlines() == [f"Warning: {warning}" for warning in json.loads(done.stdout)["warnings"]]
    assert "claude-opus-5 costs 5 times as much as one of claude-haiku-4-5" in done.stderr


def test_a_tenant_without_a_subscription(naka: Naka) -> None:
    naka.json("tenant", "create", "acme", "Acme")
    status = naka.json("tenant", "status", "acme")
    assert (status["state"], status["access"], status["due_paise"]) in {("no_plan", "full", 0), ("active", "full", 0)}
    assert "no such tenant" in naka.fails("tenant", "status", "nobody")
    assert naka.json("subscription", "list", "acme") == []
    assert naka.run("subscription", "list", "acme").stdout.split()[:2] == ["plan", "version"]
    for words in (("pause", "acme"), ("resume", "acme"), ("cancel", "acme", "--reason", "wished")):
        assert "subscription" in naka.fails("subscription", *words)
    assert "no such tenant" in naka.fails("subscription", "list", "nobody")


def test_mandates_are_listed_and_cancelled(naka: Naka) -> None:
    naka.json("tenant", "create", "acme", "Acme")
    assert naka.json("mandate", "list") == []
    assert naka.json("mandate", "list", "--tenant", "acme") == []
    assert "there is no mandate" in naka.fails("mandate", "cancel", "acme", "--reason", "fraud")
