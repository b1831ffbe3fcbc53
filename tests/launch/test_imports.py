"""What may import what: rooms, circles, and the parts that a deployment without the extras relies on."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"toolkit": "attunet", "export": "attunet.export", "benchmarks": "attunet.benchmarks", "launch": "attunet.launch"}
ORDER = list(ROOMS)  # a room may import itself and those before it
EXTRAS = ("torch", "accelerate", "safetensors", "onnx", "onnxscript", "wandb", "matplotlib", "tqdm", "pydicom", "openvino", "triton")
TORCH_FREE = [
    *("volume", "classes", "spec", "config", "geometry", "readers", "writers", "layouts", "preprocess", "predict_volume", "metrics"),
    *("store", "prepare", "phantom", "export.artefact", "export.runtime", "launch.cli", "launch.train"),
]


def modules() -> dict[str, Path]:
    """Import name -> file of every module of the toolkit."""
    found = {}
    for room, package in ROOMS.items():
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT / room).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imports(tree: ast.AST, *, everywhere: bool) -> Iterator[str]:
    """Names that are imported: at the top of the module alone, or in functions too."""
    nodes = ast.walk(tree) if everywhere else iter(tree.body)  # type: ignore[attr-defined]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str | None:
    if name.split(".")[0] != "attunet":
        return None
    return next((room for room, package in ROOMS.items() if room != "toolkit" and f"{name}.".startswith(f"{package}.")), "toolkit")


def test_no_module_imports_a_folder_by_its_name() -> None:
    for path in [*modules().values(), *(ROOT / "tests").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        wrong = [name for name in imports(tree, everywhere=True) if name.split(".")[0] in ROOMS]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}; the import name is attunet"
        relative = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        assert not relative, f"{path.relative_to(ROOT)} has a relative import, which does not say its room"


def test_rooms_import_one_way() -> None:
    for name, path in modules().items():
        here = room_of(name)
        for other in imports(ast.parse(path.read_text(encoding="utf-8")), everywhere=True):
            there = room_of(other)
            assert there is None or ORDER.index(there) <= ORDER.index(str(here)), f"{name} imports {other}"


@pytest.mark.parametrize(
    ("below", "above"),
    [("ops", "models"), ("models", "training"), ("ops", "training"), ("geometry", "readers"), ("readers", "prepare")],
)
def test_the_toolkit_is_layered(below: str, above: str) -> None:
    for name, path in modules().items():
        if f"{name}.".startswith(f"attunet.{below}."):
            used = imports(ast.parse(path.read_text(encoding="utf-8")), everywhere=True)
            assert not [other for other in used if f"{other}.".startswith(f"attunet.{above}.")], name


def test_no_circles() -> None:
    known = modules()
    graph = {}
    for name, path in known.items():
        used = set()
        for other in imports(ast.parse(path.read_text(encoding="utf-8")), everywhere=False):
            target = other if other in known else other.rpartition(".")[0]
            if target in known and target != name:
                used.add(target)
        graph[name] = used
    TopologicalSorter(graph).prepare()  # raises CycleError


BLOCK = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run_without_extras(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", BLOCK + code], capture_output=True, text=True, timeout=120, check=False)


def test_the_base_install_imports_without_the_extras() -> None:
    done = run_without_extras("\n".join(f"import attunet.{name}" for name in TORCH_FREE))
    assert done.returncode == 0, done.stderr


def test_the_command_works_without_the_extras_and_names_the_one_it_needs(tmp_path: Path) -> None:
    def attunet(*arguments: object) -> "subprocess.CompletedProcess[str]":
        listed = [str(a) for a in arguments]
        return run_without_extras(f"from attunet.launch.cli import main\nsys.argv[1:] = {listed}\nsys.exit(main())")

    assert attunet("--help").returncode == 0
    assert attunet("phantom", tmp_path / "source", "--cases", 2).returncode == 0
    assert attunet("prepare", tmp_path / "source", tmp_path / "store", "--config", "demo").returncode == 0
    assert attunet("inspect", tmp_path / "store").returncode == 0
    failed = attunet("train", tmp_path / "store", tmp_path / "run", "--fold", 0)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert "pip install 'attunet[train]'" in failed.stderr
    assert not (tmp_path / "run").exists()
