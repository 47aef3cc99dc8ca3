"""Django: your page gets a token for its signed-in user, and asks Naka itself."""

import os

import httpx2
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

naka = httpx2.AsyncClient(base_url=os.environ["NAKA_URL"], timeout=10)


@require_POST
@never_cache
async def chat_token(request: HttpRequest) -> HttpResponse:
    """The view of `POST /chat-token`, behind your `login_required`."""
    user = (await request.auser()).get_username()
    asked = {"user": user, "ttl_s": 600, "origins": [os.environ["APP_ORIGIN"]]}
    headers = {"authorization": f"Bearer {os.environ['NAKA_KEY']}"}  # with the scope chat:as-user
    made = await naka.post("/v1/tokens", json=asked, headers=headers)
    return HttpResponse(made.content, status=made.status_code, content_type=made.headers["content-type"])
