"""`naka wallet` and `naka coupon`."""

from tests.api.cli.test_cli import Naka, naka

__all__ = ["naka"]


def test_credit_of_a_tenant(naka: Naka) -> None:
    naka.json("plan", "publish", "free", "Free")
    naka.json("tenant", "create", "acme", "Acme", "--plan", "free")
    again = ("--reason", "an outage", "--reference", "t-1", "--days", "90")
    entry = naka.json("wallet", "credit", "acme", "499.50", *again)
    assert (entry["kind"], entry["paise"]) == ("promotion", 49_950)
    assert naka.json("wallet", "credit", "acme", "499.50", *again)["id"] == entry["id"]
    shown = naka.json("wallet", "show", "acme")
    assert (shown["balance_paise"], shown["unused_paise"], shown["is_prepaid"]) == (49_950, 49_950, False)
    assert naka.json("wallet", "entries", "acme") == [entry]
    assert "unused money" in naka.fails("wallet", "refund", "acme", "--reason", "leaves")


def test_coupons(naka: Naka) -> None:
    made = naka.json("coupon", "create", "welcome-500", "500", "--days", "90", "--uses", "10")
    assert (made["code"], made["paise"], made["credit_days"], made["max_uses"]) == ("WELCOME-500", 50_000, 90, 10)
    assert "a coupon with this code" in naka.fails("coupon", "create", "WELCOME-500", "1")
    assert naka.json("coupon", "list") == [made]
    assert naka.json("coupon", "end", "WELCOME-500")["expires_at"] is not None
    assert "no such coupon" in naka.fails("coupon", "end", "nobody")
