"""A running server with the small artefact, and requests to it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from forked import ForkedProgram

from attunet.launch.cli import cli
from attunet.launch.exit_codes import run_command

SEGMENT = "/v1/models/small/segment"


@dataclass(eq=False)
class Server:
    """A process of `attunet serve`. lines: of its log."""

    process: "ForkedProgram | subprocess.Popen[str]"
    url: str
    temp: Path
    lines: list[str] = field(default_factory=list)

    def post(self, path: str = SEGMENT, content: object = b"", **more: object) -> httpx.Response:
        return httpx.post(self.url + path, content=content, timeout=120, **more)

    def get(self, path: str, **more: object) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, **more)

    def uploads(self) -> list[Path]:
        """Files and folders of requests, below the folder of each server."""
        walked = os.walk(self.temp)  # unlike rglob it allows that a folder is removed meanwhile
        paths = [Path(folder, name) for folder, below, files in walked for name in (*below, *files)]
        return [path for path in paths if path.parent != self.temp]

    def head(self, *lengths: object) -> bytes:
        """The head of a request for a segmentation, with these lengths of its body."""
        lines = [f"POST {SEGMENT} HTTP/1.1", "Host: localhost", *(f"Content-Length: {length}" for length in lengths)]
        return "\r\n".join([*lines, "", ""]).encode()

    def connect(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=20)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(30)


Serve = Callable[..., Server]


def start_server(model: Path, temp: Path, *options: object, limit: str = "") -> Server:
    """limit: of the process, an option of prlimit; without one it is forked from one that has imported all it needs."""
    words = ["attunet.launch.cli", "serve", model, "--port", 0, "--temp", temp, "--threads", 1, *options]
    process = (
        subprocess.Popen(
            ["prlimit", limit, "--", sys.executable, "-m", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},  # it may cut bytecode short
        )
        if limit
        else ForkedProgram(words)
    )
    server, ready = Server(process, "", temp), threading.Event()

    def read() -> None:
        for line in process.stdout:
            server.lines.append(line.rstrip())
            if found := re.search(r"serving at ([^\s\"]+)", line):
                server.url = found[1]
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    assert ready.wait(60), "the server did not start"
    assert server.url, "\n".join(server.lines)
    return server


@pytest.fixture
def serve(artefact: Path, tmp_path: Path) -> Iterator[Serve]:
    """`serve("--max-mb", 1)` starts a server of the test's own, which is stopped at the end."""
    servers: list[Server] = []

    def start(*options: object, model: Path = artefact, limit: str = "") -> Server:
        servers.append(start_server(model, tmp_path / "uploads", *options, limit=limit))
        return servers[-1]

    yield start
    for server in servers:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def server(artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it as it is."""
    server = start_server(artefact, tmp_path_factory.mktemp("uploads"))
    yield server
    server.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def strict_server(artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with low limits."""
    limits = ["--max-mb", "4", "--max-memory-mb", "600", "--max-megapixels", "20", "--max-unpacked-mb", "64"]
    server = start_server(artefact, tmp_path_factory.mktemp("strict"), *limits)
    yield server
    server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory, write_scan: Callable[..., Path]) -> Path:
    return write_scan(tmp_path_factory.mktemp("scans") / "scan.nii.gz", (40, 48, 5), spacing=1.5)


@pytest.fixture(scope="session")
def predicted(artefact: Path, scan: Path) -> bytes:
    """The file that `attunet predict` writes for it."""
    out = scan.with_name("labels.nii.gz")
    assert run_command(cli, "attunet", ["predict", str(artefact), str(scan), str(out)]) == 0
    return out.read_bytes()
