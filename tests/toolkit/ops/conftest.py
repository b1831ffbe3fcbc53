"""The backends of the gate, each on the device where it runs here."""

import os
from collections.abc import Iterator

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # set by test_triton_interpreted.py, which runs these files a second time

if INTERPRETED:
    from triton.runtime import interpreter

    # Triton 3.6 asks int() of an array of one number, which numpy 2.4 refuses.
    patch_lang_tensor = interpreter._patch_lang_tensor

    def patch_with_index(tensor, scope):  # type: ignore[no-untyped-def]
        patch_lang_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch_with_index


@pytest.fixture(autouse=True)
def ieee_products() -> Iterator[None]:
    """On a GPU convolutions, which the reference is made of, round float32 to TF32 unless told otherwise."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = False, False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(params=["reference", "cpu", pytest.param("triton", marks=[] if INTERPRETED else [pytest.mark.gpu])])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "triton" and not INTERPRETED and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; test_triton_interpreted.py runs it through Triton's interpreter")
    return request.param


@pytest.fixture
def device(backend: str) -> str:
    return "cuda" if backend == "triton" and not INTERPRETED else "cpu"


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=["float32", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest, backend: str) -> torch.dtype:
    if INTERPRETED and request.param == torch.bfloat16:
        pytest.skip("Triton's interpreter computes bfloat16 products wrongly")
    return request.param
