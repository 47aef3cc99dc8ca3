"""Usage that is put straight into the rollups, for tests that read reports and not how they come about."""

from metering.counts import COUNT_COLUMNS
from tests.harness import Books

_NAMES = ", ".join((*COUNT_COLUMNS, "errors"))
_SUMS = ", ".join(f"sum({name})" for name in (*COUNT_COLUMNS, "errors"))
_MONTHLY = f"""INSERT INTO usage_monthly (tenant_id, user_id, month, period_id, key_id, model, {_NAMES})
    SELECT tenant_id, user_id, date_trunc('month', day)::date, period_id, key_id, model, {_SUMS}
      FROM usage_daily GROUP BY 1, 2, 3, 4, 5, 6"""
_BY_DAY = f"""INSERT INTO usage_by_day (tenant_id, day, period_id, model, shard, {_NAMES})
    SELECT tenant_id, day, period_id, model, 0, {_SUMS} FROM usage_daily GROUP BY 1, 2, 3, 4"""


_BY_TAG = f"""INSERT INTO usage_by_tag (tenant_id, tag_key, tag_value, day, period_id, shard, {_NAMES})
    SELECT tenant_id, t.key, tags ->> t.key, day, period_id, 0, {_SUMS}
      FROM (SELECT *, 0 AS errors FROM usage_requests) AS r, unnest(r.tag_keys) AS t (key)
     WHERE state = 'settled' GROUP BY 1, 2, 3, 4, 5"""


async def fill_rollups(books: Books) -> None:
    """Makes the coarser rollups what the daily one adds up to, and that by tag what the rows do."""
    for statement in ("TRUNCATE usage_monthly, usage_by_day, usage_by_tag", _MONTHLY, _BY_DAY, _BY_TAG):
        await books.fetch(statement)
