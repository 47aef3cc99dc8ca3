"""The secrets of an `Idempotency-Key`: what makes two requests one, and what a store can do with what it holds."""

from typing import Any
from uuid import UUID

import pytest

from api.gateway.idempotency.keys import Entry, Kind, Seal, Unreadable, entry_of, idempotency_key, new_run
from core.errors import Invalid

TENANT, OTHER = UUID(int=1), UUID(int=2)
BASE: dict[str, Any] = {
    "key": b"k",
    "credential": "nk_test_a",
    "path": "/chat",
    "query": b"",
    "headers": [(b"accept", b"*/*"), (b"user-agent", b"a"), (b"x-stainless-retry-count", b"0")],
    "body": b"{}",
    "tenant_id": TENANT,
    "user": "u",
}


def entry(**changed: Any) -> Entry:
    """The entry of a request that differs from BASE by `changed`."""
    asked = BASE | changed
    scope: dict[str, Any] = {
        "method": "POST",
        "path": asked["path"],
        "query_string": asked["query"],
        "headers": asked["headers"],
    }
    return entry_of(
        asked["key"], asked["credential"], scope, asked["body"], tenant_id=asked["tenant_id"], user=asked["user"]
    )


@pytest.mark.parametrize(
    "changed", [{"key": b"l"}, {"path": "/v1/messages"}, {"tenant_id": OTHER}, {"user": "v"}], ids=str
)
def test_the_scope_of_a_key(changed: dict[str, Any]) -> None:
    assert entry(**changed).name != entry().name
    assert entry(**changed).secret != entry().secret


@pytest.mark.parametrize(
    "changed",
    [
        {"body": b"{ }"},
        {"query": b"usage=1"},
        {"credential": "nk_test_b"},
        {"headers": [(b"accept", b"text/plain")]},
        {"headers": [*BASE["headers"], (b"naka-tags", b"feature=search")]},
        {"headers": [*BASE["headers"], (b"naka-user", b"ada")]},
        {"headers": [*BASE["headers"], (b"anthropic-beta", b"x")]},
    ],
    ids=str,
)
def test_another_request_with_the_same_key(changed: dict[str, Any]) -> None:
    assert entry(**changed).name == entry().name
    assert entry(**changed).fingerprint != entry().fingerprint


def test_headers_that_a_retry_changes() -> None:
    again = [(b"x-stainless-retry-count", b"1"), (b"user-agent", b"b"), (b"traceparent", b"t"), (b"accept", b"*/*")]
    assert entry(headers=again) == entry()


def test_parts_do_not_run_into_each_other() -> None:
    assert entry(credential="ab", key=b"c").secret != entry(credential="a", key=b"bc").secret
    assert entry(query=b"a", body=b"b").fingerprint != entry(query=b"", body=b"ab").fingerprint


def test_an_item_is_read_in_its_place_only() -> None:
    one = entry()
    run = new_run()
    seal = Seal(one, run)
    items = [seal.seal(0, Kind.HEAD, b"head"), seal.seal(1, Kind.BODY, b"text"), seal.seal(2, Kind.COMPLETE, b"")]
    assert [Seal(one, run).open(n, item) for n, item in enumerate(items)] == [
        (Kind.HEAD, b"head"),
        (Kind.BODY, b"text"),
        (Kind.COMPLETE, b""),
    ]
    assert b"text" not in items[1]
    changed = items[1][:-1] + bytes([items[1][-1] ^ 1])
    for number, item in ((0, items[1]), (1, Kind.HEAD.value + items[1][1:]), (1, changed), (1, b""), (1, b"?")):
        with pytest.raises(Unreadable):
            seal.open(number, item)
    for other in (Seal(one, new_run()), Seal(entry(credential="nk_test_b"), run)):
        with pytest.raises(Unreadable):
            other.open(1, items[1])


@pytest.mark.parametrize("value", [b"", b"  ", b"x" * 256, "naïve".encode(), b"a\tb", b"a\x7f"])
def test_a_key_that_is_none(value: bytes) -> None:
    with pytest.raises(Invalid):
        idempotency_key({"headers": [(b"idempotency-key", value)]})


def test_a_key_is_read_without_surrounding_blanks() -> None:
    assert idempotency_key({"headers": [(b"idempotency-key", b' "a b" ')]}) == b'"a b"'
    assert idempotency_key({"headers": [(b"accept", b"*/*")]}) is None
