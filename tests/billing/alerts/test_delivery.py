"""Delivery of alerts: signed as Standard Webhooks, retried, logged, and never to a private address."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from standardwebhooks import Webhook, WebhookVerificationError

from billing.alerts import delivery as alert_delivery
from billing.alerts.alerts import send_test_alert
from billing.alerts.delivery import PAUSES_S, Outcome, deliver_alerts
from billing.alerts.endpoints import encode_secret, rotate_secret, set_endpoint
from billing.context import BillingContext
from billing.models import Alert, AlertDelivery, AlertEndpoint
from core.clock import follow_test_clock, stop_following
from core.tenancy.audit import Actor
from tests.billing.operator import OperatorSetup

ACTOR = Actor("test")


class Receiver:
    """A tenant's endpoint that records requests and gives set answers."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.send_header("location", "http://127.0.0.1:9/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hooks"

    def close(self) -> None:
        """Stops the server."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """On loopback."""
    made = Receiver()
    yield made
    made.close()


class Clock:
    """The test clock."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def ahead(self, by_ms: int) -> None:
        """Sets the clock ahead; followers read it every 5 ms."""
        self._file.write_text(str(by_ms))
        time.sleep(0.03)


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Clock]:
    """The test clock, starting at the present."""
    follow_test_clock(tmp_path / "clock")
    yield Clock(tmp_path / "clock")
    stop_following()


@pytest.fixture
async def tenant(setup: OperatorSetup, receiver: Receiver) -> tuple[UUID, bytes]:
    """A tenant with an endpoint, and its secret."""
    tenant_id = await setup.tenant()
    async with setup.context.database.session() as session:
        _, secret = await set_endpoint(session, ACTOR, tenant_id, receiver.url, production=False)
    assert secret is not None
    return tenant_id, secret


async def _send(context: BillingContext, tenant_id: UUID) -> UUID:
    async with context.database.session() as session:
        return (await send_test_alert(session, tenant_id)).id


async def _log(context: BillingContext, alert_id: UUID) -> tuple[str, list[int | None]]:
    """The alert's state, and the statuses of its attempts."""
    async with context.database.session() as session:
        (alert,) = await session.scalars(select(Alert).where(Alert.id == alert_id))
        query = select(AlertDelivery.status).where(AlertDelivery.alert_id == alert_id)
        return alert.state, list(await session.scalars(query.order_by(AlertDelivery.attempt)))


async def test_signed_so_that_the_library_takes_it(
    context: BillingContext, tenant: tuple[UUID, bytes], receiver: Receiver
) -> None:
    tenant_id, secret = tenant
    alert_id = await _send(context, tenant_id)
    await deliver_alerts(context)
    ((headers, body),) = receiver.got
    said = Webhook(encode_secret(secret)).verify(body, headers)
    assert (said["type"], said["data"], headers["webhook-id"]) == ("alerts.test", {}, str(alert_id))
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    with pytest.raises(WebhookVerificationError):
        Webhook(encode_secret(b"another")).verify(body, headers)
    assert await _log(context, alert_id) == ("delivered", [204])
    await deliver_alerts(context)
    assert len(receiver.got) == 1


async def test_both_secrets_sign_while_one_is_rotated(
    context: BillingContext, tenant: tuple[UUID, bytes], receiver: Receiver, clock: Clock
) -> None:
    tenant_id, old = tenant
    async with context.database.session() as session:
        new = await rotate_secret(session, ACTOR, tenant_id)
    clock.ahead(90 * 86_400_000)
    await _send(context, tenant_id)
    await deliver_alerts(context)
    ((headers, body),) = receiver.got
    for secret in (old, new):
        Webhook(encode_secret(secret)).verify(body, headers)  # signed with the real time, not the test clock's


async def test_what_is_not_a_2xx_is_tried_again_with_pauses_and_the_same_id(
    context: BillingContext, tenant: tuple[UUID, bytes], receiver: Receiver, clock: Clock
) -> None:
    alert_id = await _send(context, tenant[0])
    receiver.answers = [500, 301, 404]
    await deliver_alerts(context)
    await deliver_alerts(context)
    assert len(receiver.got) == 1, "it waits"
    passed_ms = 0
    for pause_s in PAUSES_S[:3]:
        passed_ms += pause_s * 1000 + 60
        clock.ahead(passed_ms)
        await deliver_alerts(context)
    assert await _log(context, alert_id) == ("delivered", [500, 301, 404, 204])
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {str(alert_id)}


async def test_it_is_given_up_after_a_day(
    context: BillingContext, tenant: tuple[UUID, bytes], receiver: Receiver, clock: Clock
) -> None:
    alert_id = await _send(context, tenant[0])
    receiver.answers = [503] * 20
    for number in range(12):
        clock.ahead(number * 40_000_000)
        await deliver_alerts(context)
    state, tries = await _log(context, alert_id)
    assert (state, len(tries)) == ("failed", len(PAUSES_S) + 1)


