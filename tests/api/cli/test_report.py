"""`naka report`: the API's numbers, as a table, JSON and CSV."""

import asyncio
import csv
from io import StringIO
from pathlib import Path

import pytest

from tests.api.cli.test_cli import Naka
from tests.harness import Books
from tests.rollups import fill_rollups

USED = """
    INSERT INTO usage_daily (tenant_id, user_id, day, period_id, key_id, model, requests, input_tokens, output_tokens,
                             cost_nano_usd, errors)
    VALUES ($1, $2, $3::text::date, left($3, 7), $4, $5, $6::bigint, $6 * 100, $6 * 10, $6 * 3000000, 1)
"""


@pytest.fixture
def naka(tmp_path: Path, database_url: str, redis_url: str) -> Naka:
    return Naka(tmp_path, {"DATABASE_URL": database_url, "REDIS_URL": redis_url})


async def use(database_url: str) -> None:
    """Two models in March, by one user each."""
    books = Books(database_url)
    for model, requests in (("claude-b", 1_500), ("=evil()", 3)):
        account = await books.account()
        for day in ("2026-03-01", "2026-03-31"):
            values = (account.tenant_id, account.user_id, day, account.key_id, model, requests)
            await books.fetch(USED, *values)
    await fill_rollups(books)
    await books.close()


def test_the_same_numbers_in_three_forms(naka: Naka, database_url: str) -> None:
    asyncio.run(use(database_url))
    march = ("--from", "2026-03-01", "--to", "2026-03-31")
    rows = naka.json("report", "usage", *march, "--by", "model", "--order", "tokens")
    assert [(row["model"], row["requests"], row["errors"]) for row in rows] == [
        ("claude-b", 3_000, 2),
        ("=evil()", 6, 2),
    ]
    assert (rows[0]["input_tokens"], rows[0]["cost_nano_usd"]) == (300_000, 9_000_000_000)

    table = naka.run("report", "usage", *march, "--by", "model", "--order", "tokens").stdout
    first, *_, total = [line.split() for line in table.splitlines()[1:]]
    assert first[:6] == ["claude-b", "3,000", "2", "3,00,000", "30,000", "0"]
    assert first[6:10] == ["0", "0", "$9.00", "₹0.00"]
    assert total[:4] == ["total", "3,006", "4", "3,00,600"]
    assert "█" * 12 in table

    lines = list(csv.DictReader(StringIO(naka.run("report", "usage", *march, "--by", "model,month", "--csv").stdout)))
    assert [(line["model"], line["month"], line["requests"]) for line in lines] == [
        ("'=evil()", "2026-03-01", "6"),
        ("claude-b", "2026-03-01", "3000"),
    ]
    assert "naka: --by takes" in naka.fails("report", "usage", "--by", "moon")
    assert len(naka.json("report", "usage", *march, "--by", "user,day", "--top", "3")) == 3


async def _refuse(database_url: str) -> str:
    books = Books(database_url)
    account = await books.account()
    for day, code, requests in (("2026-03-01", "held", 2), ("2026-03-02", "held", 1_000), ("2026-03-02", "blocked", 3)):
        await books.fetch(
            "INSERT INTO usage_refusals VALUES ($1, $2::text::date, $3, $4)", account.tenant_id, day, code, requests
        )
    (row,) = await books.fetch("SELECT slug FROM tenants WHERE id = $1", account.tenant_id)
    await books.close()
    return str(row["slug"])


@pytest.mark.slow
def test_refusals_by_any_groups(naka: Naka, database_url: str) -> None:
    slug = asyncio.run(_refuse(database_url))
    march = ("report", "refusals", "--from", "2026-03-01", "--to", "2026-03-31")
    assert naka.json(*march) == [{"code": "blocked", "requests": 3}, {"code": "held", "requests": 1_002}]
    assert [row["requests"] for row in naka.json(*march, "--by", "day")] == [2, 1_003]
    (row,) = naka.json(*march, "--by", "tenant", "--tenant", slug)
    assert (row["tenant_slug"], row["requests"]) == (slug, 1_005)
    table = [line.split() for line in naka.run(*march).stdout.splitlines()]
    assert table == [["code", "requests"], ["blocked", "3"], ["held", "1,002"], ["total", "1,005"]]
    lines = list(csv.reader(StringIO(naka.run(*march, "--csv").stdout)))
    assert lines == [["code", "requests"], ["blocked", "3"], ["held", "1002"]]
    assert "--by takes" in naka.fails(*march, "--by", "user")
