"""`naka reconcile`: proves the books, and mends them when told to.

Exit code: 0 no drift, 2 drifts (after `--repair`: drifts that are left; or settlements in this host's spool folder that
Postgres had refused), 3 something could not be checked. What
Anthropic's usage report says is a report and no drift of our books: a difference never changes the exit code, a report
that was wanted and could not be had is a 3.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any
from uuid import UUID

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from api.cli.accounts.tenants import named_tenant
from api.cli.billing.reconcile_razorpay import compare
from api.cli.command import AsJson, CommandContext, in_one_line, run_command
from api.gateway.anthropic_admin import AnthropicAdmin, ReportUnavailable
from core.clock import now_ms, to_datetime
from core.errors import Invalid, Unavailable
from core.postgres.database import Connections
from core.resilience.outage import STORE_ERRORS
from core.settings import Settings
from core.tenancy.audit import Actor
from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts
from metering.journal.spool import waiting
from metering.reconciliation.drifts import CHECKS, METERS, REDIS, ROLLUP, Drift, Month, Reconciliation
from metering.reconciliation.provider_usage import Exposure, compare_with_provider
from metering.reconciliation.reconcile import Scope, reconcile
from metering.reconciliation.repair import drop_counters, repair_meters, repair_rollup

DRIFTED, NOT_CHECKED = 2, 3
_REDIS_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Repairs:
    """What is to be mended, by whom. `reason` is for the meters: without one they are left as they are."""

    actor: Actor
    derived: bool
    meters: bool
    reason: str


@dataclass(slots=True)
class Findings:
    """Everything that one command found out."""

    found: Reconciliation
    left: Reconciliation | None = None
    mended: dict[str, int] = field(default_factory=dict)
    exposure: list[Exposure] | None = None
    no_exposure: str | None = None
    spooled: int = 0
    set_aside: int = 0

    @property
    def exit_code(self) -> int:
        """See above."""
        last = self.left or self.found
        if last.drifts or self.set_aside:
            return DRIFTED
        return 0 if self.found.whole and last.whole and self.no_exposure is None else NOT_CHECKED

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        provider = None if self.exposure is None else [row.as_json() for row in self.exposure]
        return {
            "found": self.found.as_json(),
            "mended": self.mended,
            "left": self.left.as_json() if self.left else None,
            "provider": provider,
            "provider_not_asked": self.no_exposure,
            "spool": {"waiting": self.spooled, "set_aside": self.set_aside},
            "exit_code": self.exit_code,
        }


app = typer.Typer(invoke_without_command=True)
app.command("razorpay")(compare)


@app.callback()
def prove(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(metavar="SLUG", help="Only this tenant, by its slug or id.")] = None,
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="Only from this month on.")] = None,
    reason: Annotated[str, typer.Option(help="Why meters are repaired: it is written beside each repair.")] = "",
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Mend the rollup, and have Redis rebuilt.")] = False,
    repair_meters: Annotated[bool, typer.Option("--repair-meters", help="Mend the meters; needs --reason.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prove the books against the request rows. Exit code: 0 no drift, 2 drifts, 3 something could not be checked."""
    if context.invoked_subcommand is not None:
        return
    if repair_meters and not reason.strip():
        raise Invalid("--repair-meters needs --reason: bills are made of meters")

    async def look_up(context: CommandContext) -> tuple[Settings, Actor, UUID | None]:
        wanted = None if tenant is None else (await named_tenant(context.session, tenant)).id
        return context.settings, context.actor, wanted

    month = None if since is None else _month(since)
    try:
        settings, actor, wanted = run_command(look_up)
        scope = Scope(None if wanted is None else (wanted,), month)
        findings = asyncio.run(_prove(settings, scope, Repairs(actor, repair, repair_meters, reason)))
    except (Unavailable, *STORE_ERRORS) as error:
        typer.echo(f"naka: could not check: {in_one_line(error)}", err=True)
        raise typer.Exit(NOT_CHECKED) from error
    if as_json:
        typer.echo(msgspec.json.encode(findings.as_json()).decode())
    else:
        _print(findings)
    raise typer.Exit(findings.exit_code)


async def _prove(settings: Settings, scope: Scope, repairs: Repairs) -> Findings:
    async with _stores(settings) as (connections, quota):
        findings = Findings(await _watched(connections, quota, scope))
        findings.spooled, findings.set_aside = waiting(settings.spool_dir)
        touched = await _mend(connections, findings, repairs)
        if touched:
            findings.left = await _watched(connections, quota, Scope(tuple(sorted(touched)), scope.since))
        if settings.anthropic_admin_key.get_secret_value() and scope.tenants is None:
            await _expose(settings, connections, findings)
    return findings


