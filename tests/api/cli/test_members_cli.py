"""`naka member` and `naka invite`: the first owner of a tenant, and the operator's own people."""

import pytest

from tests.api.cli.test_cli import Naka
from tests.api.cli.test_cli import naka as naka  # noqa: PLC0414 - the fixture


def test_the_first_owner(naka: Naka) -> None:
    tenant = naka.json("tenant", "create", "acme", "Acme")
    naka.environment["PUBLIC_URL"] = "https://naka.example"
    made = naka.json("invite", "acme", "Ada@Acme.example", "--role", "owner", "--days", "2")
    assert made["link"].startswith("https://naka.example/sign-in/invitation/")
    assert (made["email"], made["role"], made["tenant_id"]) == ("ada@acme.example", "owner", tenant["id"])
    (pending,) = naka.json("member", "invitations", "acme")
    assert "link" not in pending
    assert pending["actor"].startswith("cli:")
    naka.json("member", "revoke-invitation", tenant["id"], pending["id"])
    assert naka.json("member", "invitations", "acme") == []

    added = naka.json("member", "add", "acme", "ada@acme.example")
    assert (added["role"], added["has_signed_in"]) == ("owner", False)
    assert naka.json("member", "role", "acme", added["id"], "viewer")["role"] == "viewer"
    assert [one["role"] for one in naka.json("member", "list", "acme")] == ["viewer"]
    naka.json("member", "remove", "acme", added["id"])
    assert naka.json("member", "list", "acme") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("invite", "acme", "ada"), "not an email address"),
        (("invite", "nobody", "ada@acme.example"), "no such tenant"),
        (("invite", "acme", "known@acme.example"), "a member's already"),
        (("member", "remove", "acme", "01920000-0000-7000-8000-000000000001"), "no such member"),
    ],
)
def test_what_cannot_be_done(naka: Naka, words: tuple[str, ...], said: str) -> None:
    naka.json("tenant", "create", "acme", "Acme")
    naka.json("member", "add", "acme", "known@acme.example")
    assert said in naka.fails(*words)
