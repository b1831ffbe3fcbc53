"""Commands under a watcher below Python, in the C library: it sees, and stops, what would leave the machine."""

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

COMPILER = shutil.which("cc") or shutil.which("gcc")
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


SEVERAL = """
import json, sys
from attunet.launch.cli import cli
from attunet.launch.exit_codes import run_command
exec(sys.argv[1])
for arguments in json.loads(sys.argv[2]):
    if run_command(cli, "attunet", arguments):
        sys.exit(f"failed: {arguments}")
"""


class Watched:
    """Runs commands under the watcher, in a folder and with a home of their own; `seen` is what they tried."""

    def __init__(self, folder: Path) -> None:
        if COMPILER is None or sys.platform != "linux":
            pytest.skip("needs Linux and a C compiler")
        (folder / "watch.c").write_text(WATCH)
        command = [COMPILER, "-shared", "-fPIC", "-O1", "-w", folder / "watch.c", "-o", folder / "watch.so", "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        self.folder, self.home, self.log = folder, folder / "home", folder / "log"
        self.home.mkdir()
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "OMP_NUM_THREADS")}
        self.environment = {
            **kept,
            "HOME": str(self.home),
            "TMPDIR": str(folder),
            "LD_PRELOAD": str(folder / "watch.so"),
            "WATCH_LOG": str(self.log),
            "PYTHONPATH": str(Path(__file__).parents[1] / "trainings"),  # for scripts that shorten commands
        }

    def run(self, *command: object) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def attunet(self, *commands: list[object], before: str = "") -> None:
        """Calls commands one after the other in one process, after the lines of a script."""
        self.run("-c", SEVERAL, before, json.dumps([[str(word) for word in command] for command in commands]))

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
