"""Errors of the server with their HTTP status, and their answers: JSON with one line."""

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from attunet.errors import DiskError, InputError, RunError, TooLarge, one_line

TOO_LARGE, UNPROCESSABLE, UNAVAILABLE = 413, 422, 503


class Refusal(Exception):
    """A refused request: HTTP status, one line for the caller, and for 503 the seconds until another try."""

    def __init__(self, status: int, text: str, *, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.retry_after = status, text, retry_after


def refusal_of(error: Exception) -> Refusal:
    """The refusal for an error: 413 for large input, 422 for other, 503 without memory or disk, 500 for the rest."""
    match error:
        case Refusal():
            return error
        case TooLarge():
            return Refusal(TOO_LARGE, one_line(error, None))
        case InputError():
            return Refusal(UNPROCESSABLE, one_line(error, None))
        case MemoryError():
            return Refusal(UNAVAILABLE, "the server has too little memory for this scan at the moment", retry_after=30)
        case OSError():
            reason = error.strerror or "system error"
            return Refusal(UNAVAILABLE, f"the server cannot keep the scan: {reason}", retry_after=30)
        case DiskError():  # its text names a file of the server
            return Refusal(UNAVAILABLE, "the server cannot keep the scan: its disk is full or fails", retry_after=30)
        case RunError():
            return Refusal(500, one_line(error, None))
        case RequestValidationError():
            return Refusal(UNPROCESSABLE, "; ".join(_sentence(one) for one in error.errors()[:3]))
        case HTTPException():
            return Refusal(error.status_code, str(error.detail))
    return Refusal(500, "internal error")


def reply(error: Exception) -> JSONResponse:
    """The answer to an error, with the headers that belong to its status."""
    refusal = refusal_of(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    text = refusal.text.encode("utf-8", "backslashreplace").decode()  # half of a surrogate pair, quoted from JSON
    return JSONResponse({"error": text}, refusal.status, headers)


def _sentence(error: dict[str, object]) -> str:
    place = error["loc"]
    return f"{'.'.join(map(str, place)) if isinstance(place, tuple) else place}: {error['msg']}"
