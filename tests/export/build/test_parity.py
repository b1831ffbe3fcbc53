"""An artefact is refused, with the figures, where it segments other than its checkpoint."""

import numpy as np
import pytest

from attunet.classes import Classes
from attunet.errors import RunError
from attunet.export.build.parity import MEAN_TOLERANCE, Parity

CLASSES = Classes(("background", "liver", "spleen"), (0, 1, 2))
NAN = float("nan")


def _parity(checkpoint: dict, artefact: dict) -> Parity:
    sides = ({case: np.array(v, dtype=float) for case, v in side.items()} for side in (checkpoint, artefact))
    return Parity(CLASSES, "held out", *sides)


@pytest.mark.parametrize("precision", MEAN_TOLERANCE)
@pytest.mark.parametrize("sign", [-1, 1])
def test_mean_beyond_the_tolerance_is_refused_and_just_below_passes(precision, sign):
    tolerance = sign * MEAN_TOLERANCE[precision]
    before = {"a": [0.9, 0.8], "b": [0.7, 0.6]}
    _parity(before, {k: [x + 0.99 * tolerance for x in v] for k, v in before.items()}).refuse_if_apart(precision)
    with pytest.raises(RunError, match=r"mean Dice 0\.7\d\d\d against 0\.7500.*no file was written"):
        _parity(before, {k: [x + 1.01 * tolerance for x in v] for k, v in before.items()}).refuse_if_apart(precision)


def test_one_case_far_off_is_refused_though_the_mean_is_right():
    before = {"a": [0.9, 0.8], "b": [0.7, 0.6]}
    with pytest.raises(RunError, match=r"in case [ab] [+-]0\.0030, allowed 0\.0025"):
        _parity(before, {"a": [0.903, 0.803], "b": [0.697, 0.597]}).refuse_if_apart("fp32")


def test_a_class_that_only_one_side_has_a_dice_for_is_left_out():
    _parity({"a": [0.9, NAN]}, {"a": [0.9, 0.0]}).refuse_if_apart("fp32")


def test_nothing_to_judge_by_is_refused():
    with pytest.raises(RunError, match="no case has a foreground class"):
        _parity({"a": [NAN, NAN]}, {"a": [NAN, NAN]}).refuse_if_apart("fp32")


def test_figures_for_the_metadata_average_classes_in_a_case_and_then_cases():
    told = _parity({"a": [0.5, 0.7], "b": [0.9, NAN]}, {"a": [0.4, 0.8], "b": [1.0, NAN]}).to_json()
    assert told["artefact"] == pytest.approx(0.8)
    assert told["checkpoint"] == pytest.approx(0.75)
    assert told["per_class"] == {"liver": pytest.approx(0.7), "spleen": pytest.approx(0.8)}
    assert told["per_case"]["b"] == {"liver": 1.0, "spleen": None}
