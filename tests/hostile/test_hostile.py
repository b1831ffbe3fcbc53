"""Every file of the corpus: refused in one line or survived, in bounded time and memory,
and nothing outside the folder is touched.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def corpus() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("hostile_corpus", HERE / "corpus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hostile_corpus"] = module
    spec.loader.exec_module(module)
    return {one.name: one for one in module.CORPUS}


CORPUS = corpus()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    for package in ("torch", "pydicom", "PIL", "onnx"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("hostile") / "files"
    folder.mkdir()
    command = [sys.executable, str(HERE / "attack.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.name for path in folder.parent.iterdir()] == ["files"], "something was written outside the folder"
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_file_does_no_harm(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    outcome = outcomes[name]
    assert not outcome["kind"].startswith("!"), f"{CORPUS[name].attack}: {outcome}"
    if outcome["kind"] == "lines":
        refused = any(line.startswith("error: ") for line in outcome["text"].splitlines())
        assert refused or not CORPUS[name].refused, f"{CORPUS[name].attack}: not refused: {outcome['text'][:300]}"
    else:
        assert outcome["kind"] in ("InputError", "TooLarge"), outcome
        assert "\n" not in outcome["text"], outcome["text"]
    assert "\x1b" not in outcome["text"] or outcome["kind"] == "lines"  # the command line makes lines harmless
