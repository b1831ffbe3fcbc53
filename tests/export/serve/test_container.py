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
    found = re.search(rf"^{name} .*?(\[.*\])$", text, re.MULTILINE)
    assert found is not None
    return json.loads(found[1])


def environment(place: Path) -> dict[str, str]:
    text = (FOLDER / "serve.Dockerfile").read_text()
    found = dict(re.findall(r"(\w+)=(\S+)", re.search(r"^ENV (.*)$", text, re.MULTILINE)[1]))
    return {**found, "HOME": str(place), "PATH": "/usr/bin:/bin"}


def test_the_entry_point_serves_and_its_health_check_agrees(artefact, tmp_path):
    """As in the container: an empty environment, a folder for uploads, a token in a file;
    the root itself is never written.
    """
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "uploads").mkdir()
    entry = instruction("ENTRYPOINT")
    assert entry[:2] == ["attunet", "serve"]
    options = ["0" if word == "8000" else str(tmp_path / "uploads") if word == "/tmp" else word for word in entry[2:]]
    command = [
        sys.executable,
        "-m",
        "attunet.launch.cli",
        "serve",
        *options,
        artefact,
        "--token-file",
        tmp_path / "token",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment(tmp_path)
    ) as process:
        assert process.stdout is not None
        port = next(
            found[1]
            for line in process.stdout
            if (found := re.search(r"http://0\.0\.0\.0:(\d+)", json.loads(line)["message"]))
        )
        check = [
            sys.executable,
            *instruction("HEALTHCHECK")[1:-1],
            instruction("HEALTHCHECK")[-1].replace("8000", port),
        ]
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
    words = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1].split() + re.findall(
        r"--[\w-]+", re.search(r"command: (.*)", compose)[1]
    )
    assert {word for word in words + instruction("ENTRYPOINT") if word.startswith("--")} <= known
    grace = int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]), int(re.search(r"stop_grace_period: (\d+)s", compose)[1])
    timeout = next(parameter.default for parameter in serve_command.params if parameter.name == "timeout")
    assert min(grace) > timeout
