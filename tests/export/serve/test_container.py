"""The container and the systemd unit: what they run works as their user would run it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import attunet.launch

FOLDER = Path(attunet.launch.__file__).parent / "container"
TOKEN = "correct-horse-battery-staple"


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
