"""The structure of the package: the order of rooms, no circles, and a base install that works without the extras."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from attunet.launch.exit_codes import EXTRA_OF

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "toolkit": "attunet",
    "export": "attunet.export",
    "benchmarks": "attunet.benchmarks",
    "launch": "attunet.launch",
}
# From the ground up: a room imports itself and rooms before it. A file directly in toolkit/ is a room of its own; a
# folder's folders belong to its room, but for those of export and benchmarks.
ORDER = (
    *("version", "errors", "decisions", "fields", "channels", "classes", "system", "privacy", "volumes", "confidence"),
    *("config", "presets", "io", "sources"),
    *(
        "phantom",
        "metrics",
        "manifest",
        "store",
        "store_damage",
        "evaluate_case",
        "preparation",
        "ops",
        "models",
        "losses",
        "device",
        "loading",
        "plots",
    ),
    *("runs", "training"),
    *("export/artefact", "export/runtime", "export", "export/build", "export/web", "export/serve"),
    *(
        "benchmarks",
        "benchmarks/evaluation",
        "benchmarks/report",
        "benchmarks/crossvalidation",
        "benchmarks/nnunet",
        "benchmarks/accuracy",
        "benchmarks/speed",
        "launch",
    ),
)
FORBIDDEN = {  # arrows that the order would allow
    "export/build": {"training", "loading", "preparation"},
    "export/serve": {"export/build", "runs", "training"},
    "export/runtime": {"runs", "training", "models", "ops", "store"},
    "runs": {"loading"},
    "preparation": {"metrics"},
    "benchmarks/evaluation": {"training", "preparation"},
}
TORCH_FREE_ROOMS = (
    *("version", "errors", "decisions", "fields", "channels", "classes", "system", "privacy", "volumes", "confidence"),
    *("config", "presets", "io", "sources"),
    *(
        "phantom",
        "metrics",
        "manifest",
        "store",
        "store_damage",
        "evaluate_case",
        "preparation",
        "export/artefact",
        "export/runtime",
        "export/serve",
    ),
)
EXTRAS = (
    "torch",
    "accelerate",
    "safetensors",
    "onnx",
    "onnxscript",
    "wandb",
    "matplotlib",
    "tqdm",
    "pydicom",
    "openvino",
    "triton",
    "jinja2",
    "plotly",
    "ipyniivue",
)
TORCH_FREE = [
    *(
        "volumes.volume",
        "classes",
        "volumes.spec",
        "config",
        "volumes.geometry",
        "io.readers",
        "io.writers",
        "sources.find_cases",
    ),
    *("volumes.slices", "volumes.predict", "metrics.overlap", "store", "preparation.prepare", "phantom"),
    *("export.artefact.artefact", "export.runtime", "export.load_model", "evaluate_case", "launch.cli", "launch.train"),
    "benchmarks.evaluation.evaluate",
]

MAX_ANY = 80  # uses of typing.Any in annotations


@cache
def modules() -> dict[str, Path]:
    """Import name -> file of every module of the toolkit."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


@cache
def imports(path: Path, *, everywhere: bool) -> list[str]:
    """Names that a file imports, at the top of the module alone, or in functions too; relative ones with their dots."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: list[str] = []
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return names


def room_of(name: str) -> str:
    """The room of a module of this package, by import name."""
    path = modules()[name].relative_to(ROOT)
    folder = "/".join(path.parent.parts[:2])
    if folder == "toolkit":
        return path.stem
    return "launch" if folder.startswith("launch") else folder.removeprefix("toolkit/")


def imported_modules(path: Path, *, everywhere: bool) -> set[str]:
    """Import names of this package's modules that a file imports."""
    known = modules()
    names = imports(path, everywhere=everywhere)
    return {
        target for name in names for target in [name if name in known else name.rpartition(".")[0]] if target in known
    }


def test_no_module_imports_a_folder_by_its_name() -> None:
    for path in [*modules().values(), *(ROOT / "tests").rglob("*.py")]:
        names = imports(path, everywhere=True)
        wrong = [name for name in names if name.split(".")[0] in FOLDERS]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}; the import name is attunet"
        relative = [name for name in names if name.startswith(".")]
        assert not relative, f"{path.relative_to(ROOT)} has a relative import, which does not say its room"


