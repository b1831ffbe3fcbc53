"""Errors of the server, with their HTTP status."""

from attunet.errors import InputError, RunError, TooLarge

TOO_LARGE, UNPROCESSABLE, UNAVAILABLE = 413, 422, 503


class Refusal(Exception):
    """A refused request: the HTTP status and one line for the caller.

    Args:
        retry_after: seconds until another try makes sense, for status 503.
    """

    def __init__(self, status: int, text: str, *, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.retry_after = status, text, retry_after


def refusal_of(error: Exception) -> Refusal:
    """The refusal for an error: 413 for too large an input, 422 for other input, 503 for missing memory or disk space,
    500 for the rest.
    """
    match error:
        case Refusal():
            return error
        case TooLarge():
            return Refusal(TOO_LARGE, one_line(error))
        case InputError():
            return Refusal(UNPROCESSABLE, one_line(error))
        case MemoryError():
            return Refusal(UNAVAILABLE, "the server has too little memory for this scan at the moment", retry_after=30)
        case OSError():
            return Refusal(
                UNAVAILABLE, f"the server cannot keep the scan: {error.strerror or 'system error'}", retry_after=30
            )
        case RunError():
            return Refusal(500, one_line(error))
    return Refusal(500, "internal error")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
