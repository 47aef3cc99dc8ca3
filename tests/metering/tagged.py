"""The rollup by tag beside the rows and entries that it has to add up to."""

from collections import Counter
from uuid import UUID

from metering.counts import COUNT_COLUMNS
from tests.harness import Books

_COUNTS = ", ".join(COUNT_COLUMNS)
_BY_TAG = f"SELECT tag_key, tag_value, day, period_id, {_COUNTS} FROM usage_by_tag WHERE tenant_id = $1"
_ROWS = f"""
SELECT t.key AS tag_key, r.tags ->> t.key AS tag_value, m.*
  FROM usage_requests r
 CROSS JOIN LATERAL (SELECT r.day, r.period_id, {", ".join(f"r.{name}" for name in COUNT_COLUMNS)} UNION ALL
                     SELECT e.day, e.period_id, {", ".join(f"e.{name}" for name in COUNT_COLUMNS)}
                       FROM usage_entries e WHERE e.tenant_id = r.tenant_id AND e.request_id = r.id) AS m
 CROSS JOIN LATERAL unnest(r.tag_keys) AS t (key)
 WHERE r.tenant_id = $1 AND r.state = 'settled'"""


async def declare(books: Books, tenant_id: UUID, *keys: str, most: int = 1000) -> None:
    """Declares tag keys of a tenant."""
    for key in keys:
        query = "INSERT INTO tag_keys (tenant_id, key, max_values) VALUES ($1, $2, $3)"
        await books.fetch(query, tenant_id, key, most)


async def assert_tags_exact(books: Books, tenant_id: UUID) -> None:
    """Asserts that `usage_by_tag` is the sum of rows and entries, key by key."""
    sums = []
    for query in (_BY_TAG, _ROWS):
        found: Counter[tuple[object, ...]] = Counter()
        for row in await books.fetch(query, tenant_id):
            key = (row["tag_key"], row["tag_value"], row["day"], row["period_id"])
            for name in COUNT_COLUMNS:
                found[*key, name] += row[name]
        sums.append({key: count for key, count in found.items() if count})
    assert sums[0] == sums[1]