@asynccontextmanager
async def _stores(settings: Settings) -> AsyncIterator[tuple[Connections, QuotaScripts | None]]:
    connections = Connections(settings.postgres, max_size=2, timeout_s=settings.store_deadline_s)
    lane = RedisPipeline(settings.redis_url, timeout_s=_REDIS_TIMEOUT_S) if settings.redis_url else None
    try:
        await connections.start()
        if lane is not None:
            lane.start()
        yield connections, None if lane is None else QuotaScripts(lane)
    finally:
        if lane is not None:
            await lane.stop()
        await connections.close()


async def _watched(connections: Connections, quota: QuotaScripts | None, scope: Scope) -> Reconciliation:
    """Compares under a bar, where somebody looks on."""
    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        task = bar.add_task("Comparing tenants")
        return await reconcile(
            connections, quota, scope, progress=lambda done, of: bar.update(task, completed=done, total=of)
        )


async def _mend(connections: Connections, findings: Findings, repairs: Repairs) -> set[UUID]:
    """Mends what was asked for; answers the tenants to look at again."""
    found, touched = findings.found, set[UUID]()
    if repairs.derived:
        for tenant_id, month in found.places(ROLLUP):
            if month is not None:
                _add(findings, ROLLUP, await repair_rollup(connections, repairs.actor, tenant_id, month))
                touched.add(tenant_id)
    if repairs.meters:
        for tenant_id, month in found.places(METERS):
            if month is not None:
                mended = await repair_meters(connections, repairs.actor, tenant_id, month, repairs.reason)
                _add(findings, METERS, mended)
                touched.add(tenant_id)
    if repairs.derived:
        for tenant_id, _ in found.places(REDIS):
            mine = [drift for drift in found.checks[REDIS].drifts if drift.tenant_id == tenant_id]
            await drop_counters(connections, repairs.actor, tenant_id, mine)
            _add(findings, REDIS, 1)
            touched.add(tenant_id)
    return touched


def _add(findings: Findings, check: str, mended: int) -> None:
    findings.mended[check] = findings.mended.get(check, 0) + mended


async def _expose(settings: Settings, connections: Connections, findings: Findings) -> None:
    """Holds our books against Anthropic's report, day by day until now."""
    first = findings.found.since.first
    days = (to_datetime(now_ms()).date() - first).days + 1
    organization = AnthropicAdmin(
        settings.anthropic_base_url,
        settings.anthropic_admin_key,
        proxy=settings.proxies.of(settings.anthropic_base_url),
    )
    try:
        findings.exposure = await compare_with_provider(connections, await organization.usage(first, days), first, days)
    except ReportUnavailable as error:
        findings.no_exposure = str(error)
    finally:
        await organization.close()


def _month(text: str) -> Month:
    month = Month(text)
    try:
        valid = f"{month.first:%Y-%m}" == text
    except ValueError:
        valid = False
    if not valid:
        raise Invalid("--since is a month, as 2026-11")
    return month


def _print(findings: Findings) -> None:
    console = Console()
    console = console if console.is_terminal else Console(width=10_000)
    for title, run in (("Found", findings.found), ("Left after repair", findings.left)):
        if run is not None:
            _print_run(console, title, run)
    for check, mended in findings.mended.items():
        console.print(f"mended: {check}, {mended}")
    console.print(f"spool: {findings.spooled} settlements wait, {findings.set_aside} set aside")
    if findings.exposure is not None:
        _print_exposure(console, findings.exposure)
    if findings.no_exposure is not None:
        console.print(escape(findings.no_exposure))


def _print_run(console: Console, title: str, run: Reconciliation) -> None:
    console.print(f"[bold]{title}[/bold]: {run.drifts} drifts, {run.tenants} tenants, from {run.since.name} on")
    table = Table("check", "drifts", "", box=None, pad_edge=False, header_style="bold")
    for check in run.checks.values():
        table.add_row(
            check.name, "-" if check.not_done else str(check.found), escape(check.not_done or CHECKS[check.name])
        )
    console.print(table)
    listed = [drift for check in run.checks.values() for drift in check.drifts]
    if listed:
        table = Table("check", "tenant", "where", "difference", box=None, pad_edge=False, header_style="bold")
        for drift in listed:
            table.add_row(drift.check, str(drift.tenant_id), escape(_pairs(drift.subject)), _difference(drift))
        console.print(table)
    for row in run.unpriced:
        console.print(escape(f"not on the price list: {row.model}, {row.requests} requests of tenant {row.tenant_id}"))


def _print_exposure(console: Console, exposure: list[Exposure]) -> None:
    console.print("[bold]Anthropic's usage report[/bold]: theirs less ours, by UTC day; no drift of the books")
    table = Table("day", "model", "requests", "estimated", "lost", "difference", box=None, pad_edge=False)
    for row in exposure:
        numbers = (str(row.requests), str(row.estimated), str(row.lost))
        table.add_row(row.day.isoformat(), escape(row.model), *numbers, _pairs(row.difference) or "none")
    console.print(table)


def _difference(drift: Drift) -> str:
    return _pairs({name: f"{amount:+d}" for name, amount in drift.difference.items()})


def _pairs(values: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
