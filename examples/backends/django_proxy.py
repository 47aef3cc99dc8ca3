"""Django on an ASGI server: your backend names its signed-in user and passes the answer on, as it arrives."""

import os
from contextlib import aclosing

import httpx2
from django.http import HttpRequest, StreamingHttpResponse
from django.views.decorators.http import require_POST

PASSED = ("content-type", "cache-control", "x-accel-buffering", "retry-after", "x-request-id")
key = {"authorization": f"Bearer {os.environ['NAKA_KEY']}"}  # with the scope chat:as-user
naka = httpx2.AsyncClient(base_url=os.environ["NAKA_URL"], headers=key, timeout=60)


@require_POST
async def chat(request: HttpRequest) -> StreamingHttpResponse:
    """The view of `POST /chat`, behind your `login_required`."""
    user = (await request.auser()).get_username()
    headers = {"naka-user": user.encode(), "content-type": "application/json"}
    answer = await naka.send(naka.build_request("POST", "/chat", content=request.body, headers=headers), stream=True)

    async def pieces():  # noqa: ANN202
        async with aclosing(answer):  # when the browser leaves, too
            async for piece in answer.aiter_raw():
                yield piece

    kept = {name: answer.headers[name] for name in PASSED if name in answer.headers}
    return StreamingHttpResponse(pieces(), status=answer.status_code, headers=kept)
