"""HTTP errors in Anthropic's shape, and which status goes with which type."""

from collections.abc import Mapping

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUSES = {error_type: status for status, error_type in ERROR_TYPES.items()}


class ApiError(Exception):
    """An HTTP error; `error_code` goes into the error's details, and `retry_after` is in seconds (None: no header)."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        error_type: str | None = None,
        error_code: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take the error type from the status unless one is given."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.error_type = error_type or ERROR_TYPES.get(status, "api_error")
        self.error_code = error_code
        self.retry_after = retry_after
        self.headers = headers or {}


def status_of(error_type: str) -> int:
    """Return the HTTP status that goes with an error type (500 for an unknown one)."""
    return _STATUSES.get(error_type, 500)
