"""The tables of metering. `metering/sql` writes the journal, the rollups and the meters, in batches.

`usage_requests` is partitioned by month on its id (a UUIDv7), so `(tenant_id, id)` is its primary key and old months
can be dropped. It has no foreign keys: the statement that opens a request joins the key's row under a lock, which a
check per row would only repeat.
"""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, SmallInteger, Text, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.postgres.database import Base
from core.tenancy.models import TimestampTz


class TenantEpoch(Base):
    """The current epoch of a tenant: a request is opened only if it was granted under it.

    With `fallback_until`, Postgres admits the tenant, at least until then.
    """

    __tablename__ = "tenant_epochs"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    fallback_until: Mapped[datetime | None] = mapped_column(TimestampTz)


class LimitRow(Base):
    """The limits of a user, or of the tenant itself (`subject_id` is the tenant's id). They override the plan."""

    __tablename__ = "limit_sets"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    limits: Mapped[list[Any]] = mapped_column(JSONB)
    concurrency: Mapped[int | None]


class TagKeyRow(Base):
    """A tag key that a tenant declares: usage is added up by its values, of at most `max_values` a day."""

    __tablename__ = "tag_keys"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    max_values: Mapped[int] = mapped_column(server_default="1000")
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    removed_at: Mapped[datetime | None] = mapped_column(TimestampTz)


class TagValueRow(Base):
    """A value that a declared key had on a day. Later values than `max_values` are added up as `other`."""

    __tablename__ = "tag_values"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(Text, primary_key=True)


class TagLimitRow(Base):
    """The limits of all requests of a tenant with this tag."""

    __tablename__ = "tag_limits"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[str] = mapped_column(Text, primary_key=True)
    limits: Mapped[list[Any]] = mapped_column(JSONB)


class EntitlementRow(Base):
    """The entitlement of a tenant. Billing writes it, metering reads it."""

    __tablename__ = "entitlements"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    plan_version: Mapped[str] = mapped_column(Text)
    limits: Mapped[dict[str, Any]] = mapped_column(JSONB)
    schedule: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")


class PriceRow(Base):
    """A model's price from a moment on. Never changed: a new price is a new row.

    `factors`: per mille of every token rate, by modifier (`{"speed:fast": 2000}`). `web_search_rate`: nano-USD per
    search.
    """

    __tablename__ = "prices"
    __table_args__ = (UniqueConstraint("model", "effective_from"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text)
    effective_from: Mapped[datetime] = mapped_column(TimestampTz)
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    factors: Mapped[dict[str, int]] = mapped_column(JSONB, server_default="{}")
    web_search_rate: Mapped[int] = mapped_column(BigInteger, server_default="10000000")


class PriceBandRow(Base):
    """The rates of a price, nano-USD per token, for prompts of more than `over_prompt_tokens`."""

    __tablename__ = "price_bands"
    __table_args__ = (ForeignKeyConstraint(["price_id"], ["prices.id"], ondelete="CASCADE"),)

    price_id: Mapped[UUID] = mapped_column(primary_key=True)
    over_prompt_tokens: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    input_rate: Mapped[int] = mapped_column(BigInteger)
    output_rate: Mapped[int] = mapped_column(BigInteger)
    cache_read_rate: Mapped[int] = mapped_column(BigInteger)
    cache_write_5m_rate: Mapped[int] = mapped_column(BigInteger)
    cache_write_1h_rate: Mapped[int] = mapped_column(BigInteger)


class CountColumns:
    """The columns of the nine counts (`metering.counts`)."""

    requests: Mapped[int] = mapped_column(BigInteger, server_default="0")
    input_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    output_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cache_read_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cache_write_5m_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cache_write_1h_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    thinking_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    web_searches: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cost_nano_usd: Mapped[int] = mapped_column(BigInteger, server_default="0")


class UsageRequest(CountColumns, Base):
    """A request: opened before the provider receives it, and settled or void in the end.

    `requests` is 1 once it is settled, however it ended, and 0 while it is open or if it is void. `source` tells how
    the counts were measured: `final`, `counted` or `estimated`. If the row was recovered while its process may only
    have been suspended, it is settled, and its hold counts until `hold_until`.
    """

    __tablename__ = "usage_requests"
    __table_args__ = (
        Index("ix_usage_requests_open", "tenant_id", "id", postgresql_where="state = 'open'"),
        Index("ix_usage_requests_user", "tenant_id", "user_id", "id"),
        Index("ix_usage_requests_process", "process_id", postgresql_where="state = 'open'"),
        Index("ix_usage_requests_id", "id"),
        Index("ix_usage_requests_held", "tenant_id", "id", postgresql_where="hold_until IS NOT NULL"),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    key_id: Mapped[UUID | None]
    process_id: Mapped[UUID | None]
    state: Mapped[str] = mapped_column(Text)
    epoch: Mapped[int | None] = mapped_column(BigInteger)
    price_id: Mapped[UUID | None]
    plan_version: Mapped[str | None] = mapped_column(Text)
    period_id: Mapped[str | None] = mapped_column(Text)
    day: Mapped[date | None]
    opened_at: Mapped[datetime | None] = mapped_column(TimestampTz)
    deadline_at: Mapped[datetime | None] = mapped_column(TimestampTz)
    model_asked: Mapped[str | None] = mapped_column(Text)
    held_prompt_tokens: Mapped[int | None] = mapped_column(BigInteger)
    held_output_tokens: Mapped[int | None] = mapped_column(BigInteger)
    held_nano_usd: Mapped[int | None] = mapped_column(BigInteger)
    held_web_searches: Mapped[int | None] = mapped_column(BigInteger)
    settled_at: Mapped[datetime | None] = mapped_column(TimestampTz)
    outcome: Mapped[str | None] = mapped_column(Text)
    source: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    model_known: Mapped[bool | None]
    stop_reason: Mapped[str | None] = mapped_column(Text)
    upstream_request_id: Mapped[str | None] = mapped_column(Text)
    upstream_message_id: Mapped[str | None] = mapped_column(Text)
    output_chars: Mapped[int | None] = mapped_column(BigInteger)
    hold_until: Mapped[datetime | None] = mapped_column(TimestampTz)
    modifiers: Mapped[str | None] = mapped_column(Text)
    tags: Mapped[dict[str, str] | None] = mapped_column(JSONB)
    tag_keys: Mapped[list[str] | None] = mapped_column(ARRAY(Text))


class UsageEntry(CountColumns, Base):
    """A change after a request was settled: signed differences, never edited.

    `revision`: a better measurement of the request. `correction`: an admin's adjustment of a request, on top of its
    measurement. `credit`: an adjustment of a user, for no single request (`key_id` is nil, `model` empty). `repair`: a
    correction of a meter that had drifted from its rows. `iteration`: what another model did for the request, settled
    with its row.
    """

    __tablename__ = "usage_entries"
    __table_args__ = (
        Index(
            "uq_usage_entries_reference",
            "tenant_id",
            "reference",
            unique=True,
            postgresql_where="reference IS NOT NULL",
        ),
        Index("ix_usage_entries_request", "tenant_id", "request_id", postgresql_where="request_id IS NOT NULL"),
        Index("ix_usage_entries_period", "tenant_id", "period_id"),
        Index("ix_usage_entries_id", "id"),
        Index("ix_usage_entries_user", "tenant_id", "user_id", "id"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    request_id: Mapped[UUID | None]
    user_id: Mapped[UUID | None]
    key_id: Mapped[UUID | None]
    model: Mapped[str | None] = mapped_column(Text)
    period_id: Mapped[str] = mapped_column(Text)
    day: Mapped[date | None]
    source: Mapped[str | None] = mapped_column(Text)
    outcome: Mapped[str | None] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(Text)
    actor_key_id: Mapped[UUID | None]
    reason: Mapped[str] = mapped_column(Text)
    reference: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.clock_timestamp())


class UsageRefusal(Base):
    """Refused requests of a tenant on a day, by the error's code. Counted in memory and added in batches."""

    __tablename__ = "usage_refusals"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(Text, primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)


class ProcessRow(Base):
    """A process that opens requests: its last heartbeat, with the progress of its open streams."""

    __tablename__ = "processes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(Text)
    pid: Mapped[int]
    beat: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.clock_timestamp())
    beat_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None] = mapped_column(TimestampTz)
    progress: Mapped[Any] = mapped_column(JSON)


class CharsPerTokenRow(Base):
    """Characters and output tokens of a model's complete answers."""

    __tablename__ = "output_densities"

    model: Mapped[str] = mapped_column(Text, primary_key=True)
    output_chars: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)


