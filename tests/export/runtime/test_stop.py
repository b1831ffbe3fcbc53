"""A run of a whole artefact ends when another thread says so."""

import threading
from pathlib import Path

import numpy as np
import pytest

from attunet.errors import RunError
from attunet.export.runtime.segmenter import Segmenter
from attunet.export.runtime.stop import Stop

pytest.importorskip("onnx")

SPACING = np.array([5, 1.6, 1.6], np.float32)


def volume(slices: int) -> np.ndarray:
    """Four slices of noise, repeated."""
    few = np.random.default_rng(0).normal(300, 60, (1, 4, 64, 64)).astype(np.float32)
    return np.resize(few, (1, slices, 64, 64))


@pytest.fixture(scope="module", params=["cpu", "openvino"])
def segmenter(request: pytest.FixtureRequest, whole: Path) -> Segmenter:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return Segmenter(whole, provider=request.param, num_threads=1)


def test_a_run_is_ended_midway_and_the_next_one_works(segmenter: Segmenter) -> None:
    expected = segmenter.segment_oriented(volume(3), SPACING)
    stop = Stop()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(RunError):
        segmenter.segment_oriented(volume(20_000), SPACING, stop=stop)  # would take minutes
    timer.join()
    np.testing.assert_array_equal(segmenter.segment_oriented(volume(3), SPACING, stop=Stop()), expected)


def test_a_stop_that_is_set_before_ends_the_run_at_once(segmenter: Segmenter) -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(RunError):
        segmenter.segment_oriented(volume(20_000), SPACING, stop=stop)


def test_actions_are_called_while_their_context_is_open_alone() -> None:
    stop, called = Stop(), []
    with stop.calling(lambda: called.append("first")):
        pass
    with stop.calling(lambda: called.append("second")):
        stop.set()
        stop.set()
    with stop.calling(lambda: called.append("third")):
        pass
    assert called == ["second", "second", "third"]
    assert stop.is_set
