"""The environment of a measurement: device, clocks, driver, versions, commit; no host name, user or path."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
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
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
        "versions": versions(PACKAGES),
        "cpu": _cpu(),
        "gpus": _gpus(),
        "threads": _threads(),
    }


def gpu_memory_used_mb() -> float | None:
    """Memory in use on the first GPU by all processes; None without one."""
    used = _output("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0")
    try:
        return float(used) * 1.048576 if used else None  # nvidia-smi says MiB
    except ValueError:
        return None


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    installed = {}
    for package in packages:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _commit() -> str | None:
    """The commit of the clone that the package runs from, `+` appended where files differ from it;
    None outside a clone.
    """
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        return _output("git", "-C", str(here), *arguments)

    commit = git("rev-parse", "HEAD")
    if commit is None or git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None  # installed into some other repository's tree
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def _cpu() -> Cpu:
    text = _text("/proc/cpuinfo")
    rows = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    values = [(key.strip(), value.strip()) for key, value in rows]
    models = [value for key, value in values if key == "model name"]
    clocks = [float(value) for key, value in values if key == "cpu MHz"]
    kib = next(
        (int(line.split()[1]) for line in _text("/proc/meminfo").splitlines() if line.startswith("MemTotal:")), None
    )
    return {
        "name": models[0] if models else platform.processor() or platform.machine(),
        "usable_cores": usable_cores(),
        "clock_mhz": round(sum(clocks) / len(clocks)) if clocks else None,
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "memory_mb": kib // 1024 if kib else None,
    }


def _gpus() -> list[dict[str, str | float]]:
    table = _output("nvidia-smi", f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader,nounits")
    return [
        dict(zip(GPU_FIELDS.values(), map(_number, line.split(", ")), strict=False))
        for line in (table or "").splitlines()
    ]


def _threads() -> dict[str, str | int | None]:
    torch = sys.modules.get("torch")
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "torch": torch.get_num_threads() if torch is not None else None,
    }


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
