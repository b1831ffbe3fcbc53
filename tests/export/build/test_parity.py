"""An artefact that segments differently from its checkpoint before post-processing is refused with the figures."""

import logging

import numpy as np
import pytest

from attunet.classes import Classes
from attunet.errors import RunError
from attunet.export.build.parity import TOLERANCES, Parity
from attunet.metrics.significance import patient_interval

CLASSES = Classes(("background", "liver", "spleen"), (0, 1, 2))
NAN = float("nan")
ALIKE = np.diag([1000, 100, 100])


def _parity(checkpoint: dict, artefact: dict, *, finished: dict | None = None, agreement: np.ndarray = ALIKE) -> Parity:
    sides = (checkpoint, artefact, checkpoint, finished or artefact)
    scores = [{case: np.array(v, dtype=float) for case, v in side.items()} for side in sides]
    return Parity(CLASSES, "held out", {case: case[:1] for case in checkpoint}, agreement, *scores)


def test_the_interval_is_over_patients():
    values = [[0.9, 0.8], [0.7, 0.6], [0.8, 0.8], [0.9, 0.7], [0.6, 0.6]]
    cases = dict(zip("abcde", values, strict=True))
    expected = patient_interval({case: np.mean(v) for case, v in cases.items()}, {case: case for case in cases})
    assert _parity(cases, cases).to_json()["ci95"] == pytest.approx(expected, abs=1e-6)
    twice = cases | {"e2": [0.6, 0.6]}  # a second scan of the last patient
    assert _parity(twice, twice).to_json()["ci95"] == pytest.approx(expected, abs=1e-6)
    few = {case: cases[case] for case in "abcd"}
    assert _parity(few, few).to_json()["ci95"] is None


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("sign", [-1, 1])
def test_mean_beyond_the_tolerance_is_refused_and_just_below_passes(precision, sign):
    tolerance = sign * TOLERANCES[precision].mean
    before = {"a": [0.9, 0.8], "b": [0.7, 0.6]}
    below, beyond = (
        _parity(before, {k: [x + share * tolerance for x in v] for k, v in before.items()}) for share in (0.99, 1.01)
    )
    below.refuse_if_different(precision)
    with pytest.raises(RunError, match=r"mean Dice 0\.7\d\d\d against 0\.7500.*no file was written"):
        beyond.refuse_if_different(precision)


def test_one_case_far_off_is_refused_though_the_mean_is_right():
    before = {"a": [0.9, 0.8], "b": [0.7, 0.6]}
    with pytest.raises(RunError, match=r"in case [ab] [+-]0\.0030, allowed 0\.0025"):
        _parity(before, {"a": [0.903, 0.803], "b": [0.697, 0.597]}).refuse_if_different("fp32")


def test_equal_dice_with_other_voxels_is_refused():
    moved = np.array([[1000, 0, 0], [0, 50, 50], [0, 50, 50]])
    with pytest.raises(RunError, match=r"Dice between their label maps 0\.5000, at least 0\.95 is needed"):
        _parity({"a": [0.5, 0.5]}, {"a": [0.5, 0.5]}, agreement=moved).refuse_if_different("int8")


def test_a_jump_in_post_processing_alone_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "attunet"):
        _parity({"a": [0.90, 0.80]}, {"a": [0.90, 0.80]}, finished={"a": [0.95, 0.82]}).refuse_if_different("int8")
    assert "a: post-processing moves the artefact's Dice by +0.0350" in caplog.text


def test_a_class_that_only_one_side_has_a_dice_for_is_left_out():
    _parity({"a": [0.9, NAN]}, {"a": [0.9, 0.0]}).refuse_if_different("fp32")


def test_nothing_to_judge_by_is_refused():
    with pytest.raises(RunError, match="no case has a foreground class"):
        _parity({"a": [NAN, NAN]}, {"a": [NAN, NAN]}).refuse_if_different("fp32")


def test_figures_for_the_metadata_average_classes_in_a_case_and_then_cases():
    dice = _parity({"a": [0.5, 0.7], "b": [0.9, NAN]}, {"a": [0.4, 0.8], "b": [1.0, NAN]}).to_json()
    assert dice["artefact"] == pytest.approx(0.8)
    assert dice["checkpoint"] == pytest.approx(0.75)
    assert dice["per_class"] == {"liver": pytest.approx(0.7), "spleen": pytest.approx(0.8)}
    assert dice["per_case"]["b"] == {"liver": 1.0, "spleen": None}
    assert dice["before_postprocessing"] == {"artefact": 0.8, "checkpoint": 0.75, "agreement": 1.0, "equal_voxels": 1.0}
