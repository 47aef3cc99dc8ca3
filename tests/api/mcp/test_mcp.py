"""The MCP tools by the official client: over HTTP in this process, and over stdio with a server of its own."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from core.ids import uuid7
from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.api.routes.test_admin_walk import settled
from tests.harness import Account

ROOT = Path(__file__).parents[3]
OWN = {"my_usage", "my_limits", "my_request"}
USAGE = {"usage_report", "requests", "explain_request"}
OF_THE_ACCOUNT = USAGE | {"bills", "explain_bill", "upcoming_charges"}
JSON = {"content-type": "application/json"}
MODES = ("auto", "legacy")
METER = (
    "output_tokens: 35,00,000 used, 30,00,000 included, 5,00,000 beyond it at ₹200.00 per 10,00,000: ₹100.00;"
    " on this bill ₹100.00."
)


@asynccontextmanager
async def client_of(api: Api, account: Account, mode: str = "auto") -> AsyncIterator[Client]:
    """The official client, with the account's key."""
    transport = httpx2.ASGITransport(app=api.app)
    async with (
        httpx2.AsyncClient(transport=transport, headers=account.headers, timeout=30) as http,
        Client(streamable_http_client("http://naka.test/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    assert json.loads(answer.content[0].text) == answer.structured_content  # type: ignore[union-attr]
    return answer.structured_content


async def bill_of(api: Api, account: Account) -> Any:
    """A numbered bill of the account's."""
    bill_id = uuid7()
    lines = [
        {"kind": "plan", "text": "Team", "amount_paise": 100_000},
        {
            "kind": "meter",
            "meter": "output_tokens",
            "quantity": 3_500_000,
            "allowance": 3_000_000,
            "excess": 500_000,
            "rate_paise": 20_000,
            "unrounded_numerator": 0,
            "whole_paise": 10_000,
            "earlier_paise": 0,
            "amount_paise": 10_000,
        },
    ]
    tax = [{"component": "igst", "rate_bp": 1800, "tax_paise": 19_800}]
    await api.books.fetch(
        "INSERT INTO bills (tenant_id, id, kind, state, number, period_id, seq, starts_ms, ends_ms, plan_code,"
        " plan_version, lines, taken, taxable_paise, supply, tax, total_paise, customer, supplier, issued_ms, due_ms,"
        " created_ms)"
        " VALUES ($1, $2, 'overage', 'open', $3, '2026-11', 1, 0, 1, 'team', 1, $4, '{}', 110000, '{}', $5, 129800,"
        """ '{"name": "Payer"}', '{"name": "Operator"}', 1, 2, 1)""",
        account.tenant_id,
        bill_id,
        f"NK/{bill_id.hex[-8:]}",
        json.dumps(lines),
        json.dumps(tax),
    )
    return bill_id


@pytest.mark.parametrize("mode", MODES)
async def test_a_key_sees_the_tools_of_its_permissions(api: Api, mode: str) -> None:
    reader = await api.books.account(scopes=[Scope.CHAT, Scope.USAGE_READ])
    viewer = await api.books.account(scopes=[Scope.USAGE_READ, Scope.TENANT_READ])
    chatter = await api.books.account(scopes=[Scope.CHAT])
    admin = await api.tenant_admin()
    allowed: tuple[tuple[Account, set[str]], ...] = (
        (admin, OWN | OF_THE_ACCOUNT),
        (viewer, OWN | USAGE),
        (reader, OWN),
        (chatter, set()),
    )
    for account, names in allowed:
        async with client_of(api, account, mode) as client:
            tools = (await client.list_tools()).tools
            assert {tool.name for tool in tools} == names
            assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in tools)
    async with client_of(api, reader, mode) as client:
        for name in (*OF_THE_ACCOUNT, "drop_tables"):
            with pytest.raises(MCPError, match="no such tool"):
                await client.call_tool(name, {})


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
async def test_an_admin_asks_its_books(api: Api, mode: str) -> None:
    admin = await api.tenant_admin()
    request_id, bill_id = await settled(api, admin), await bill_of(api, admin)
    async with client_of(api, admin, mode) as client:
        assert (await call(client, "my_usage"))["totals"]["requests"] == 0, "the rollup has nothing of the row"
        assert (await call(client, "my_limits"))["windows"] == []
        assert (await call(client, "my_request", request_id=str(request_id)))["output_tokens"] == 1000
        assert (await call(client, "explain_request", request_id=str(request_id)))["changes"] == []
        day = datetime.now(UTC).date().isoformat()
        assert (await call(client, "usage_report", group_by=["user", "day"], order="tokens", last=day))["rows"] == []
        by_tag = (await call(client, "usage_report", group_by=["tag:feature"]))["rows"]
        assert sum(row["requests"] for row in by_tag) == 0
        (found,) = (await call(client, "requests", user_id=str(admin.user_id), limit=1))["items"]
        assert found["id"] == str(request_id)
        (bill,) = (await call(client, "bills"))["items"]
        assert bill["id"] == str(bill_id)
        explained = await call(client, "explain_bill", bill_id=str(bill_id))
    assert explained["sentences"][1:] == [
        "Team: ₹1,000.00.",
        METER,
        "Taxable value: ₹1,100.00.",
        "IGST at 18 %: ₹198.00.",
        "Total: ₹1,298.00.",
        "Due: ₹1,298.00 by 1970-01-01T00:00:00.002000Z.",
    ]
    assert "Payer" not in json.dumps(explained)


@pytest.mark.slow
async def test_nothing_of_another_tenant_is_reached(api: Api) -> None:
    admin, other = await api.tenant_admin(), await api.tenant_admin()
    request_id, bill_id = await settled(api, other), await bill_of(api, other)
    asked: dict[str, tuple[str, Any]] = {
        "my_request": ("request_id", request_id),
        "explain_request": ("request_id", request_id),
        "explain_bill": ("bill_id", bill_id),
        "requests": ("tenant_id", other.tenant_id),
        "bills": ("tenant_id", other.tenant_id),
        "usage_report": ("user_id", other.user_id),
    }
    async with client_of(api, admin) as client:
        for tool, (name, theirs) in asked.items():
            foreign = await client.call_tool(tool, {name: str(theirs)})
            unknown = await client.call_tool(tool, {name: str(uuid7())})
            assert foreign.is_error, tool
            assert foreign.content == unknown.content, tool
            assert foreign.content[0].text.startswith("not_found"), tool  # type: ignore[union-attr]
        assert (await call(client, "requests"))["items"] == []
        assert (await call(client, "bills"))["items"] == []


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("my_usage", {"first": "yesterday"}),
        ("my_usage", {"unknown": 1}),
        ("my_usage", {"first": "2026-11-02", "last": "2026-11-01"}),
        ("my_request", {}),
        ("my_request", {"request_id": "'; DROP TABLE bills"}),
        ("requests", {"limit": 101}),
        ("requests", {"limit": "20"}),
        ("requests", {"model": "a\x00b"}),
        ("usage_report", {"group_by": ["secrets"]}),
        ("usage_report", {"group_by": ["tag:Feature"]}),
        ("usage_report", {"order": "hash"}),
        ("explain_bill", {"bill_id": 7}),
    ],
)
async def test_wrong_arguments_are_an_answer(api: Api, tool: str, arguments: dict[str, Any]) -> None:
    async with client_of(api, await api.tenant_admin()) as client:
        answer = await client.call_tool(tool, arguments)
        assert answer.is_error
        assert answer.content[0].text.startswith("invalid_request"), answer.content  # type: ignore[union-attr]


