"""The examples of docs/in-python.md, run in the order of the page."""

import re
from pathlib import Path

import pytest

from attunet.phantom import write_phantom

PAGE = Path(__file__).parents[2] / "docs" / "in-python.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    write_phantom(tmp_path / "scans", cases=4, reduce=4)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in EXAMPLES:
        exec(compile(example, str(PAGE), "exec"), names)  # our own page
    assert len(EXAMPLES) == 6
    assert names["weights"]
    gradients = {name: parameter.grad for name, parameter in names["gated"].named_parameters()}  # type: ignore[attr-defined]
    assert sum(name.startswith("gate.") for name in gradients) == 5
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values())
    assert (tmp_path / "model.onnx").exists()


def test_every_public_name_has_a_type() -> None:
    import attunet

    stub = (Path(attunet.__file__).parent / "__init__.pyi").read_text(encoding="utf-8")
    assert set(re.findall(r'^    "(\w+)",$', stub, flags=re.MULTILINE)) == set(attunet.__all__)


def test_public_names_exist_and_the_light_ones_import_no_torch() -> None:
    import subprocess
    import sys

    light = [
        "Segmenter",
        "load_model",
        "open_store",
        "prepare",
        "read_config",
        "Config",
        "DataConfig",
        "InputError",
        "RunError",
    ]
    code = (
        f"import sys, attunet; [getattr(attunet, name) for name in {light}]; print('torch' in sys.modules, "
        "'accelerate' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "False"]
    code = "import attunet; [getattr(attunet, name) for name in attunet.__all__]; assert callable(attunet.export)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
