"""The backends of the operations on the device where each runs, and what the tests of all operations share."""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from gate_cases import Gate

from attunet.ops import attention_gate

# Set by test_triton_interpreted.py, which runs these files a second time
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

if INTERPRETED:
    from triton.runtime import interpreter

    # Triton 3.6 asks int() of an array of one number, which numpy 2.4 refuses.
    patch_lang_tensor = interpreter._patch_lang_tensor

    def patch_with_index(tensor, scope):  # type: ignore[no-untyped-def]
        patch_lang_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch_with_index

    # Triton remaps its language at every call of a function that a kernel calls, a quarter of the time that a kernel
    # takes: once for each module of functions is enough in a launch, which undoes some of it.
    remapped: set[int] = set()
    launch = interpreter.GridExecutor.__call__

    def launch_anew(self, *arguments, **named):  # type: ignore[no-untyped-def]
        remapped.clear()
        return launch(self, *arguments, **named)

    def call_in_launch(self, *arguments, **named):  # type: ignore[no-untyped-def]
        module = id(self.fn.__globals__)
        if module not in remapped:
            interpreter._patch_lang(self.fn)
            remapped.add(module)
        return self.rewrite()(*arguments, **named)

    interpreter.GridExecutor.__call__ = launch_anew
    interpreter.InterpretedFunction.__call__ = call_in_launch


@pytest.fixture(autouse=True)
def ieee_products() -> Iterator[None]:
    """On a GPU convolutions, which the reference is made of, round float32 to TF32 unless told otherwise."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = False, False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with `backend` runs with each of its module's `BACKENDS`, unless it names its own."""
    named = any("backend" in marker.args[0] for marker in metafunc.definition.iter_markers("parametrize"))
    if "backend" in metafunc.fixturenames and not named:
        metafunc.parametrize("backend", metafunc.module.BACKENDS, indirect=True)


@pytest.hookimpl(tryfirst=True)  # before `-m gpu` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if parameters.get("backend") == "triton" and not INTERPRETED:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """A backend of the operation."""
    if request.param == "triton" and not INTERPRETED and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; test_triton_interpreted.py runs it through Triton's interpreter")
    return request.param


@pytest.fixture
def device(backend: str) -> str:
    return "cuda" if backend == "triton" and not INTERPRETED else "cpu"


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=["float32", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    if INTERPRETED and request.param == torch.bfloat16:
        pytest.skip("Triton's interpreter computes bfloat16 products wrongly")
    return request.param


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[ModuleType, str, str], ModuleType]:
    """A function of a module, a piece of its source and another one: the module with the piece replaced."""

    def replace(module: ModuleType, old: str, new: str) -> ModuleType:
        source = Path(str(module.__file__)).read_text()
        assert old in source
        path = tmp_path / f"broken_{module.__name__.rpartition('.')[2]}.py"
        path.write_text(source.replace(old, new))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[path.stem] = result = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(result)
        return result

    return replace


@pytest.fixture
def break_kernels(
    broken: Callable[[ModuleType, str, str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> Callable[[ModuleType, str, str], None]:
    """A function that replaces a piece of the kernels that a module launches."""
    return lambda launches, old, new: monkeypatch.setattr(launches, "kernels", broken(launches.kernels, old, new))


@pytest.fixture
def gate(backend: str) -> Gate:
    return partial(attention_gate, backend=backend, return_alpha=True)
