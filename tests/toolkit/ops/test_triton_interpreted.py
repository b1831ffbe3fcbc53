"""The Triton backend through Triton's interpreter, which must be switched on before Triton is imported:
so in a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton exists on Linux alone")


@pytest.mark.slow
@pytest.mark.parametrize(
    "suite", ["test_gate_values.py", "test_gate_in_torch.py", "test_norm_relu.py", "test_max_pool.py"]
)
def test_the_suites_of_the_operations(suite: str) -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("this is the process of its own")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "triton",
        "-p",
        "no:cacheprovider",
        str(Path(__file__).parent / suite),
    ]
    result = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
