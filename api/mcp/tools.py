"""The tools: what each asks, the permission that it needs, and the service that answers. All only read.

A tool shows and checks exactly what the API's route of the same data does, because both call the same service.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from api.runtime import Runtime
from api.schemas.fields import Body
from api.schemas.moments import Day
from api.schemas.usage.reports import UsageQuery
from api.schemas.usage.requests import RequestQuery, State
from api.services.billing import bills, explanation
from api.services.context import ServiceContext
from api.services.usage import own_usage, reports, requests
from core.tenancy.principal import Forbidden, Principal, Scope
from metering.reports.usage_report import GROUPS, ORDERS, TAG_GROUP

_MAX_ROWS = 100
"""Of a list or a report: an agent reads all of what it is given."""
_MAX_GROUPS = 5
_TAG_GROUP = re.compile(rf"{TAG_GROUP}(?:nk:token|[a-z0-9][a-z0-9_.-]{{0,39}})")

Rows = Annotated[int, Field(20, strict=True, ge=1, le=_MAX_ROWS, description="At most so many")]
TenantOnly = Annotated[UUID | None, Field(None, description="Only this tenant; for the operator")]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and the process that answers."""

    context: ServiceContext
    principal: Principal
    runtime: Runtime


class Nothing(Body):
    """No arguments."""


class Days(Body):
    """A range of days of the operator's time zone, both included; by default this month."""

    first: Day | None = Field(None, description="First day, as 2026-11-01")
    last: Day | None = Field(None, description="Last day, included")


class OneRequest(Body):
    """A request by its id."""

    request_id: UUID = Field(description="The X-Request-Id of its answer")


class OneBill(Body):
    """A bill by its id."""

    bill_id: UUID = Field(description="The id of a bill, of the tool `bills`")


class BillList(Body):
    """A page of bills."""

    tenant_id: TenantOnly
    limit: Rows
    cursor: UUID | None = Field(None, description="`next` of the page before")


class RequestList(Body):
    """A page of requests, and what it is narrowed to."""

    tenant_id: TenantOnly
    user_id: UUID | None = None
    key_id: UUID | None = None
    model: Annotated[str, StringConstraints(max_length=200)] | None = None
    state: State | None = None
    first: Day | None = Field(None, description="First day, as 2026-11-01")
    last: Day | None = Field(None, description="Last day, included")
    limit: Rows
    cursor: UUID | None = Field(None, description="`next` of the page before")


class Report(Days):
    """Sums of usage by groups, largest first."""

    group_by: Annotated[
        list[Annotated[str, StringConstraints(max_length=60)]],
        Field(["day"], max_length=_MAX_GROUPS, description=f"Any of {', '.join(GROUPS)}, or tag:KEY"),
    ]
    order: Annotated[str, StringConstraints(max_length=60)] | None = Field(
        None, description=f"Largest first, by one of {', '.join(ORDERS)}"
    )
    limit: Rows
    tenant_id: TenantOnly
    user_id: UUID | None = None
    key_id: UUID | None = None
    model: Annotated[str, StringConstraints(max_length=200)] | None = None


