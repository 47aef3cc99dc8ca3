"""`naka report usage`, `naka report refusals`: the API's reports for a terminal, a script or a spreadsheet."""

import csv
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Annotated, Any, TextIO
from uuid import UUID

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from api.cli.command import AsJson, run_service, wide_console
from api.cli.options import tenant_name
from api.schemas.csv_text import BYTE_ORDER_MARK, cell
from api.schemas.usage.reports import UsageQuery, UsageRows
from api.services.context import ServiceContext
from api.services.usage.reports import stream_refusals, stream_usage
from api.services.usage.tags import read_tag
from billing.gst.rupees import rupees
from billing.invoicing.report_prices import paise_of
from core.errors import Invalid
from core.figures import grouped, usd
from core.postgres.database import Database
from metering.reports.refusals import REFUSAL_GROUPS
from metering.reports.usage_report import GROUPS, ORDERS, RATED, RATED_SUMS, TAG_GROUP, column_of

Since = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day; the month's first.")]
Until = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included; today.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")]
Stream = Callable[[ServiceContext, Database, UsageQuery], Awaitable[UsageRows]]

app = typer.Typer(no_args_is_help=True, help="Usage reports.")
_BAR = 12
_NAMES = {
    "tenant": "tenant_slug",
    "user": "external_id",
    "key": "key_name",
    "model": "model",
    "day": "day",
    "month": "month",
}
_FIGURES = (
    "requests",
    "errors",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "thinking_tokens",
    "web_searches",
)


@app.callback()
def _reports() -> None:
    """Usage reports."""


@app.command()
def usage(  # noqa: PLR0913 - the filters
    *,
    since: Since = None,
    until: Until = None,
    by: Annotated[
        str, typer.Option(help=f"Any of {', '.join(GROUPS)}, or tag:KEY, separated by commas; empty for the sum.")
    ] = "day",
    tenant: Annotated[str | None, typer.Option(help="Only this tenant: its slug or id.")] = None,
    user: Annotated[UUID | None, typer.Option(help="Only this user, by its id.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only requests with this tag, as feature=search.")] = None,
    order: Annotated[str | None, typer.Option(help=f"Highest first, by one of {', '.join(ORDERS)}.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show usage by the groups asked for; without a range, of this month."""
    groups = [group.strip() for group in by.split(",") if group.strip()]
    if not {group for group in groups if not group.startswith(TAG_GROUP)} <= set(GROUPS) or order not in (
        None,
        *ORDERS,
    ):
        raise Invalid(f"--by takes {', '.join(GROUPS)}, tag:KEY; --order {', '.join(ORDERS)}")

    query = UsageQuery(
        first=since.date() if since else None,
        last=until.date() if until else None,
        group_by=groups,
        tenant=tenant_name(tenant) if tenant else None,
        user_id=user,
        model=model,
        tag=read_tag(tag) if tag else None,
        order=order,
        top=top,
        named=True,
    )
    rows = run_service(lambda context: _read(context, query))
    if as_json or as_csv:
        _write(rows, RATED_SUMS, as_csv=as_csv)
    else:
        _show(groups, rows)


@app.command()
def refusals(
    *,
    since: Since = None,
    until: Until = None,
    by: Annotated[str, typer.Option(help=f"Any of {', '.join(REFUSAL_GROUPS)}, separated by commas.")] = "code",
    tenant: Annotated[str | None, typer.Option(help="Only this tenant: its slug or id.")] = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show refused requests by the groups asked for; without a range, of this month."""
    groups = [group.strip() for group in by.split(",") if group.strip()]
    if not set(groups) <= set(REFUSAL_GROUPS):
        raise Invalid(f"--by takes {', '.join(REFUSAL_GROUPS)}")
    query = UsageQuery(
        first=since.date() if since else None,
        last=until.date() if until else None,
        group_by=groups,
        tenant=tenant_name(tenant) if tenant else None,
    )
    rows = run_service(lambda context: _read(context, query, stream_refusals))
    if as_json or as_csv:
        _write(rows, [*groups, "requests"], as_csv=as_csv)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    for place, group in enumerate(groups):
        table.add_column(group, footer="" if place else "total", no_wrap=True)
    table.add_column("requests", grouped(sum(row["requests"] for row in rows)), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(_named(group, row)) for group in groups), grouped(row["requests"]))
    wide_console().print(table)


def _write(rows: list[dict[str, Any]], columns: Sequence[str], *, as_csv: bool) -> None:
    """Prints JSON or CSV. `columns`: the head of a CSV file without rows."""
    if not as_csv:
        typer.echo(msgspec.json.encode(rows).decode())
        return
    if _is_file(sys.stdout):
        sys.stdout.write(BYTE_ORDER_MARK)
    writer = csv.writer(sys.stdout)
    writer.writerow(rows[0] if rows else columns)
    writer.writerows([cell(value) for value in row.values()] for row in rows)


def _is_file(stream: TextIO) -> bool:
    """Whether it is a file, which a spreadsheet may open. A program at a pipe expects no byte order mark."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:
        return False


async def _read(context: ServiceContext, query: UsageQuery, stream: Stream = stream_usage) -> list[dict[str, Any]]:
    report = await stream(context, context.database, query)
    return [report.exact(row) async for rows in report.batches for row in rows]


def _show(groups: list[str], rows: list[dict[str, Any]]) -> None:
    """A table for people, with the sum below and a bar for each row's share of the cost."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    total = {name: sum(row[name] for row in rows) for name in RATED_SUMS}
    for place, group in enumerate(groups):
        table.add_column(group, footer="" if place else "total", no_wrap=True)
    for name in _FIGURES:
        table.add_column(
            name.removesuffix("_tokens").replace("_", " "), grouped(total[name]), justify="right", no_wrap=True
        )
    table.add_column("cost", usd(total["cost_nano_usd"]), justify="right", no_wrap=True)
    table.add_column("rated value", rupees(paise_of(total[RATED])), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    most = max((row["cost_nano_usd"] for row in rows), default=0)
    for row in rows:
        table.add_row(
            *(escape(_named(group, row)) for group in groups),
            *(grouped(row[name]) for name in _FIGURES),
            usd(row["cost_nano_usd"]),
            rupees(paise_of(row[RATED])),
            _bar(row["cost_nano_usd"], most),
        )
    wide_console().print(table)


def _named(group: str, row: dict[str, Any]) -> str:
    value = row.get(column_of(group) if group.startswith(TAG_GROUP) else _NAMES.get(group, group))
    if value is None:
        value = row.get(f"{group}_id")
    return value.isoformat() if isinstance(value, date) else str(value or "-")


def _bar(part: int, most: int) -> str:
    eighths = 0 if most <= 0 else max(0, part) * _BAR * 8 // most
    full, rest = divmod(eighths, 8)
    return "█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")
