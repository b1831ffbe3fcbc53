"""The environment of a measurement: device, clocks, driver, versions, commit; no host name, user or path. And the peak
of its memory.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from attunet.system.workers import usable_cores

PACKAGES = (
    *("attunet", "numpy", "scipy", "nibabel", "onnxruntime-gpu", "onnxruntime", "openvino", "onnx", "onnxscript"),
    *("torch", "triton", "accelerate", "safetensors"),
)
GPU_FIELDS = {  # nvidia-smi's names: ours
    "name": "name",
    "driver_version": "driver",
    "memory.total": "memory_mb",
    "clocks.sm": "clock_mhz",
    "clocks.max.sm": "max_clock_mhz",
    "clocks.mem": "memory_clock_mhz",
    "power.limit": "power_limit_w",
}


class Cpu(TypedDict):
    name: str
    usable_cores: int
    clock_mhz: int | None
    governor: str | None
    memory_mb: int | None


class Environment(TypedDict):
    """JSON values; `commit` is None outside a clone, a GPU has the names of `GPU_FIELDS`."""

    python: str
    platform: str
    commit: str | None
    versions: dict[str, str]
    cpu: Cpu
    gpus: list[dict[str, str | float]]
    threads: dict[str, str | int | None]


def environment() -> Environment:
    """The machine and the software as JSON values; torch's threads only if the process has imported torch already."""
    torch = sys.modules.get("torch")
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
        "versions": versions(PACKAGES),
        "cpu": _cpu(),
        "gpus": _gpus(),
        "threads": {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
            "torch": torch.get_num_threads() if torch is not None else None,
        },
    }


def gpu_memory_used_mb() -> float | None:
    """Memory in use on the first GPU that this process may use, by all processes; None without one."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"
    used = _output("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={first}")
    try:
        return float(used) * 1.048576 if used else None  # nvidia-smi says MiB
    except ValueError:
        return None


def versions(packages: Sequence[str]) -> dict[str, str]:
    installed = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return installed


def _commit() -> str | None:
    """The commit of this package's clone, with `+` if files differ from it; None outside a clone."""
    git, file = ("git", "-C", str(Path(__file__).resolve().parent)), Path(__file__).name
    commit = _output(*git, "rev-parse", "HEAD")
    if commit is None or _output(*git, "ls-files", "--error-unmatch", file) is None:
        return None  # installed into some other repository's tree
    return commit + ("+" if _output(*git, "status", "--porcelain", "--untracked-files=no") else "")


def _cpu() -> Cpu:
    about = _text("/proc/cpuinfo")
    models = re.findall(r"^model name\s*:\s*(.*\S)", about, re.MULTILINE)
    clocks = [float(clock) for clock in re.findall(r"^cpu MHz\s*:\s*(\S+)", about, re.MULTILINE)]
    kib = re.search(r"^MemTotal:\s*(\d+)", _text("/proc/meminfo"), re.MULTILINE)
    return {
        "name": models[0] if models else platform.processor() or platform.machine(),
        "usable_cores": usable_cores(),
        "clock_mhz": round(sum(clocks) / len(clocks)) if clocks else None,
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "memory_mb": int(kib[1]) // 1024 if kib else None,
    }


def _gpus() -> list[dict[str, str | float]]:
    table = _output("nvidia-smi", f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader,nounits") or ""
    rows = (map(_number, line.split(", ")) for line in table.splitlines())
    return [dict(zip(GPU_FIELDS.values(), row, strict=False)) for row in rows]


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _output(*command: str) -> str | None:
    """Standard output of a command; None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def peak_resident_mb() -> float | None:
    """Return the largest resident memory of this process so far, in 10^6 bytes; None on systems without it.

    Linux: VmHWM. `getrusage` keeps the maximum of the parent across fork and exec, so a child of a large process would
    look large.
    """
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM:")), None)
