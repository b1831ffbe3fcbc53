"""Writes the body of a request, or the files of a multipart form, to disk; the size is checked while data arrive."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from attunet.export.serve.refusal import TOO_LARGE, UNAVAILABLE, Refusal
from attunet.export.serve.settings import MB

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 64  # of a form
PATIENCE_S, MIN_BYTES_PER_S = 60.0, 1000  # for a body, so that clients that send nothing do not keep others out


class SpaceLeft:
    """Bytes that all uploads, or all answers, may still take together. Threads share it."""

    def __init__(self, left: int) -> None:
        self.left, self._lock = left, threading.Lock()

    def take(self, count: int) -> None:
        """Raises Refusal where less is left."""
        with self._lock:
            if count > self.left:
                raise Refusal(UNAVAILABLE, "the server keeps as many bytes as it may; try again", retry_after=5)
            self.left -= count

    def give_back(self, count: int) -> None:
        with self._lock:
            self.left += count


@dataclass(eq=False)
class Upload:
    """Files of one request in its own folder, in the order in which they came, and their size in bytes."""

    folder: Path
    files: list[Path] = field(default_factory=list)
    size: int = 0


async def receive(request: Request, folder: Path, *, max_mb: int, space: SpaceLeft) -> Upload:
    """Write the body below `folder` as it comes in. `space` is reduced by its size; the caller gives it back when it
    removes the files.

    Raises Refusal: 400 for an empty body or a broken form, 408 for a slow one, 413 for one that is too large, 503 where
    no space is left; and ClientDisconnect where the client left.
    """
    if (announced := request.headers.get("content-length", "0")).isdecimal() and int(announced) > max_mb * MB:
        raise _too_large(max_mb)
    kind, options = parse_options_header(request.headers.get("content-type"))
    upload = Upload(folder)
    with ExitStack() as undo:  # also where the task is cancelled
        undo.callback(lambda: space.give_back(upload.size))
        if kind == b"multipart/form-data":
            await _receive_form(_bounded(request, upload, max_mb, space), options.get(b"boundary", b""), upload)
        else:
            upload.files.append(folder / "body")
            with upload.files[0].open("xb") as out:
                async for chunk in _bounded(request, upload, max_mb, space):
                    out.write(chunk)
        undo.pop_all()
    return upload


async def _bounded(request: Request, upload: Upload, max_mb: int, space: SpaceLeft) -> AsyncIterator[bytes]:
    """The body's chunks; Refusal as soon as they are too many or too slow, and where there are none."""
    chunks, began = aiter(request.stream()), asyncio.get_running_loop().time()
    while True:
        try:
            async with asyncio.timeout_at(began + PATIENCE_S + upload.size / MIN_BYTES_PER_S):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise Refusal(408, f"body: must come at {MIN_BYTES_PER_S:,} bytes/s or more") from None
        if chunk is None:
            break
        if upload.size + len(chunk) > max_mb * MB:
            raise _too_large(max_mb)
        space.take(len(chunk))
        upload.size += len(chunk)
        if chunk:
            yield chunk
    if not upload.size:
        raise Refusal(400, "body: must hold a scan, is empty")


def _too_large(max_mb: int) -> Refusal:
    return Refusal(TOO_LARGE, f"body: at most {max_mb} MB are accepted")


async def _receive_form(chunks: AsyncIterator[bytes], boundary: bytes, upload: Upload) -> None:
    """The form's files as `part-0`, `part-1`, ...; fields without a file name are ignored."""
    form = _FormFiles(upload)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, f"body: is no whole multipart form: {error}") from None
    finally:
        form.close()
    if not form.ended:
        raise Refusal(400, "body: the multipart form is cut short")
    if not upload.files:
        raise Refusal(400, "body: the multipart form must hold a file")


class _FormFiles:
    """Writes the files of a form while its parser reads them."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._field = self._value = self._disposition = b""
        self._out: BinaryIO | None = None
        self._parts = 0
        self.ended = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._open,
            "on_part_data": self._data,
            "on_part_end": self.close,
            "on_end": self._end,
        }

    def close(self) -> None:
        if self._out is not None:
            self._out.close()
        self._out = None

    def _begin(self) -> None:
        self._parts += 1
        self._field = self._value = self._disposition = b""
        if self._parts > MAX_PARTS:
            raise Refusal(400, f"body: a form of at most {MAX_PARTS} parts is accepted")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _open(self) -> None:
        if b"filename" in parse_options_header(self._disposition)[1]:
            self._upload.files.append(self._upload.folder / f"part-{len(self._upload.files)}")
            self._out = self._upload.files[-1].open("xb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._out is not None:
            self._out.write(data[start:end])

    def _end(self) -> None:
        self.ended = True