class ReportRows(BaseModel):
    """The rows of a report and its days."""

    first: Any
    last: Any
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool. `answer` gets the validated arguments and returns what is shown as JSON."""

    title: str
    description: str
    scope: Scope
    arguments: type[Body]
    answer: Callable[[Caller, Any], Awaitable[BaseModel]]


async def _usage(caller: Caller, asked: Days) -> BaseModel:
    return await own_usage.own_usage(caller.context, caller.principal, first=asked.first, last=asked.last)


async def _limits(caller: Caller, _: Nothing) -> BaseModel:
    metering = caller.runtime.metering
    return await own_usage.own_limits(
        caller.context, caller.principal, (), statuses=metering.limit_status, budgets=metering.budget_status
    )


async def _request(caller: Caller, asked: OneRequest) -> BaseModel:
    return await own_usage.own_request(caller.context, caller.principal, asked.request_id)


async def _requests(caller: Caller, asked: RequestList) -> BaseModel:
    wanted = RequestQuery(
        tenant=asked.tenant_id,
        user_id=asked.user_id,
        key_id=asked.key_id,
        model=asked.model,
        state=asked.state,
        since=asked.first,
        until=asked.last,
        before=asked.cursor,
    )
    return await requests.list_requests(caller.context, wanted, size=asked.limit)


async def _explain_request(caller: Caller, asked: OneRequest) -> BaseModel:
    return await requests.find_request(caller.context, asked.request_id)


async def _report(caller: Caller, asked: Report) -> BaseModel:
    wanted = UsageQuery(
        first=asked.first,
        last=asked.last,
        group_by=asked.group_by,
        tenant=asked.tenant_id,
        user_id=asked.user_id,
        key_id=asked.key_id,
        model=asked.model,
        order=asked.order,
        top=asked.limit,
        named=True,
    )
    report = await reports.stream_usage(caller.context, caller.runtime.reports, wanted)
    rows: list[dict[str, Any]] = []
    async with aclosing(report.batches) as batches:
        async for batch in batches:
            rows += [report.exact(row) for row in batch]
    return ReportRows(first=report.first, last=report.last, rows=rows[:_MAX_ROWS])


async def _bills(caller: Caller, asked: BillList) -> BaseModel:
    return await bills.list_bills(caller.context, tenant=asked.tenant_id, before=asked.cursor, size=asked.limit)


async def _explain_bill(caller: Caller, asked: OneBill) -> BaseModel:
    return await explanation.explain_bill(caller.context, asked.bill_id)


async def _upcoming(caller: Caller, _: Nothing) -> BaseModel:
    return await bills.upcoming_bill(caller.context)


_READ, _USAGE, _ADMIN = Scope.USAGE_READ, Scope.TENANT_READ, Scope.TENANT_ADMIN
_OWN = (
    ("my_usage", "My usage", "Usage of this key's own user, by day and model.", Days, _usage),
    ("my_limits", "My limits", "Limits of this key's user and its tenant: used, held, left, reset.", Nothing, _limits),
    ("my_request", "My request", "One request of this key's user: what it used, why it ended.", OneRequest, _request),
)
_USAGE_OF_THE_ACCOUNT = (
    ("usage_report", "Usage report", "Usage of the account, summed by any groups.", Report, _report),
    ("requests", "Requests", "Requests of the account, newest first.", RequestList, _requests),
    (
        "explain_request",
        "Explain request",
        "One request with every change of its counts.",
        OneRequest,
        _explain_request,
    ),
)
_OF_THE_ACCOUNT = (
    ("bills", "Bills", "Bills and credit notes of the account, newest first.", BillList, _bills),
    ("explain_bill", "Explain bill", "A bill: usage, allowance, rate, tax, payments, due.", OneBill, _explain_bill),
    ("upcoming_charges", "Upcoming charges", "The cost of the current period's overage so far.", Nothing, _upcoming),
)
TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        name: Tool(title, description, scope, arguments, answer)
        for scope, tools in ((_READ, _OWN), (_USAGE, _USAGE_OF_THE_ACCOUNT), (_ADMIN, _OF_THE_ACCOUNT))
        for name, title, description, arguments, answer in tools
    }
)


def tools_of(principal: Principal) -> dict[str, Tool]:
    """Returns the tools that the caller's permissions allow."""
    return {name: tool for name, tool in TOOLS.items() if _may(principal, tool.scope)}


def _may(principal: Principal, scope: Scope) -> bool:
    try:
        principal.require(scope)
    except Forbidden:
        return False
    return True


def unknown_values(arguments: Body) -> Sequence[str]:
    """Returns what a report asks for that no report has."""
    if not isinstance(arguments, Report):
        return []
    wrong = [group for group in arguments.group_by if group not in GROUPS and not _TAG_GROUP.fullmatch(group)]
    return wrong if arguments.order is None or arguments.order in ORDERS else [*wrong, arguments.order]
