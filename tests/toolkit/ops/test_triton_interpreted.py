"""The Triton backends through Triton's interpreter, in a process where it is on before Triton is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton exists on Linux alone")

SUITES = (
    *("test_gate_values.py", "test_gate_kernels.py", "test_gate_in_torch.py"),
    *("test_norm_relu.py", "test_norm_in_torch.py", "test_max_pool.py"),
)


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_the_suites_of_the_operations(suite: str) -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("this is the process of its own")
    arguments = ["-q", "-k", "triton", "-p", "no:cacheprovider", str(Path(__file__).parent / suite)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
