"""FastAPI: your own JWT for the signed-in user. Naka reads your public key at /.well-known/jwks.json."""

import json
import os
import time
from pathlib import Path

from fastapi import APIRouter, Request
from joserfc import jwt
from joserfc.jwk import ECKey

router = APIRouter()
key = ECKey.import_key(json.loads(Path(os.environ["JWT_KEY_FILE"]).read_text()))  # a private JWK of P-256, with a kid


@router.get("/.well-known/jwks.json")
async def jwks() -> dict[str, list[dict[str, object]]]:
    """The public half of the key."""
    return {"keys": [dict(key.as_dict(private=False))]}


@router.post("/chat-token")
async def chat_token(request: Request) -> dict[str, str]:
    """`request.state.user` is the name of whoever is signed in: set it where your app checks its session."""
    now = int(time.time())
    claims = {"iss": os.environ["APP_ORIGIN"], "aud": "naka", "sub": request.state.user, "iat": now, "exp": now + 600}
    return {"token": jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key)}