class ReconciliationRow(Base):
    """A reconciliation and its report."""

    __tablename__ = "reconciliations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    ran_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.clock_timestamp())
    drifts: Mapped[int]
    report: Mapped[dict[str, Any]] = mapped_column(JSONB)


class ReportedColumns(CountColumns):
    """The counts of the rollups; `errors`: settled requests with an outcome of `metering.journal.records.ERRORS`."""

    errors: Mapped[int] = mapped_column(BigInteger, server_default="0")


class UsageDaily(ReportedColumns, Base):
    """The finest rollup: settled requests by user, day, period, key and model."""

    __tablename__ = "usage_daily"
    __table_args__ = (Index(None, "tenant_id", "day"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)
    key_id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)


class UsageMonthly(ReportedColumns, Base):
    """The rollup by user, month, period, key and model: for long reports of users and keys."""

    __tablename__ = "usage_monthly"
    __table_args__ = (Index(None, "tenant_id", "month"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    month: Mapped[date] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)
    key_id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)


class UsageByDay(ReportedColumns, Base):
    """The rollup by day, period and model over all users, in shards like the meters: for reports over time."""

    __tablename__ = "usage_by_day"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True)


class UsageByTag(ReportedColumns, Base):
    """The rollup by tag, day and period, in shards like the meters."""

    __tablename__ = "usage_by_tag"
    __table_args__ = (Index(None, "tenant_id", "day"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    tag_key: Mapped[str] = mapped_column(Text, primary_key=True)
    tag_value: Mapped[str] = mapped_column(Text, primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True)


class UsageCheckpoint(CountColumns, Base):
    """The sums of the rows of a detached month, by the operator's day and period. `month` is in UTC."""

    __tablename__ = "usage_checkpoints"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    month: Mapped[date] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)


class UsageTagCheckpoint(CountColumns, Base):
    """The sums of the rows of a detached month and of their entries, by tag, day and period. `month` is in UTC."""

    __tablename__ = "usage_tag_checkpoints"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    month: Mapped[date] = mapped_column(primary_key=True)
    tag_key: Mapped[str] = mapped_column(Text, primary_key=True)
    tag_value: Mapped[str] = mapped_column(Text, primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)


class UsageMeter(CountColumns, Base):
    """The running total of a tenant's period, in shards, so that busy processes rarely share a row. Bills read it."""

    __tablename__ = "usage_meters"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
