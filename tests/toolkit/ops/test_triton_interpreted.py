"""The Triton backends through Triton's interpreter, in one process where it is on before Triton is imported."""

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
@pytest.mark.timeout(1800)
def test_the_suites_of_the_operations() -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("this is the process of its own")
    suites = [str(Path(__file__).parent / suite) for suite in SUITES]
    arguments = ["-v", "-k", "triton", "-p", "no:cacheprovider", "--timeout", "600", *suites]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    passed = [line for line in result.stdout.splitlines() if " PASSED" in line]
    assert not [suite for suite in SUITES if not any(f"{suite}::" in line for line in passed)]
