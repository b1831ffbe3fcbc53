"""Compressed pixels, decoded in a process of its own: a file that brings a C++ library down does not end the program
that reads it.

`python -m attunet.io.dicom.decode` is that process. It takes requests from its standard input and writes the pixels to
its output, one after the other, until the input ends: a JSON line, then as many bytes as it says.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

TIMEOUT_S = 30.0  # of one file, and a second more for every `BYTES_PER_S` of its pixels
BYTES_PER_S = 2e6
MEMORY, MEMORY_RATIO = 2**29, 16  # bytes that decoding may take, and for each byte of pixels; codecs compute in int32


@dataclass(frozen=True)
class Request:
    """The pixels that are wanted, by the names of pydicom's decoders."""

    syntax: str
    rows: int
    columns: int
    number_of_frames: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric_interpretation: str

    @property
    def num_bytes(self) -> int:
        """Of all pixels."""
        return self.number_of_frames * self.rows * self.columns * self.bits_allocated // 8


class DecodingError(Exception):
    """The pixels cannot be decoded; the text says why, without anything from the file."""


class Decoder:
    """The process, started when it is first needed and again after it died. One request at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # a forked child has the parent's pipes, and must not use them

    def decode(self, request: Request, pixel_data: bytes) -> np.ndarray:
        """The stored values of grey frames, from the content of PixelData. Raises DecodingError where the library
        refuses them, dies of them, or needs longer or more memory than they may.
        """
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            late = threading.Timer(TIMEOUT_S + request.num_bytes / BYTES_PER_S, process.kill)
            late.start()
            reply = None
            try:
                _write(process.stdin, asdict(request), pixel_data)
                reply, content = _read(process.stdout)
            except (OSError, ValueError):
                raise DecodingError("the decoder died of it") from None
            finally:
                late.cancel()
                if reply is None:  # after Ctrl-C too: the reply would be taken for that to the next request
                    process.kill()
                    process.wait()
        if reply["error"]:
            raise DecodingError(reply["error"])
        return np.frombuffer(content, reply["dtype"]).reshape(reply["shape"])

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            # -P: the working directory may be a stranger's, with a numpy.py in it
            command = [sys.executable, "-P", "-m", "attunet.io.dicom.decode"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._owner = os.getpid()
        return self._process


DECODER = Decoder()


def _write(stream: IO[bytes], head: Mapping[str, object], content: bytes) -> None:
    stream.write(json.dumps({**head, "size": len(content)}).encode() + b"\n")
    stream.write(content)
    stream.flush()


def _read(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """A head without its size, and the bytes after it. Raises ValueError at the end of the stream."""
    head = json.loads(stream.readline())
    size = head.pop("size")
    content = stream.read(size)
    if len(content) < size:
        raise ValueError("the stream has ended")
    return head, content


def pixels_of(request: Request, pixel_data: bytes) -> np.ndarray:
    """The stored values, decoded in this process. Raises whatever the library does."""
    from pydicom.pixels import get_decoder

    options = asdict(request) | {"samples_per_pixel": 1, "pixel_keyword": "PixelData"}
    pixels, _ = get_decoder(options.pop("syntax")).as_array(pixel_data, raw=True, **options)
    return np.ascontiguousarray(pixels)


def _limit_memory(more: int) -> None:
    """Let this process have so many bytes more than it has; only Linux counts what it has."""
    with suppress(OSError):
        import resource  # which Windows lacks

        used = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
        if used is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            wanted = 1024 * int(used[1]) + more
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def main() -> None:
    import pydicom.pixels  # noqa: F401 (its memory is not the pixels')

    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries write lines of their own
    while True:
        try:
            head, pixel_data = _read(requests)
        except ValueError:
            return
        try:
            request = Request(**head)
            _limit_memory(MEMORY + MEMORY_RATIO * request.num_bytes)
            pixels = pixels_of(request, pixel_data)
            _write(replies, {"error": "", "dtype": pixels.dtype.str, "shape": pixels.shape}, pixels.tobytes())
        except Exception as error:  # whatever a library raises; its text may quote the file
            _write(replies, {"error": type(error).__name__}, b"")


if __name__ == "__main__":
    main()
