"""`naka doctor`: checks this installation, and suggests fixes. Exit code 1 on a fault, 0 with warnings."""

import asyncio
from dataclasses import asdict

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.cli.command import AsJson, load_settings
from api.doctor.findings import Finding, Verdict
from core.logs import configure_logs
from core.settings import SettingsError

_MARKS = {
    Verdict.OK: "[green]ok[/green]",
    Verdict.WARNING: "[yellow]warning[/yellow]",
    Verdict.FAULT: "[red]fault[/red]",
    Verdict.UNCHECKED: "[dim]not checked[/dim]",
}


def doctor(*, as_json: AsJson = False) -> None:
    """Check this installation, and suggest fixes."""
    configure_logs(level="error", as_json=False)
    try:
        settings = load_settings()
    except SettingsError as error:
        mend = "see .env.example for the values of each setting"
        findings = [Finding("settings", Verdict.FAULT, str(error), mend)]
    else:
        from api.doctor.checkup import examine  # noqa: PLC0415 - imports every provider's SDK

        findings = asyncio.run(examine(settings))
    if as_json:
        typer.echo(msgspec.json.encode([asdict(finding) for finding in findings]).decode())
    else:
        _show(findings)
    if any(finding.verdict is Verdict.FAULT for finding in findings):
        raise typer.Exit(1)


def _show(findings: list[Finding]) -> None:
    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False)
    for finding in findings:
        says = escape(finding.says) + (f"\n[bold]{escape(finding.mend)}[/bold]" if finding.mend else "")
        table.add_row(_MARKS[finding.verdict], escape(finding.name), says)
    console.print(table)
    faults = sum(finding.verdict is Verdict.FAULT for finding in findings)
    warnings = sum(finding.verdict is Verdict.WARNING for finding in findings)
    console.print("All checks passed." if not faults and not warnings else f"{faults} faults, {warnings} warnings.")
