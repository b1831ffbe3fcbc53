"""No command connects to, or looks up, another machine, and none writes to the home folder:
watched below Python, in the C library.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="needs Linux and a C compiler")

WATCH = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void note(const char *what, const char *where) {
  FILE *file = fopen(getenv("WATCH_LOG"), "a");
  if (file) { fprintf(file, "%s %s\n", what, where); fclose(file); }
}

static int is_local(const struct sockaddr *address, char *text) {
  if (address->sa_family == AF_INET) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    inet_ntop(AF_INET, &v4->sin_addr, text, 64);
    return strncmp(text, "127.", 4) == 0 || strcmp(text, "0.0.0.0") == 0;
  }
  if (address->sa_family == AF_INET6) {
    inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, text, 64);
    return strcmp(text, "::1") == 0 || strcmp(text, "::") == 0 || strncmp(text, "::ffff:127.", 11) == 0;
  }
  return 1;
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
  char text[64];
  if (!is_local(address, text)) { note("connect", text); errno = ENETUNREACH; return -1; }
  return ((int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect"))(socket, address, length);
}

ssize_t sendto(int socket, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length) {
  char text[64];
  if (address && !is_local(address, text)) { note("sendto", text); errno = ENETUNREACH; return -1; }
  return ((ssize_t (*)(int, const void *, size_t, int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "sendto"))(
      socket, data, size, flags, address, length);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
  char own[256] = "";
  gethostname(own, sizeof own - 1);
  unsigned char numbers[16];
  if (node && *node && strcmp(node, "localhost") && strcmp(node, own) && inet_pton(AF_INET, node, numbers) != 1
      && inet_pton(AF_INET6, node, numbers) != 1) { note("lookup", node); return EAI_FAIL; }
  typedef int (*lookup)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  return ((lookup)dlsym(RTLD_NEXT, "getaddrinfo"))(
      node, service, hints, result);
}
"""


@pytest.fixture(scope="module")
def watcher(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("watch")
    (folder / "watch.c").write_text("#include <unistd.h>\n" + WATCH)
    command = [COMPILER, "-shared", "-fPIC", "-O1", "-w", folder / "watch.c", "-o", folder / "watch.so", "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "watch.so"


class Watched:
    """Runs commands under the watcher, in a home of their own; `seen` is what they tried."""

    def __init__(self, watcher: Path, folder: Path) -> None:
        self.home, self.log = folder / "home", folder / "log"
        self.home.mkdir()
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "OMP_NUM_THREADS")}
        self.environment = {
            **kept,
            "HOME": str(self.home),
            "TMPDIR": str(folder),
            "LD_PRELOAD": str(watcher),
            "WATCH_LOG": str(self.log),
        }

    def run(self, *command: object) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    @contextmanager
    def server(self, model: Path, temp: Path) -> Iterator[str]:
        """The address of `attunet serve`."""
        command = [
            sys.executable,
            "-m",
            "attunet.launch.cli",
            "serve",
            model,
            "--port",
            0,
            "--temp",
            temp,
            "--threads",
            1,
        ]
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment
        )
        try:
            assert process.stdout is not None
            yield next(found[1] for line in process.stdout if (found := re.search(r"serving at ([^\s\"]+)", line)))
        finally:
            process.terminate()
            process.communicate(timeout=60)

    @property
    def seen(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def watched(watcher, tmp_path) -> Watched:
    return Watched(watcher, tmp_path)


def test_the_watcher_sees_what_leaves(watched):
    script = """
import socket
calls = (
    lambda: socket.getaddrinfo("somewhere.invalid", 80),
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
)
for call in calls:
    try:
        call()
    except OSError:
        pass
listening = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listening.getsockname()).close()
"""
    watched.run("-c", script)
    assert watched.seen == ["lookup somewhere.invalid", "connect 192.0.2.1"]


@pytest.mark.slow
def test_no_command_reports_anything_or_writes_to_the_home_folder(watched, tmp_path):
    for package in ("fastapi", "httpx", "jinja2"):
        pytest.importorskip(package)

    def attunet(*arguments: object) -> None:
        watched.run("-m", "attunet.launch.cli", *arguments)

    quick = [
        word for setting in ("model.base_width=4", "model.depth=2", "optim.epochs=1") for word in ("--set", setting)
    ]
    attunet("phantom", tmp_path / "scans", "--cases", 3)
    attunet("prepare", tmp_path / "scans", tmp_path / "store", "--folds", 3, "--config", "demo")
    attunet("train", tmp_path / "store", tmp_path / "run", "--fold", 0, "--config", "demo", *quick)
    attunet("export", tmp_path / "run", tmp_path / "model.onnx")
    scan = sorted((tmp_path / "scans").glob("*src*"))[0]
    attunet("predict", tmp_path / "model.onnx", scan, tmp_path / "labels.nii.gz")
    attunet(
        "evaluate",
        tmp_path / "store",
        tmp_path / "model.onnx",
        "--fold",
        0,
        "--out",
        tmp_path / "evaluation",
        "--latency-seconds",
        0.1,
    )
    attunet("report", tmp_path / "evaluation", "-o", tmp_path / "report.html")
    with watched.server(tmp_path / "model.onnx", tmp_path / "uploads") as address:
        attunet("predict", "--server", address, scan, tmp_path / "served.nii.gz")
    assert (tmp_path / "served.nii.gz").read_bytes() == (tmp_path / "labels.nii.gz").read_bytes()
    attunet("inspect", tmp_path / "run", "--lineage")
    attunet("verify", tmp_path / "model.onnx")
    pytest.importorskip("openvino")
    attunet("predict", tmp_path / "model.onnx", scan, tmp_path / "labels-openvino.nii.gz", "--provider", "openvino")
    assert watched.seen == []
    left = [path.relative_to(watched.home) for path in watched.home.rglob("*") if path.is_file()]
    assert [path for path in left if "matplotlib" not in str(path)] == []  # matplotlib keeps its list of fonts


@pytest.mark.slow
def test_the_server_reports_nothing(watched, tmp_path):
    pytest.importorskip("fastapi")
    script = """
import asyncio, sys, threading, time, urllib.request
from attunet.export.serve.server import _listen, _Server
from attunet.export.serve.scans.private_folder import PrivateFolder
from attunet.export.serve.service import Service
from attunet.export.serve.settings import Settings
settings = Settings(port=0)
with PrivateFolder() as folder:
    listening = _listen(settings)
    server = _Server(Service(settings, {}, folder))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    url = "http://127.0.0.1:%d" % listening.getsockname()[1]
    for path in ("/", "/docs", "/metrics", "/v1/models", "/openapi.json"):
        urllib.request.urlopen(url + path, timeout=20).read()
    server.should_exit = True
    thread.join()
"""
    watched.run("-c", script)
    assert watched.seen == []
    assert list(watched.home.iterdir()) == []
