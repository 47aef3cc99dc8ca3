"""`naka issuer` and `naka tag-key`."""

from pathlib import Path

import pytest

from tests.api.cli.test_cli import Naka
from tests.api.cli.test_cli import naka as naka  # noqa: PLC0414 - the fixture
from tests.core.identity.idp import new_key, pem_of

ISSUER = ("https://login.acme.example", "naka")
KEYS = ("--jwks", "https://203.0.113.7/keys")


@pytest.mark.slow
def test_an_issuer(naka: Naka, tmp_path: Path) -> None:
    naka.json("tenant", "create", "acme", "Acme")
    key = tmp_path / "key.pem"
    key.write_text(pem_of(new_key("ES256")))
    options = ("--user-claim", "email", "--tag", "team=group", "--scope", "chat")
    added = naka.json("issuer", "add", "acme", *ISSUER, "--pem", str(key), *options)
    assert (added["issuer"], added["audience"], added["user_claim"]) == (*ISSUER, "email")
    assert (added["tag_claims"], added["scopes"]) == ({"team": "group"}, ["chat"])
    assert [one["id"] for one in naka.json("issuer", "list", "acme")] == [added["id"]]
    naka.json("issuer", "remove", added["id"])
    assert naka.json("issuer", "list", "acme") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("issuer", "add", "acme", *ISSUER), "give --jwks or --pem"),
        (("issuer", "add", "acme", *ISSUER, "--pem", "no-such-file"), "cannot be read"),
        (("issuer", "add", "nobody", *ISSUER, *KEYS), "no such tenant"),
        (("issuer", "add", "acme", *ISSUER, *KEYS, "--scope", "platform:admin"), "scope"),
        (("issuer", "add", "acme", *ISSUER, *KEYS, "--leeway-s", "100000"), "leeway_s"),
        (("issuer", "remove", "01920000-0000-7000-8000-000000000001"), "no such issuer"),
        (("tag-key", "declare", "acme", "Not A Key"), "tag key"),
        (("tag-key", "declare", "acme", "feature", "--max-values", "0"), "max_values"),
        (("tag-key", "remove", "acme", "feature"), "tag key"),
    ],
)
def test_what_cannot_be_done(naka: Naka, words: tuple[str, ...], said: str) -> None:
    naka.json("tenant", "create", "acme", "Acme")
    failure = naka.fails(*words)
    assert said in failure
    assert failure.count("\n") <= 1, "one line"


def test_tag_keys(naka: Naka) -> None:
    naka.json("tenant", "create", "acme", "Acme")
    declared = naka.json("tag-key", "declare", "acme", "feature", "--max-values", "50")
    assert (declared["key"], declared["max_values"]) == ("feature", 50)
    assert naka.json("tag-key", "declare", "acme", "feature", "--max-values", "60")["max_values"] == 60
    bounds = {one["key"]: one["max_values"] for one in naka.json("tag-key", "list", "acme")}
    assert bounds == {"conversation": 10_000, "feature": 60}
    for key in bounds:
        assert naka.run("tag-key", "remove", "acme", key).returncode == 0
    assert naka.json("tag-key", "list", "acme") == []
