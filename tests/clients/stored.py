"""Compares what Naka stored with the simulator's ledger of inferences, to the token."""

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.clients.stage import Stage
from tests.harness import LEDGER_FIELDS, TOKEN_FIELDS, Account, Books

SETTLED_S = 20


async def books_differ(stage: Stage, books: Books, accounts: Sequence[Account], since: int) -> str | None:
    """Returns the difference between what is stored for the accounts and what was served after `since`; None if none.

    Of an answer that the client left, the input is exact and the output at most what was generated.
    """
    served = {row["request_id"]: row for row in stage.simulator.ledger() if row["seq"] > since}
    stored: dict[str, list[int]] = {}
    left = set()
    for account in accounts:
        for row in await _settled(books, account):
            counts = await _counts(books, account, row)
            if row["upstream_request_id"] is not None:
                stored[row["upstream_request_id"]] = counts
                if row["outcome"] == "client_gone":
                    left.add(row["upstream_request_id"])
            elif any(counts):
                return f"tokens are stored that the provider did not serve: {counts}"
        if fault := await _sums_differ(books, account):
            return fault
    if stored.keys() != served.keys():
        return f"{len(served)} requests were served, {len(stored)} are stored"
    billed = _billed(stage, served)
    faults = (_difference(entry, stored[key], billed[key], left=key in left) for key, entry in served.items())
    return next((fault for fault in faults if fault is not None), None)


def _billed(stage: Stage, served: dict[str, Any]) -> dict[str, list[int]]:
    """The tokens that the provider bills, by request, summed over its inferences."""
    billed = {request_id: [0] * len(TOKEN_FIELDS) for request_id in served}
    for row in stage.simulator.inferences():
        if row["request_id"] in billed and row["charged"]:
            before = billed[row["request_id"]]
            billed[row["request_id"]] = [was + row[name] for was, name in zip(before, LEDGER_FIELDS, strict=True)]
    return billed


def _difference(entry: dict[str, Any], ours: list[int], theirs: list[int], *, left: bool) -> str | None:
    equal = ours == theirs
    if left:  # with all classes of the input
        equal = [ours[0], *ours[2:]] == [theirs[0], *theirs[2:]] and 0 < ours[1] <= entry["output_tokens"]
    return None if equal else f"{entry['ref']} ({entry['state']}): {theirs} were served, {ours} are stored"


async def _settled(books: Books, account: Account) -> list[Any]:
    """The account's rows, once none is open."""
    async with asyncio.timeout(SETTLED_S):
        while True:
            rows = await books.requests(account)
            if all(row["state"] == "settled" for row in rows):
                return rows
            await asyncio.sleep(0.1)


async def _counts(books: Books, account: Account, row: Any) -> list[int]:
    """The tokens of a request, with its later entries."""
    entries = await books.fetch(
        "SELECT * FROM usage_entries WHERE tenant_id = $1 AND request_id = $2", account.tenant_id, row["id"]
    )
    return [int(row[name]) + sum(int(entry[name]) for entry in entries) for name in TOKEN_FIELDS]


async def _sums_differ(books: Books, account: Account) -> str | None:
    rows = await books.sums("usage_requests", account.tenant_id)
    rows.update(await books.sums("usage_entries", account.tenant_id))
    for table in ("usage_daily", "usage_meters"):
        if await books.sums(table, account.tenant_id) != rows:
            return f"{table} has other sums than the requests"
    return None