def test_the_root_has_no_other_folders() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("an archive of the repository has no list of its files")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    folders = {line.partition("/")[0] for line in done.stdout.splitlines() if "/" in line}
    assert folders == {*FOLDERS, "docs", "tests", ".ci"}


def test_rooms_import_one_way() -> None:
    for name, path in modules().items():
        if name in ("attunet", "attunet.export"):
            continue  # the public API: names of every room, imported when they are used
        here = room_of(name)
        assert here in ORDER, f"{here} is a new room: give it a place in ORDER and in docs/architecture.md"
        for other in imported_modules(path, everywhere=True):
            there = room_of(other)
            assert ORDER.index(there) <= ORDER.index(here), (
                f"{name} ({here}) imports {other} ({there}), a room above its own"
            )
            assert there not in FORBIDDEN.get(here, ()), f"{name} ({here}) imports {other} ({there})"


def test_torch_free_rooms_do_not_import_torch() -> None:
    for name, path in modules().items():
        if room_of(name) in TORCH_FREE_ROOMS:
            used = imports(path, everywhere=True)
            assert not [other for other in used if other.split(".")[0] in ("torch", "accelerate", "safetensors")], name


def test_no_circles() -> None:
    graph = {name: imported_modules(path, everywhere=False) - {name} for name, path in modules().items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_one_module_opens_dicom() -> None:
    """Its reading is bounded, and turns pydicom's errors, which may quote a patient's name, into lines of our own."""
    modules_that_open = [
        name
        for name, path in modules().items()
        if any(call in path.read_text(encoding="utf-8") for call in ("dcmread", "read_partial"))
    ]
    assert modules_that_open == ["attunet.io.dicom.file"]


def test_children_import_nothing_from_the_working_directory() -> None:
    """`python -m` would: with a stranger's folder as the working directory, the stranger's numpy.py."""
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        starts = any(other.startswith("multiprocessing") for other in imports(path, everywhere=True))
        assert not starts or "safe_path()" in text, name
        assert "torch.distributed.run" not in text or '"PYTHONSAFEPATH": "1"' in text, name
        for call in re.finditer(r"sys\.executable, [^\n]+", text):
            in_the_repository = name in ("attunet.launch.vulnerabilities", "attunet.benchmarks.speed.gpu.run")
            assert in_the_repository or call[0].startswith('sys.executable, "-P"'), (name, call[0])


def test_one_module_makes_temporary_folders() -> None:
    """Others might leave a patient's data where nothing removes it."""
    makers = {
        name
        for name, path in modules().items()
        if re.search(r"\b(TemporaryDirectory|NamedTemporaryFile|mkdtemp|mkstemp)\b", path.read_text(encoding="utf-8"))
    }
    assert makers == {"attunet.system.private_folder"}


def test_any_is_rare() -> None:
    uses = [
        f"{name}:{node.lineno}"
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "Any"
    ]
    assert len(uses) <= MAX_ANY, uses


BLOCK = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run_without_extras(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_base_install_imports_without_the_extras() -> None:
    done = run_without_extras("\n".join(f"import attunet.{name}" for name in TORCH_FREE))
    assert done.returncode == 0, done.stderr


def test_a_missing_package_of_an_extra_is_named_with_the_extra() -> None:
    base, guarded = {"attunet", "numpy", "scipy", "nibabel", "click", "onnxruntime"}, {"triton"}
    programs = {"attunet.launch.components", "attunet.launch.components_page", "attunet.launch.lock"}
    imported = {
        name.partition(".")[0]
        for module, path in modules().items()
        if not module.startswith("attunet.benchmarks") and module not in programs
        for name in imports(path, everywhere=False)
    }
    assert imported - base - guarded - sys.stdlib_module_names <= EXTRA_OF.keys()


@pytest.mark.slow
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


def test_no_folder_of_tests_is_left_out(pytestconfig: pytest.Config) -> None:
    folders = {part for path in (ROOT / "tests").rglob("test_*.py") for part in path.relative_to(ROOT).parts[:-1]}
    left_out = pytestconfig.getini("norecursedirs")
    assert {folder for folder in folders for pattern in left_out if Path(folder).match(pattern)} == set()
