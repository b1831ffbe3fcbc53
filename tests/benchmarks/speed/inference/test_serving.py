"""The load test of the server: every answer is the one of `attunet predict`, broken scans are refused, memory stays."""

import numpy as np
import pytest

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from attunet.benchmarks.speed.inference import load, serving  # noqa: E402


@pytest.fixture(scope="module")
def trained_artefact(tmp_path_factory):
    """A small U-Net with fresh weights, as an artefact."""
    pytest.importorskip("torch")
    from attunet.benchmarks.speed.inference.forms import fresh_network
    from attunet.benchmarks.speed.inference.whole import generated_scan, write_pair

    folder = tmp_path_factory.mktemp("artefact")
    return write_pair(fresh_network("unet", width=4), "fp32", 48, generated_scan(48, 3), folder)[0]


@pytest.mark.slow
def test_a_short_load(trained_artefact):
    short = {"scans": 24, "clients": 4, "broken": 0.25, "side": 48, "slices": 3}
    results = serving.measure(trained_artefact, **short, options=["--threads", "1"], provider="cpu")
    assert results["clients"]["refused"] == 6
    assert results["clients"]["requests"] == 18
    assert results["ratio"] > 0
    table = serving.table(results)
    assert "6 broken scans refused" in table


def test_broken_scans_are_broken_in_different_ways(tmp_path):
    good = load.write_scan(tmp_path / "scan.nii.gz", 0, 16, 3).read_bytes()
    broken = load.broken_scans(good)
    assert len(set(broken)) == len(broken) >= 4
    assert good not in broken


@pytest.mark.soak
def test_two_hundred_scans_from_eight_clients(trained_artefact):
    """Memory is flat from the 50th scan to the 200th."""
    long = {"scans": 200, "clients": 8, "broken": 0.1, "side": 128, "slices": 30}
    results = serving.measure(trained_artefact, **long, options=[], provider="cpu")
    assert results["clients"]["refused"] == 20
    memory = results["memory_mb"]
    assert memory["at_end"] <= 1.1 * memory["at_50"]
    assert np.isfinite(results["ratio"])