async def test_gone_switches_the_endpoint_off(
    context: BillingContext, tenant: tuple[UUID, bytes], receiver: Receiver
) -> None:
    receiver.answers = [410]
    alert_id = await _send(context, tenant[0])
    await deliver_alerts(context)
    assert await _log(context, alert_id) == ("failed", [410])
    await _send(context, tenant[0])
    await deliver_alerts(context)
    assert len(receiver.got) == 1
    async with context.database.session() as session:
        assert not (await session.get_one(AlertEndpoint, tenant[0])).enabled


async def test_nobody_there_is_logged_and_tried_again(context: BillingContext, setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant()
    async with context.database.session() as session:
        await set_endpoint(session, ACTOR, tenant_id, "http://127.0.0.1:9/", production=False)
    alert_id = await _send(context, tenant_id)
    await deliver_alerts(context)
    assert await _log(context, alert_id) == ("pending", [None])


@pytest.mark.slow
async def test_a_tar_pit_delays_its_own_tenant_alone(
    context: BillingContext,
    setup: OperatorSetup,
    tenant: tuple[UUID, bytes],
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alert_delivery, "_TIMEOUT_S", 1)
    monkeypatch.setattr(alert_delivery, "_POLL_S", 0.05)
    met = asyncio.Event()

    async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.set()
        await reader.read()  # until the client gives up
        writer.close()

    async with await asyncio.start_server(never_answers, "127.0.0.1", 0) as pit:
        stuck = await setup.tenant()
        url = f"http://127.0.0.1:{pit.sockets[0].getsockname()[1]}/"
        async with context.database.session() as session:
            await set_endpoint(session, ACTOR, stuck, url, production=False)
        waiting = [await _send(context, stuck) for _ in range(4)]
        delivering = asyncio.create_task(deliver_alerts(context))
        await asyncio.wait_for(met.wait(), 10)
        alert_id = await _send(context, tenant[0])  # after the slow endpoint, in the same run
        while not receiver.got:
            assert not delivering.done()
            await asyncio.sleep(0.01)
        tried = [len((await _log(context, one))[1]) for one in waiting]
        assert sum(tried) < len(waiting), "the others of the tar pit still wait"
        await asyncio.wait_for(delivering, 30)
    assert await _log(context, alert_id) == ("delivered", [204])
    assert [await _log(context, one) for one in waiting] == [("pending", [None])] * len(waiting)


async def test_two_that_deliver_share_and_one_that_died_is_made_up_for(
    context: BillingContext,
    tenant: tuple[UUID, bytes],
    receiver: Receiver,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = [await _send(context, tenant[0]) for _ in range(6)]
    await asyncio.gather(deliver_alerts(context), deliver_alerts(context))
    assert sorted(headers["webhook-id"] for headers, _ in receiver.got) == sorted(map(str, ids))

    sent = alert_delivery.send_alert

    async def die(*given: Any) -> Outcome:
        await sent(*given)
        raise asyncio.CancelledError

    again = await _send(context, tenant[0])
    with monkeypatch.context() as patched:
        patched.setattr(alert_delivery, "send_alert", die)
        with pytest.raises(asyncio.CancelledError):
            await deliver_alerts(context)
    clock.ahead(61_000)
    await deliver_alerts(context)
    assert [headers["webhook-id"] for headers, _ in receiver.got[6:]] == [str(again)] * 2


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "127.1", "0x7f000001", "2130706433", "127。0。0。1", "[::ffff:127.0.0.1]"],
)
async def test_in_production_what_leads_inside_is_not_called_however_it_got_there(
    context: BillingContext, tenant: tuple[UUID, bytes], receiver: Receiver, host: str
) -> None:
    async with context.database.session() as session:
        row = await session.get_one(AlertEndpoint, tenant[0])
        row.url = receiver.url.replace("127.0.0.1", host)
    live = replace(context, settings=context.settings.model_copy(update={"naka_env": "production"}))
    alert_id = await _send(context, tenant[0])
    await deliver_alerts(live)
    assert (await _log(context, alert_id), receiver.got) == (("pending", [None]), [])


async def test_a_secret_is_in_no_audit_entry(context: BillingContext, tenant: tuple[UUID, bytes]) -> None:
    async with context.database.session() as session:
        rows = "".join(await session.scalars(text("SELECT t.*::text FROM audit_log t")))
    assert "alerts.endpoint" in rows
    assert encode_secret(tenant[1]) not in rows
    assert tenant[1].hex() not in rows
