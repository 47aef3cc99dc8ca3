"""Django: your own JWT for the signed-in user. Naka reads your public key at /.well-known/jwks.json."""

import json
import os
import time
from pathlib import Path

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST
from joserfc import jwt
from joserfc.jwk import ECKey

key = ECKey.import_key(json.loads(Path(os.environ["JWT_KEY_FILE"]).read_text()))  # a private JWK of P-256, with a kid


def jwks(_: HttpRequest) -> JsonResponse:
    """The view of `/.well-known/jwks.json`: the public half of the key."""
    return JsonResponse({"keys": [key.as_dict(private=False)]})


@require_POST
async def chat_token(request: HttpRequest) -> JsonResponse:
    """The view of `POST /chat-token`, behind your `login_required`."""
    user, now = (await request.auser()).get_username(), int(time.time())
    claims = {"iss": os.environ["APP_ORIGIN"], "aud": "naka", "sub": user, "iat": now, "exp": now + 600}
    return JsonResponse({"token": jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key)})
