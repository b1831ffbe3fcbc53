"""The environment of a measurement: enough to distrust it, nothing that says whose machine it was."""

import getpass
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import attunet
from attunet.system.environment import environment, gpu_memory_used_mb

LOOK = """
import json, sys
from attunet.system.environment import environment
found = environment()
print(json.dumps({"torch": "torch" in sys.modules, "found": found}))
"""


def test_torch_is_not_imported_to_describe_the_machine() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert not answer["torch"]
    assert answer["found"]["threads"]["torch"] is None


def test_versions_and_device_are_named() -> None:
    found = environment()
    assert found["versions"]["attunet"] == attunet.__version__
    assert found["cpu"]["name"]
    assert found["cpu"]["usable_cores"] >= 1


def test_no_host_user_or_path() -> None:
    strings = _strings(environment())
    for private in (socket.gethostname(), str(Path.home()), str(Path.cwd())):
        assert not any(private in text for text in strings if len(private) > 3)
    assert getpass.getuser() not in strings


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _strings(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _strings(inner)]
    return [value] if isinstance(value, str) else []


def test_the_memory_in_use_is_that_of_the_gpu_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("attunet.system.environment._output", lambda *command: asked.append(command[-1]))
    for visible in ("", "1,0", "GPU-7f"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert gpu_memory_used_mb() is None
    assert asked == ["--id=0", "--id=1", "--id=GPU-7f"]
