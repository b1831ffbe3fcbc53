"""Parts of the OpenAPI description that several addresses share."""

from typing import Annotated

from fastapi import Path

ModelName = Annotated[str, Path(description="A served model's name")]
JSON = "application/json"
TEXT = {"type": "string"}
BINARY = {"type": "string", "format": "binary"}


def json_object(required: tuple[str, ...], **properties: object) -> dict[str, object]:
    """Schema of a JSON object."""
    return {"type": "object", "required": list(required), "properties": properties}


_ERROR = {JSON: {"schema": json_object(("error",), error=TEXT)}}

ERRORS: dict[int | str, dict[str, object]] = {
    status: {"description": text, "content": _ERROR}
    for status, text in (
        (400, "The request is malformed"),
        (401, "The token is missing or wrong"),
        (403, "A page of another site sent it"),
        (404, "No such model"),
        (406, "The label map cannot have the accepted format"),
        (408, "The body did not arrive in time"),
        (411, "The body's length is missing"),
        (413, "The body, or what the scan needs, is too large"),
        (415, "The body's encoding is not supported"),
        (421, "The host is not this server"),
        (422, "The scan cannot be used; one line says why"),
        (503, "The queue is full, or the server stops; Retry-After says when to come back"),
        (504, "The scan took longer than a request may last"),
    )
}
