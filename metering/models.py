"""The tables of metering. The journal, the rollup and the meters are written by `metering/sql`, in batches.

`usage_requests` is partitioned by month over its own id (a UUIDv7), so `(tenant_id, id)` is its primary key and old
months can be dropped whole. It has no foreign keys: the statement that opens a request joins the key's row under a
lock, and a check per row would only repeat that.
"""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, SmallInteger, Text, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.postgres.database import Base
from core.tenancy.models import TimestampTz


class TenantEpoch(Base):
    """The epoch that a request of the tenant must be granted under, to be opened.

    With `fallback_until` the tenant is admitted by Postgres, and goes back to Redis no sooner than then.
    """

    __tablename__ = "tenant_epochs"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    fallback_until: Mapped[datetime | None] = mapped_column(TimestampTz)


class LimitRow(Base):
    """What was set for a user, or for the tenant itself (`subject_id` is the tenant's id). Overrides the plan."""

    __tablename__ = "limit_sets"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    limits: Mapped[list[Any]] = mapped_column(JSONB)
    concurrency: Mapped[int | None]


class EntitlementRow(Base):
    """What billing says that a tenant is entitled to; written there, read here."""

    __tablename__ = "entitlements"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    plan_version: Mapped[str] = mapped_column(Text)
    limits: Mapped[dict[str, Any]] = mapped_column(JSONB)
    schedule: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")


class PriceRow(Base):
    """A model's price from a moment on. Never edited: a new price is a new row."""

    __tablename__ = "prices"
    __table_args__ = (UniqueConstraint("model", "effective_from"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text)
    effective_from: Mapped[datetime] = mapped_column(TimestampTz)
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())


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


class Counts:
    """The columns that are summed everywhere, under the names of the API's `U`."""

    requests: Mapped[int] = mapped_column(BigInteger, server_default="0")
    input_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    output_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cache_read_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cache_write_5m_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cache_write_1h_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cost_nano_usd: Mapped[int] = mapped_column(BigInteger, server_default="0")


COUNT_COLUMNS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cost_nano_usd",
)
REPORTED_COLUMNS = (*COUNT_COLUMNS, "errors")
"""What the rollups have."""


class UsageRequest(Counts, Base):
    """One request: opened before the provider hears of it, settled or void in the end.

    `requests` is 1 once it is settled, however it ended, and 0 while it is open or where it is void.
    `source` says how the counts are known: `final`, `counted` or `estimated`. A row that was recovered while its
    process may only have slept is settled, and its hold counts until `hold_until` all the same.
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


class UsageEntry(Counts, Base):
    """What was learnt or decided after a request was settled: signed differences, never edited.

    `revision`: a better measurement of the request. `correction`: an admin's word on a request, on top of what was
    measured. `credit`: to a user, for no single request (`key_id` is nil, `model` empty). `repair`: a meter that had
    drifted from its rows; it moves the meter and no row.
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


class ProcessRow(Base):
    """A process that opens requests: its last heartbeat, and the progress of its open streams at that time."""

    __tablename__ = "processes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(Text)
    pid: Mapped[int]
    beat: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.clock_timestamp())
    beat_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None] = mapped_column(TimestampTz)
    progress: Mapped[Any] = mapped_column(JSON)


class OutputDensity(Base):
    """Characters per output token of a model, measured on complete answers."""

    __tablename__ = "output_densities"

    model: Mapped[str] = mapped_column(Text, primary_key=True)
    output_chars: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)


class ReconciliationRow(Base):
    """One run of the check of the books, and what it found."""

    __tablename__ = "reconciliations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    ran_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.clock_timestamp())
    drifts: Mapped[int]
    report: Mapped[dict[str, Any]] = mapped_column(JSONB)


class ReportedCounts(Counts):
    """What reports show beside U: how many of the settled requests were errors (`metering.journal.records.ERRORS`)."""

    errors: Mapped[int] = mapped_column(BigInteger, server_default="0")


class UsageDaily(ReportedCounts, Base):
    """The finest rollup: settled requests by user, day, period, key and model."""

    __tablename__ = "usage_daily"
    __table_args__ = (Index(None, "tenant_id", "day"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)
    key_id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)


class UsageMonthly(ReportedCounts, Base):
    """The same by calendar month of the day: what long reports of users and keys read."""

    __tablename__ = "usage_monthly"
    __table_args__ = (Index(None, "tenant_id", "month"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    month: Mapped[date] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)
    key_id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)


class UsageByDay(ReportedCounts, Base):
    """The same by day and model, for all users together, in shards as the meters have: what reports over time read."""

    __tablename__ = "usage_by_day"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True)


class UsageCheckpoint(Counts, Base):
    """What the rows of a month that was detached came to, by the operator's day and period. `month` is in UTC."""

    __tablename__ = "usage_checkpoints"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    month: Mapped[date] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)


class UsageMeter(Counts, Base):
    """The running total of a tenant's period, in shards that no two busy processes share. Bills read it."""

    __tablename__ = "usage_meters"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    period_id: Mapped[str] = mapped_column(Text, primary_key=True)
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
