"""Each form of a chat's answer: its text whole, its usage as it is stored, and every refusal in its own shape."""

import json

import httpx2
import pytest

from core.tenancy.principal import Scope
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.harness import TOKEN_FIELDS, Books, scripted
from tests.journeys.forms import CHAT, JSON, PLAIN, SOCKET, UI, Form

TEXTS = ["  नाका", " 😀\n\n", '\\r "x" ', "\ttail "]
FRONTEND = "http://localhost:3000"
HTTP_FORMS = (CHAT, PLAIN, JSON, UI)
CACHED = {"cache_read_input_tokens": 3, "cache_creation_5m": 5, "cache_creation_1h": 7}
of_chat = pytest.mark.parametrize("form", [*HTTP_FORMS, SOCKET], ids=lambda form: form.name)
over_http = pytest.mark.parametrize("form", HTTP_FORMS, ids=lambda form: form.name)


@of_chat
async def test_the_text_arrives_whole_and_the_prompt_is_the_same(
    form: Form, http: httpx2.AsyncClient, books: Books
) -> None:
    account = await books.account()
    message = scripted(pieces=TEXTS)
    answer = await form.ask(http, account, message)
    plain = await CHAT.ask(http, account, message)

    assert (answer.done, answer.text) == (True, "".join(TEXTS))
    assert plain.raw.endswith(b"\n\nevent: done\ndata: \n\n")
    ours, theirs = await books.settled(account, 2)
    assert [ours[name] for name in TOKEN_FIELDS] == [theirs[name] for name in TOKEN_FIELDS]


@pytest.mark.parametrize("form", [CHAT, JSON, UI], ids=lambda form: form.name)
@pytest.mark.parametrize("refusal", [None, "empty", "partial"])
async def test_usage_is_told_as_it_is_stored(
    form: Form, refusal: str | None, http: httpx2.AsyncClient, books: Books
) -> None:
    account = await books.account()
    message = scripted(pieces=TEXTS, **CACHED, **({} if refusal is None else {"refusal": refusal}))
    headers = {**account.headers, "accept": form.accept}
    answer = await http.post(form.path, params={"usage": "1"}, json=form.body(message), headers=headers)
    end = form.read(answer, answer.content).end
    end = end.get("messageMetadata", end)

    (row,) = await books.settled(account, 1)
    assert end == {
        "request_id": str(row["id"]),
        "model": row["model"],
        "stop_reason": "end_turn" if refusal is None else "refusal",
        "usage": {**{name: row[name] for name in TOKEN_FIELDS}, "source": "final"},
    }


@over_http
async def test_without_the_wish_nothing_is_told(form: Form, http: httpx2.AsyncClient, books: Books) -> None:
    answer = await form.ask(http, await books.account())
    assert form is JSON or b"usage" not in answer.raw
    headers = {**(await books.account()).headers, "accept": form.accept}
    refused = await http.post(form.path, params={"usage": "all"}, json=form.body("hello"), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


@of_chat
async def test_a_limit_and_a_wrong_body_are_refused_with_a_problem(
    form: Form, http: httpx2.AsyncClient, books: Books
) -> None:
    used_up = await books.account(limits=LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, 1),)))
    modest = await books.account(models=["claude-haiku-4-5"])
    assert (await form.ask(http, used_up)).done
    answer = await form.ask(http, used_up)
    form.assert_told(answer, 429, "limit_reached", started=False)
    assert answer.retry_after_s > 0
    form.assert_told(await form.ask(http, modest), 403, "forbidden", started=False)
    form.assert_told(await form.ask(http, modest, "\n"), 422, "invalid_request", started=False)
    form.assert_told(await form.ask(http, used_up, model="claude-moon"), 422, "unknown_model", started=False)
    form.assert_told(await form.ask(http, modest, tags={"Bad Key": "x"}), 422, "invalid_request", started=False)
    assert not await books.requests(modest)


@over_http
async def test_what_is_no_request_is_refused_with_a_problem(form: Form, http: httpx2.AsyncClient, books: Books) -> None:
    account = await books.account()
    headers = {**account.headers, "accept": form.accept}
    body = json.dumps(form.body("hello"))
    wrong = [
        (await http.post(form.path, content=body, headers=headers), 415, "unsupported_media_type"),
        (await http.post(form.path, json=form.body("x" * 1_000_001), headers=headers), 413, "body_too_large"),
        (await http.post(form.path, json=form.body("hello"), headers={"accept": form.accept}), 401, "unauthenticated"),
        (await http.get(form.path, headers=headers), 405, "method_not_allowed"),
    ]
    for answer, status, code in wrong:
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
    head = await http.head(form.path, headers=headers)
    assert (head.status_code, head.headers["allow"], head.content) == (405, "POST", b"")


@over_http
async def test_a_page_of_the_frontend_may_ask(form: Form, http: httpx2.AsyncClient, books: Books) -> None:
    asks = {
        "origin": FRONTEND,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, naka-tags",
    }
    assert (await http.options(form.path, headers=asks)).status_code == 200
    assert (await http.options(form.path, headers={**asks, "origin": "http://evil.example"})).status_code == 400
    headers = {**(await books.account()).headers, "accept": form.accept, "origin": FRONTEND}
    answer = await http.post(form.path, json=form.body("hello"), headers=headers)
    assert answer.headers["access-control-allow-origin"] == FRONTEND
    assert answer.headers["cache-control"] in ("no-cache, no-transform", "no-store")


async def test_every_form_names_the_user_it_is_for(http: httpx2.AsyncClient, books: Books) -> None:
    backend = await books.account(scopes=[Scope.CHAT_AS_USER])
    for form in (CHAT, PLAIN, JSON, UI, SOCKET):
        assert (await form.ask(http, backend, user=f"of {form.name}")).done
        form.assert_told(await form.ask(http, backend), 422, "user_required", started=False)
    rows = await books.fetch(
        "SELECT u.external_id FROM usage_requests r JOIN users u ON u.id = r.user_id WHERE r.tenant_id = $1",
        backend.tenant_id,
    )
    assert sorted(row["external_id"] for row in rows) == ["of chat", "of json", "of plain", "of socket", "of ui"]
