"""FastAPI: your backend names its signed-in user and passes the answer on, as it arrives."""

import os

import httpx2
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

PASSED = ("content-type", "cache-control", "x-accel-buffering", "retry-after", "x-request-id")
router = APIRouter()
key = {"authorization": f"Bearer {os.environ['NAKA_KEY']}"}  # with the scope chat:as-user
naka = httpx2.AsyncClient(base_url=os.environ["NAKA_URL"], headers=key, timeout=60)


@router.post("/chat")
async def chat(request: Request) -> StreamingResponse:
    """`request.state.user` is the name of whoever is signed in: set it where your app checks its session."""
    headers = {"naka-user": request.state.user.encode(), "content-type": "application/json"}
    asked = naka.build_request("POST", "/chat", content=await request.body(), headers=headers)
    answer = await naka.send(asked, stream=True)
    kept = {name: answer.headers[name] for name in PASSED if name in answer.headers}
    return StreamingResponse(answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose))