@pytest.mark.slow
async def test_a_call_is_authenticated_and_rated_as_any_other(api: Api) -> None:
    admin = await api.tenant_admin()
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accepts = {"accept": "application/json, text/event-stream"}

    async def post(**changed: str) -> httpx2.Response:
        return await api.http.post("/mcp", json=message, headers={**accepts, **changed})

    for headers in ({}, {"authorization": "Bearer nk_live_wrong"}, {"authorization": "Bearer eyJ.eyJ.x"}):
        answer = await post(**headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    answer = await post(**admin.headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.json()["result"]["tools"]) == len(OWN | OF_THE_ACCOUNT)
    for method in ("GET", "DELETE", "PUT"):
        assert (await api.http.request(method, "/mcp", headers=admin.headers)).status_code == 405
    too_long = await api.http.post("/mcp", content=b" " * 2_000_000, headers={**accepts, **admin.headers, **JSON})
    assert too_long.status_code == 413
    no_json = await api.http.post("/mcp", content=b"{}", headers={**accepts, **admin.headers})
    assert no_json.status_code == 415
    for body in (b"{}", b"[]", b"nonsense", b"\xff"):
        answer = await api.http.post("/mcp", content=body, headers={**accepts, **admin.headers, **JSON})
        assert answer.status_code == 400, body

    await api.call(admin, "DELETE", f"/keys/{admin.key_id}", expect=204)
    assert (await post(**admin.headers)).status_code == 401, "a revoked key ends with its next message"

    other = await api.tenant_admin()
    api.app.state.runtime.rate.__init__(10)
    statuses = [(await post(**other.headers)).status_code for _ in range(12)]
    assert statuses == [200] * 10 + [429] * 2


@asynccontextmanager
async def serving(api: Api) -> AsyncIterator[str]:
    """The application on a port of loopback; its URL."""
    server = uvicorn.Server(uvicorn.Config(api.app, port=0, log_level="error", lifespan="off"))
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        await task


def naka_mcp(url: str, key: str) -> StdioServerParameters:
    """The command, with a key and an address."""
    environment = {**os.environ, "NAKA_URL": url, "NAKA_KEY": key}
    return StdioServerParameters(command=sys.executable, args=["-m", "api.cli", "mcp"], env=environment, cwd=str(ROOT))


@pytest.mark.slow
async def test_over_stdio(api: Api) -> None:
    admin = await api.tenant_admin()
    async with serving(api) as url, Client(stdio_client(naka_mcp(url, admin.key))) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == OWN | OF_THE_ACCOUNT
        assert (await call(client, "my_usage"))["totals"]["requests"] == 0
        refused = await client.call_tool("my_usage", {"first": "yesterday"})
        assert refused.is_error
        await api.call(admin, "DELETE", f"/keys/{admin.key_id}", expect=204)
        with pytest.raises(MCPError):
            await client.call_tool("my_usage", {})


@pytest.mark.slow
async def test_without_a_good_key_or_a_server_the_command_says_so(api: Api) -> None:
    async with serving(api) as url:
        for where, key, why in (
            (url, "", "NAKA_KEY"),
            (url, "nk_live_wrong", "NAKA_KEY"),
            ("http://127.0.0.1:9", "k", "URL"),
        ):
            command = naka_mcp(where, key)
            process = await asyncio.create_subprocess_exec(
                command.command,
                *command.args,
                cwd=ROOT,
                env=command.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, said = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode in (1, 2), said
            assert out == b"", "the output is the protocol"
            assert said.startswith(b"naka: "), said
            assert said.count(b"\n") == 1, said
            assert why.encode() in said
