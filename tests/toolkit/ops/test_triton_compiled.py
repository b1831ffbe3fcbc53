"""Every kernel that a training step of the 64-wide network launches,
compiled for sm_80 and sm_90 by Triton's own compiler: no GPU needed.

The launches are recorded, not made: so what is compiled are the tilings and constants that a GPU would be given.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted in this process, not compiled", allow_module_level=True)
triton = pytest.importorskip("triton", reason="Triton exists on Linux alone")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource, CompiledKernel  # noqa: E402

from attunet.ops.gate import streamed_kernels, triton_gate, triton_kernels  # noqa: E402
from attunet.ops.gate.reference import GateParameters  # noqa: E402
from attunet.ops.norm import norm_kernels, triton_norm  # noqa: E402
from attunet.ops.pool import pool_kernels, triton_pool  # noqa: E402

SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}  # bytes for one block of threads
REGISTERS, MIN_WARPS = 65536, 8  # of a multiprocessor; fewer resident warps would not hide the latency of memory
# Bytes of a thread: the assembler may spill a few words so that more warps fit; real spilling is hundreds
MAX_SPILLED = 32
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.uint8: "*u8"}
OPTIONS = ("num_warps", "num_stages")


@dataclass
class Launch:
    kernel: Any
    arguments: tuple[Any, ...]
    constants: dict[str, Any]


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Launch]]:
    """A function that replaces a module's kernels of some prefixes, and the list of what is launched from then on."""
    launches: list[Launch] = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            assert all(size > 0 for size in grid)
            return lambda *arguments, **constants: launches.append(Launch(self.kernel, arguments, constants))

    def replace(module: ModuleType, *prefixes: str) -> list[Launch]:
        for name in [name for name in vars(module) if name.startswith(prefixes)]:
            monkeypatch.setattr(module, name, Recorder(getattr(module, name)))
        return launches

    return replace


def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=dtype).to(memory_format=torch.channels_last)


def gate_step(width: int, dtype: torch.dtype) -> None:
    """A gate's forward and backward pass with float32 parameters, as under autocast."""
    x, g, hidden = zeros(dtype, 2, width, 16, 16), zeros(dtype, 2, width, 16, 16), width // 2
    shapes = ((hidden, width), (hidden, width), (hidden,), (hidden,), (1,))
    parameters = GateParameters(*(torch.zeros(shape) for shape in shapes))
    out, _ = triton_gate.forward(x, g, parameters)
    triton_gate.backward(out, None, x, g, parameters)


def norm_step(width: int, dtype: torch.dtype) -> None:
    """A forward and backward pass of batch norm with ReLU, with float32 vectors."""
    x, (weight, bias, running_mean, running_var) = zeros(dtype, 2, width, 64, 64), torch.zeros(4, width).unbind()
    mean, var, count = triton_norm.combine(triton_norm.statistics(x), running_mean, running_var, 0.1)
    vectors = (weight, bias, mean, var)
    out = triton_norm.normalise(x, vectors, 1e-5)
    sums = triton_norm.gradient_sums(out, x, vectors, 1e-5)
    triton_norm.gradient(out, x, vectors, 1e-5, (count, *sums))


def pool_step(width: int, dtype: torch.dtype) -> None:
    """A forward and backward pass of max pooling, and a forward pass without a gradient."""
    x = zeros(dtype, 2, width, 64, 64)
    out, chosen = triton_pool.forward(x, with_index=True)
    assert chosen is not None
    triton_pool.backward(out, chosen)
    triton_pool.forward(x, with_index=False)


