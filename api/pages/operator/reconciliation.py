"""`/operator/reconciliation`: the latest runs of both reconciliations, and a button that has a worker run one now."""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from api.pages.operator.frame import Cell, Listing, Row, Said, show
from api.pages.route import page_router
from api.pages.site import Here, see_other, words
from api.pages.visitor import Operator
from api.schemas.usage.reconciliation import StoredRun
from api.services.usage.reconciliation_runs import list_runs, request_run
from core.figures import grouped
from metering.reconciliation.drifts import CHECKS

router = page_router("/operator/reconciliation")
_LISTED = 50


@router.get("")
async def reconciliation(request: Request, visitor: Operator, said: Said = "") -> Response:
    """The latest runs of both."""
    runs, here = await list_runs(visitor.context), Here(visitor.context.zone)
    usage, razorpay = runs.usage, runs.razorpay
    unexplained = razorpay[0].report.get("unexplained", []) if razorpay else []
    return show(
        request,
        "reconciliation",
        visitor,
        said,
        checks=_checks(usage[0].report) if usage else [],
        drifts=_drifts(usage[0].report) if usage else None,
        unexplained=[_line(item) for item in unexplained[:_LISTED]],
        usage=_runs(here, ["Run", "Tenants", "Drifts"], usage, "Not checked yet. A worker checks every night."),
        razorpay=_comparisons(here, razorpay),
    )


@router.post("/{which}/run")
async def run(which: str, visitor: Operator) -> Response:
    """Has a worker run this reconciliation next."""
    await request_run(visitor.context, which)
    return see_other("/operator/reconciliation?said=run")


def _runs(
    here: Here,
    columns: list[str],
    runs: list[StoredRun],
    empty: str,
    more: Callable[[StoredRun], list[Cell]] = lambda _: [],
) -> Listing:
    """The runs. `more`: the cells after the counts."""
    rows = [
        Row([Cell(here.at(run.ran_at)), *(Cell(grouped(count), is_number=True) for count in run.counts), *more(run)])
        for run in runs
    ]
    return Listing(columns, rows, empty)


def _comparisons(here: Here, runs: list[StoredRun]) -> Listing:
    """Comparisons with Razorpay. One that stopped says how far it came; the next one continues."""
    columns = ["Run", "Healed", "Unexplained", "Days compared"]
    empty = "Not compared yet. A worker compares every hour."
    return _runs(here, columns, runs, empty, lambda run: [Cell(_days(run.report))])


def _days(report: dict[str, Any]) -> str:
    done, of, stopped = report.get("days_compared"), report.get("days"), report.get("stopped")
    if done is None:
        return ""  # a run of an older version
    return f"{grouped(done)} of {grouped(of or 0)}" + (f", stopped: {stopped}" if stopped else "")


def _checks(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(words, result, tone) of each check of a run."""
    found = []
    for name, described in CHECKS.items():
        check = report.get("checks", {}).get(name, {})
        drifts = int(check.get("drifts", 0))
        if check.get("not_done"):
            found.append((described, str(check["not_done"]), "warn"))
        elif drifts:
            found.append((described, f"{grouped(drifts)} drifts", "bad"))
        else:
            found.append((described, "OK", "good"))
    return found


def _drifts(report: dict[str, Any]) -> Listing:
    """The drifts that a run listed."""
    rows = [
        Row([Cell(words(name)), Cell(_line(item["subject"])), Cell(_line(item["difference"]))])
        for name, check in report.get("checks", {}).items()
        for item in check.get("listed", [])
    ]
    return Listing(["Check", "Where", "Difference"], rows[:_LISTED], "No drift.")


def _line(values: dict[str, Any]) -> str:
    return ", ".join(f"{words(str(name))} {value}" for name, value in values.items())
