"""No command connects to, or looks up, another machine, and none writes to the home folder:
watched below Python, in the C library.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attunet.export.web.write_page import PAGE

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
#include <unistd.h>

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

static int leaves(const struct msghdr *message, const char *what) {
  char text[64];
  if (!message->msg_name || is_local((const struct sockaddr *)message->msg_name, text)) return 0;
  note(what, text);
  errno = ENETUNREACH;
  return 1;
}

ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
  if (leaves(message, "sendmsg")) return -1;
  return ((ssize_t (*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg"))(socket, message, flags);
}

int sendmmsg(int socket, struct mmsghdr *messages, unsigned int count, int flags) {
  for (unsigned int i = 0; i < count; i++) if (leaves(&messages[i].msg_hdr, "sendmmsg")) return -1;
  return ((int (*)(int, struct mmsghdr *, unsigned int, int))dlsym(RTLD_NEXT, "sendmmsg"))(
      socket, messages, count, flags);
}

static int is_here(const char *node) {
  char own[256] = "";
  gethostname(own, sizeof own - 1);
  unsigned char numbers[16];
  return !node || !*node || !strcmp(node, "localhost") || !strcmp(node, own) || inet_pton(AF_INET, node, numbers) == 1
      || inet_pton(AF_INET6, node, numbers) == 1;
}

struct hostent *gethostbyname(const char *node) {
  if (!is_here(node)) { note("lookup", node); h_errno = HOST_NOT_FOUND; return NULL; }
  return ((struct hostent *(*)(const char *))dlsym(RTLD_NEXT, "gethostbyname"))(node);
}

int gethostbyname_r(const char *node, struct hostent *entry, char *buffer, size_t size, struct hostent **result,
                    int *error) {
  if (!is_here(node)) { note("lookup", node); *result = NULL; *error = HOST_NOT_FOUND; return ENOENT; }
  typedef int (*lookup)(const char *, struct hostent *, char *, size_t, struct hostent **, int *);
  return ((lookup)dlsym(RTLD_NEXT, "gethostbyname_r"))(node, entry, buffer, size, result, error);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
  if (!is_here(node)) { note("lookup", node); return EAI_FAIL; }
  typedef int (*lookup)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  return ((lookup)dlsym(RTLD_NEXT, "getaddrinfo"))(
      node, service, hints, result);
}
"""


@pytest.fixture(scope="module")
def watcher(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("watch")
    (folder / "watch.c").write_text(WATCH)
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

    def attunet(self, *commands: list[object]) -> None:
        """Calls commands one after the other in one process."""
        self.run("-c", SEVERAL, json.dumps([[str(word) for word in command] for command in commands]))

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
import ctypes, socket
calls = (
    lambda: socket.getaddrinfo("somewhere.invalid", 80),
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
    lambda: socket.gethostbyname_ex("elsewhere.invalid"),
    lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"a", ("192.0.2.2", 53)),
    lambda: socket.socket(type=socket.SOCK_DGRAM).sendmsg([b"a"], [], 0, ("192.0.2.3", 53)),
    lambda: ctypes.CDLL(None).gethostbyname(b"nowhere.invalid"),
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
    assert watched.seen == [
        "lookup somewhere.invalid",
        "connect 192.0.2.1",
        "lookup elsewhere.invalid",
        "sendto 192.0.2.2",
        "sendmsg 192.0.2.3",
        "lookup nowhere.invalid",
    ]


QUICK = [f"--set={setting}" for setting in ("model.base_width=4", "model.depth=2", "optim.epochs=1")]
SHORTLY = ("--latency-seconds", 0.05)

SEVERAL = """
import json, sys
from attunet.launch.cli import cli
from attunet.launch.commands import demo
from attunet.launch.exit_codes import run_command
demo.LATENCY_SECONDS = 0.05
for arguments in json.loads(sys.argv[1]):
    if run_command(cli, "attunet", arguments):
        sys.exit(f"failed: {arguments}")
"""


@pytest.mark.slow
def test_no_command_reports_anything_or_writes_to_the_home_folder(watched, tmp_path):
    for package in ("fastapi", "httpx", "jinja2"):
        pytest.importorskip(package)
    demo, attunet = tmp_path / "demo", watched.attunet
    scans, store, run, model = (demo / name for name in ("source", "store", "runs/unet", "models/unet.onnx"))
    attunet(["demo", "--out", demo, "--cases", 3, *QUICK])  # phantom, prepare, train, export, evaluate, report
    scan, key, log = sorted(scans.glob("*src*"))[0], tmp_path / "key.pem", tmp_path / "log.jsonl"
    make_key(key)
    page = [["web", model, tmp_path / "page"]] if (PAGE / "index.html").is_file() else []
    attunet(
        ["predict", model, scan, tmp_path / "labels.nii.gz", "--audit", log],
        ["evaluate", store, model, "--fold", 0, "--out", tmp_path / "evaluation", *SHORTLY],
        ["report", tmp_path / "evaluation", "-o", tmp_path / "report.html"],
        ["inspect", store, "--picture", tmp_path / "store.png", "--augmented", tmp_path / "augmented.png"],
        ["inspect", run, "--lineage"],
        ["card", model, "-o", tmp_path / "card.md"],
        ["sign", model, "--key", key],
        ["verify", model, "--key", key.with_suffix(".public")],
        ["verify", "--audit", log],
        *page,
        ["crossvalidate", store, tmp_path / "cv", "--model", "unet", "--folds", "0", "--config", "demo", *QUICK],
        ["benchmark", model, store, "--out", tmp_path / "benchmark", "--provider", "cpu", *SHORTLY],
    )
    with watched.server(model, tmp_path / "uploads") as address:
        attunet(["predict", "--server", address, scan, tmp_path / "served.nii.gz"])
    assert (tmp_path / "served.nii.gz").read_bytes() == (tmp_path / "labels.nii.gz").read_bytes()
    pytest.importorskip("openvino")
    attunet(["predict", model, scan, tmp_path / "labels-openvino.nii.gz", "--provider", "openvino"])
    assert watched.seen == []
    left = [path.relative_to(watched.home) for path in watched.home.rglob("*") if path.is_file()]
    assert [path for path in left if "matplotlib" not in str(path)] == []  # matplotlib keeps its list of fonts


@pytest.mark.slow
def test_no_command_needs_a_home_folder(watched, tmp_path):
    del watched.environment["HOME"]
    watched.environment["MPLCONFIGDIR"] = str(tmp_path / "matplotlib")  # else in the home folder of the user's account
    scans, store, run, model = (tmp_path / name for name in ("scans", "store", "run", "model.onnx"))
    watched.attunet(
        ["phantom", scans, "--cases", 3],
        ["prepare", scans, store, "--folds", 3, "--config", "demo"],
        ["train", store, run, "--fold", 0, "--config", "demo", *QUICK],
        ["export", run, model],
        ["predict", model, scans, tmp_path / "labels"],
        ["inspect", store, "--picture", tmp_path / "store.png"],
    )
    assert watched.seen == []
    assert list(watched.home.iterdir()) == []


def make_key(path: Path) -> None:
    """A private elliptic-curve key, and the public one beside it."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import ec

    key, encoding = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    private = (encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*private))
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".public").write_bytes(public)


@pytest.mark.slow
def test_the_server_reports_nothing(watched, tmp_path):
    pytest.importorskip("fastapi")
    script = """
import asyncio, sys, threading, time, urllib.request
from attunet.export.serve.server import _listen, _Server
from attunet.system.private_folder import PrivateFolder
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