def compiled(launch: Launch, capability: int) -> CompiledKernel:
    """Compiles as a launch specialises: ones and None are constants, multiples of 16 are known to be such."""
    names = launch.kernel.arg_names
    options = {name: launch.constants[name] for name in OPTIONS if name in launch.constants}
    values = dict(zip(names, launch.arguments, strict=False)) | {
        k: v for k, v in launch.constants.items() if k not in OPTIONS
    }
    signature, constants, attributes = {}, {}, {}
    for position, name in enumerate(names):
        value = values[name]
        if isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
        elif isinstance(value, float):
            signature[name] = "fp32"
            continue
        elif name not in launch.constants and value is not None and value != 1:
            signature[name] = "i32"
        else:
            signature[name], constants[position,] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor) or value % 16 == 0:
            attributes[position,] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(kernel: CompiledKernel, folder: Path) -> dict[str, int]:
    """REG, SPILLED and SHARED of the machine code, as NVIDIA's cuobjdump, which comes with Triton, reads them."""
    binary = folder / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    report = subprocess.run([tool, "--dump-resource-usage", binary], capture_output=True, text=True, check=True).stdout
    used = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}
    return {"REG": used["REG"], "SPILLED": used["STACK"] + used["LOCAL"], "SHARED": max(1, kernel.metadata.shared)}


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("width", "dtype"),
    [
        *[(width, torch.bfloat16) for width in (16, 64, 128, 256, 512)],
        *[(width, torch.float16) for width in (64, 128, 256, 512)],
        *[(width, torch.float32) for width in (64, 128, 256, 512)],
    ],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_gate_compiles_within_the_hardware(
    width: int, dtype: torch.dtype, capability: int, tmp_path: Path, record: Callable[..., list[Launch]]
) -> None:
    record(triton_kernels, "gate_", "epilogue_")
    recorded = record(streamed_kernels, "streamed_")
    gate_step(width, dtype)
    launches = {launch.kernel: launch for launch in recorded}.values()  # the gradients of both weights are one kernel
    names = ["gate_backward", "gate_forward", "gate_weight_gradient"]
    if width > 128:
        streamed = ["streamed_backward", "streamed_forward", "streamed_vector_finish", "streamed_weight_gradient"]
        names = ["epilogue_backward", "epilogue_forward"] if dtype == torch.float32 else streamed
    assert sorted(launch.kernel.__name__ for launch in launches) == names
    for launch in launches:
        kernel, name, warps = compiled(launch, capability), launch.kernel.__name__, launch.constants["num_warps"]
        used = resources(kernel, tmp_path)
        assert used["SPILLED"] <= MAX_SPILLED, f"{name} spills registers: {used}"
        assert used["SHARED"] <= SHARED_MEMORY[capability], f"{name} wants too much shared memory: {used}"
        by_registers = REGISTERS // (32 * used["REG"])
        resident = min(by_registers, warps * SHARED_MEMORY[capability] // used["SHARED"]) // warps * warps
        assert resident >= MIN_WARPS, f"{name}: {resident} warps on a multiprocessor, with {used}"
        assert "max.f32" not in kernel.asm["ptx"], f"{name}: a ReLU that makes 0 of NaN"
        tensor_cores = dtype != torch.float32 and not name.endswith("finish")  # float32 is not TF32
        assert ("mma" in kernel.asm["ptx"]) == tensor_cores, f"{name}: tensor cores are for 16 bits alone"


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("width", [64, 128, 1024])
def test_norm_compiles_to_full_occupancy(
    width: int, dtype: torch.dtype, capability: int, tmp_path: Path, record: Callable[..., list[Launch]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(triton_norm, "num_multiprocessors", lambda x: 132)
    launches = record(norm_kernels, "norm_")
    norm_step(width, dtype)
    assert len(launches) == 6
    for launch in launches:
        kernel, name = compiled(launch, capability), launch.kernel.__name__
        used = resources(kernel, tmp_path)
        assert used["SPILLED"] == 0, f"{name} spills registers: {used}"
        if name.endswith("finish"):
            continue
        by_registers = REGISTERS // (32 * launch.constants["num_warps"] * used["REG"])
        resident = min(by_registers, SHARED_MEMORY[capability] // used["SHARED"])
        assert resident >= triton_norm.PROGRAMS_PER_MULTIPROCESSOR, f"{name}: {resident} programs, with {used}"
        assert "ld.global.v4" in kernel.asm["ptx"], f"{name} loads in small pieces"
        loads_ahead = "cp.async.cg.shared.global" in kernel.asm["ptx"]
        assert loads_ahead == (name in ("norm_statistics", "norm_gradient_sums")), f"{name}: loops load ahead of sums"


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("width", [64, 512])
def test_max_pool_compiles_to_full_occupancy(
    width: int, dtype: torch.dtype, capability: int, tmp_path: Path, record: Callable[..., list[Launch]]
) -> None:
    launches = record(pool_kernels, "pool_")
    pool_step(width, dtype)
    assert len(launches) == 3
    for launch in launches:
        kernel, name = compiled(launch, capability), launch.kernel.__name__
        used = resources(kernel, tmp_path)
        assert used["SPILLED"] == 0, f"{name} spills registers: {used}"
        assert used["REG"] <= 64, f"{name}: {used}"
        assert "ld.global.v4" in kernel.asm["ptx"], f"{name} loads in small pieces"
        assert "st.global.v4" in kernel.asm["ptx"], f"{name} stores in small pieces"


def test_import_compiles_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, torch, attunet.ops, attunet.models\n"
        "assert 'attunet.ops.gate.triton_gate' not in sys.modules\n"
        "import attunet.ops.gate.triton_gate\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)})
    assert not list(tmp_path.iterdir())
