"""Do the books agree? The checks that ran, what they found, and having them run once more by a worker."""

from typing import Any

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy import select

from api.auth.access import RuntimeDep
from api.pages.operator.frame import Cell, Listing, Row, Said, show
from api.pages.route import page_router
from api.pages.site import Here, number, see_other, words
from api.pages.visitor import Operator
from billing.context import RAZORPAY
from billing.models import RazorpayReconciliation
from core.errors import Invalid
from core.queue import post_with
from metering.models import ReconciliationRow
from metering.reconciliation.drifts import CHECKS

router = page_router("/operator/reconciliation")
_RUNS = 20
_LISTED = 50
_DUTIES = {"books": "reconcile", "razorpay": RAZORPAY}


@router.get("")
async def reconciliation(request: Request, runtime: RuntimeDep, visitor: Operator, said: Said = "") -> Response:
    """The latest runs of both."""
    ours = select(ReconciliationRow).order_by(ReconciliationRow.ran_at.desc()).limit(_RUNS)
    theirs = select(RazorpayReconciliation).order_by(RazorpayReconciliation.ran_ms.desc()).limit(_RUNS)
    async with runtime.database.session() as session:
        books = (await session.scalars(ours)).all()
        razorpay = (await session.scalars(theirs)).all()
    here = Here(runtime.calendar.zone)
    return show(
        request,
        "reconciliation",
        visitor,
        said,
        checks=_checks(books[0].report) if books else [],
        drifts=_drifts(books[0].report) if books else None,
        unexplained=[_line(item) for item in razorpay[0].report.get("unexplained", [])][:_LISTED] if razorpay else [],
        books=Listing(
            ["Run", "Tenants", "Drifts"],
            [
                Row([
                    Cell(here.at(run.ran_at)),
                    Cell(number(int(run.report.get("tenants", 0))), is_number=True),
                    Cell(number(run.drifts), is_number=True),
                ])
                for run in books
            ],
            "Not checked yet: a worker does it each night.",
        ),
        razorpay=Listing(
            ["Run", "Healed", "Unexplained"],
            [
                Row([
                    Cell(here.at(run.ran_ms)),
                    Cell(number(run.healed), is_number=True),
                    Cell(number(run.unexplained), is_number=True),
                ])
                for run in razorpay
            ],
            "Not compared yet: a worker does it each hour.",
        ),
    )  # fmt: skip


@router.post("/{which}/run")
async def run(which: str, runtime: RuntimeDep, _: Operator) -> Response:
    """Has a worker make the check next: all of it may take long, and no request should wait for it."""
    if which not in _DUTIES:
        raise Invalid("there is no such check")
    async with runtime.database.session() as session:
        await post_with(session, _DUTIES[which])
    return see_other("/operator/reconciliation?said=run")


def _checks(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(words, result, tone) of each check of a run."""
    found = []
    for name, described in CHECKS.items():
        check = report.get("checks", {}).get(name, {})
        if check.get("not_done"):
            found.append((described, str(check["not_done"]), "warn"))
        else:
            drifts = int(check.get("drifts", 0))
            found.append(
                (described, "it holds" if not drifts else f"{number(drifts)} drifts", "bad" if drifts else "good")
            )
    return found


def _drifts(report: dict[str, Any]) -> Listing:
    """What the last run listed."""
    rows = [
        Row([Cell(words(name)), Cell(_line(item["subject"])), Cell(_line(item["difference"]))])
        for name, check in report.get("checks", {}).items()
        for item in check.get("listed", [])
    ]
    return Listing(["Check", "Where", "Too much, or missing"], rows[:_LISTED], "No drift.")


def _line(values: dict[str, Any]) -> str:
    return ", ".join(f"{words(str(name))} {value}" for name, value in values.items())
