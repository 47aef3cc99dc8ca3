"""The tags of a metered request: of its `Naka-Tags` header, of its body, and of its token or JWT."""

from starlette.types import Scope

from api.gateway.codec import Call
from api.http.body import InvalidBody
from core.tenancy.principal import Principal
from metering.tags.tags import InvalidTags, Tags, merged, parse_header

_HEADER = b"naka-tags"


def tags_of(scope: Scope, principal: Principal, call: Call) -> Tags:
    """The tags of a request. Those of the principal win; header and body may not differ. Raises InvalidBody."""
    headers = [value for name, value in scope["headers"] if name == _HEADER]
    if not headers and not call.tags:
        return principal.tags
    try:
        sent = [pair for header in headers if header.strip() for pair in parse_header(header)]
        return merged(principal.tags, [*call.tags, *sent])
    except InvalidTags as error:
        raise InvalidBody(str(error)) from error
