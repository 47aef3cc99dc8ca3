"""FastAPI: your page gets a token for its signed-in user, and asks Naka itself."""

import os

import httpx2
from fastapi import APIRouter, Request, Response

router = APIRouter()
naka = httpx2.AsyncClient(base_url=os.environ["NAKA_URL"], timeout=10)


@router.post("/chat-token")
async def chat_token(request: Request) -> Response:
    """`request.state.user` is the name of whoever is signed in: set it where your app checks its session."""
    asked = {"user": request.state.user, "ttl_s": 600, "origins": [os.environ["APP_ORIGIN"]]}
    headers = {"authorization": f"Bearer {os.environ['NAKA_KEY']}"}  # with the scope chat:as-user
    made = await naka.post("/v1/tokens", json=asked, headers=headers)
    return Response(made.content, made.status_code, {"cache-control": "no-store"}, made.headers["content-type"])
