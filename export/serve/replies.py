"""Refusals as answers: JSON with one line, as the Open Inference Protocol has it."""

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from attunet.export.serve.refusal import Refusal, refusal_of


def reply(refusal: Refusal) -> JSONResponse:
    """Status and line of a refusal, with the headers that belong to its status."""
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    text = refusal.text.encode("utf-8", "backslashreplace").decode()  # half of a surrogate pair, quoted from JSON
    return JSONResponse({"error": text}, refusal.status, headers)


def reply_to(error: Exception) -> JSONResponse:
    """The answer to an error that an address raised."""
    match error:
        case RequestValidationError():
            return reply(Refusal(422, "; ".join(_sentence(one) for one in error.errors()[:3])))
        case HTTPException():
            response = reply(Refusal(error.status_code, str(error.detail)))
            response.headers.update(error.headers or {})
            return response
    return reply(refusal_of(error))


def _sentence(error: dict[str, object]) -> str:
    place = error["loc"]
    return f"{'.'.join(map(str, place)) if isinstance(place, tuple) else place}: {error['msg']}"
