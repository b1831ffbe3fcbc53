"""The fit: it follows features that say something, ranges hold what they promise, and few patients are not enough."""

import dataclasses
import json
import math

import numpy as np
import pytest

from attunet.confidence.estimator import MIN_PATIENTS, Estimator, LearnedCase, learn
from attunet.confidence.features import CaseFeatures, OrganFeatures
from attunet.confidence.fit import NAMES, range_of_residuals
from attunet.errors import Finding, InputError
from attunet.evaluate_case import LabelledCase, ObservedEvaluation
from attunet.fields import Fields
from attunet.volumes.spec import UNTOUCHED
from attunet.volumes.volume import Volume

ORGANS = ("liver", "spleen")


def features_of(badness: float, rng: np.random.Generator) -> OrganFeatures:
    """badness: 1 - Dice that the entropy shows; the other features are noise."""
    return OrganFeatures(
        size=1e6 * math.exp(rng.normal(0, 0.1)),
        parts=int(rng.integers(1, 4)),
        largest_part=float(rng.uniform(0.95, 1)),
        expected_dice=float(rng.uniform(0.9, 0.95)),
        entropy=min(1.0, badness),
        margin=float(rng.uniform(0.8, 0.9)),
    )


def cases_of(patients: int, seed: int = 0, noise: float = 0.1) -> list[LearnedCase]:
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(patients):
        bad = np.exp(rng.uniform(np.log(0.03), np.log(0.4), len(ORGANS)))
        organs = tuple(features_of(float(b), rng) for b in bad)
        dice = tuple(float(1 - min(0.9, b * math.exp(rng.normal(0, noise)))) for b in bad)
        features = CaseFeatures(organs, float(rng.uniform(0, 1)))
        cases.append(LearnedCase(f"patient-{number}", features, dice, (True, True)))
    return cases


def test_estimates_follow_the_feature_that_says_something() -> None:
    estimator = learn(cases_of(20))
    assert estimator.fit is not None
    assert estimator.check is not None
    assert NAMES[int(np.argmax(estimator.fit.weights))] == "entropy"
    assert estimator.check.correlation is not None
    assert estimator.check.correlation > 0.9
    assert estimator.check.mean_error < estimator.check.mean_error_without / 2
    new = cases_of(40, seed=1)
    estimates = [estimator.estimate(case.features, ORGANS) for case in new]
    pairs = [
        (case.dice[i], one.organs[name])
        for case, one in zip(new, estimates, strict=True)
        for i, name in enumerate(ORGANS)
    ]
    assert np.corrcoef([d for d, _ in pairs], [organ.dice for _, organ in pairs])[0, 1] > 0.9
    held = np.mean([organ.low <= dice <= organ.high for dice, organ in pairs])
    assert 0.7 <= held <= 0.95


def test_ranges_hold_their_share_of_patients_left_out() -> None:
    checks = [learn(cases_of(20, seed, noise=0.4)).check for seed in range(5)]
    assert 0.72 <= np.mean([check.coverage for check in checks if check]) <= 0.92


def test_features_without_meaning_give_no_better_error_than_the_mean() -> None:
    cases = cases_of(20)
    rng = np.random.default_rng(5)
    shuffled = [dataclasses.replace(case, dice=tuple(rng.permutation([c.dice for c in cases])[0])) for case in cases]
    check = learn(shuffled).check
    assert check is not None
    assert check.mean_error > 0.8 * check.mean_error_without


def test_worse_features_never_raise_an_estimate() -> None:
    estimator, case = learn(cases_of(20)), cases_of(1, seed=3)[0]
    organ = case.features.organs[0]
    assert organ is not None

    def estimate(**changes: float) -> float:
        changed = CaseFeatures((dataclasses.replace(organ, **changes), case.features.organs[1]), case.features.distance)
        dice = estimator.estimate(changed, ORGANS).organs["liver"].dice
        assert dice is not None
        return dice

    base = estimate()
    for change in (
        {"entropy": 1.0},
        {"margin": 0.0},
        {"parts": 50},
        {"largest_part": 0.1},
        {"expected_dice": 0.0},
        {"size": 1e12},
    ):
        assert estimate(**change) <= base


def test_estimates_are_not_extrapolated_to_scans_outside_of_the_trainings_ranges() -> None:
    estimator, case = learn(cases_of(20)), cases_of(1, seed=3)[0]
    inside, edge, far = (
        estimator.estimate(dataclasses.replace(case.features, distance=distance), ORGANS).organs["liver"].dice
        for distance in (0.2, 1.0, 5.0)
    )
    assert edge == far
    assert edge is not None
    assert inside is not None
    assert edge <= inside


def test_the_threshold_of_very_good_cases_is_below_one() -> None:
    cases = [dataclasses.replace(case, dice=(0.996, 0.998)) for case in cases_of(12)]
    assert learn(cases).threshold == 0.99


def test_few_patients_cannot_tell() -> None:
    estimator = learn(cases_of(MIN_PATIENTS - 1))
    assert estimator.fit is None
    record = estimator.estimate(cases_of(1)[0].features, ORGANS)
    assert record.to_json()["organs"] == {}
    assert record.reasons == (
        f"cannot tell: it was learned on {MIN_PATIENTS - 1} patients, at least {MIN_PATIENTS} are needed",
    )
    assert not record.review
    assert "cannot tell" in estimator.describe()
    many_scans_of_few = [dataclasses.replace(case, patient=f"{i % 3}") for i, case in enumerate(cases_of(30))]
    assert learn(many_scans_of_few).fit is None


def test_an_organ_that_few_cases_have_has_no_estimate() -> None:
    cases = cases_of(20)
    rare = [
        dataclasses.replace(case, dice=(case.dice[0], None if i > 3 else case.dice[1])) for i, case in enumerate(cases)
    ]
    record = learn(rare).estimate(cases[0].features, ORGANS)
    assert record.organs["liver"].dice is not None
    assert record.organs["spleen"].dice is None
    assert "too few" in record.organs["spleen"].reason
    assert not record.organs["spleen"].review


def test_poor_estimates_missing_organs_and_strange_scans_are_marked() -> None:
    estimator, rng = learn(cases_of(20)), np.random.default_rng(0)
    good, poor = features_of(0.03, rng), features_of(0.9, rng)
    assert not estimator.estimate(CaseFeatures((good, good), 0.2), ORGANS).review
    marked = estimator.estimate(CaseFeatures((good, poor), 0.2), ORGANS)
    assert marked.review
    assert [organ.review for organ in marked.organs.values()] == [False, True]
    assert marked.reasons[0].startswith("spleen: estimated Dice 0.")
    assert estimator.estimate(CaseFeatures((good, None), 0.2), ORGANS).organs["spleen"].review
    assert estimator.estimate(CaseFeatures((good, good), 0.2), ORGANS, threshold=0.999).review
    strange = Finding(None, "untrained-spacing", 9.0, "warning", "spacing is 9")
    assert estimator.estimate(CaseFeatures((good, good), 0.2), ORGANS, [strange]).reasons == ("spacing is 9",)


@pytest.mark.parametrize(
    ("had", "is_marked"),
    [((True,), True), ((None, True), True), ((False, True), False), ((None,), False), ((None, False, True), False)],
)
def test_a_missing_organ_is_marked_where_no_case_in_which_it_was_drawn_lacked_it(
    had: tuple[bool | None, ...], is_marked: bool
) -> None:
    """A prediction of what the reference lacks has the Dice 0, and a Dice is no sign of having it."""
    cases = [dataclasses.replace(case, had=(True, had[i % len(had)])) for i, case in enumerate(cases_of(20))]
    record = learn(cases).estimate(CaseFeatures((cases[0].features.organs[0], None), 0.2), ORGANS)
    assert record.organs["spleen"].review == is_marked


def test_a_case_says_what_its_reference_has() -> None:
    volume = Volume(np.zeros((1, 3, 4, 5), dtype=np.float32), np.eye(4))
    truth = np.zeros(volume.data.shape[1:], dtype=np.uint8)
    truth[0] = 1
    case = LabelledCase("case", volume, truth, np.array([True, True, True, False]))
    features = CaseFeatures((None, None, None), 0.0)
    observed = ObservedEvaluation(case, np.full_like(truth, 2), UNTOUCHED, features, None).learned("p", UNTOUCHED)
    assert observed.dice == (0.0, 0.0, None)
    assert observed.had == (True, False, None)
    again = LearnedCase.from_json(Fields(json.loads(json.dumps(observed.to_json())), "file"), 3)
    assert again.to_json() == observed.to_json()


def test_the_estimator_survives_json_with_the_same_estimates() -> None:
    for estimator in (learn(cases_of(20)), learn(cases_of(4))):
        text = json.dumps(estimator.to_json(), allow_nan=False)
        again = Estimator.from_json(Fields(json.loads(text), "file"), len(ORGANS))
        case = cases_of(1, seed=9)[0]
        assert again.estimate(case.features, ORGANS) == estimator.estimate(case.features, ORGANS)
        assert again.to_json() == estimator.to_json()


@pytest.mark.parametrize("field", ["fit", "residuals", "check", "threshold", "expected", "num_patients", "calibration"])
@pytest.mark.parametrize("value", [[], {}, "text", -5, True, {"weights": 1}])
def test_what_a_stranger_wrote_is_refused_with_one_line(field: str, value: object) -> None:
    data = {**learn(cases_of(12)).to_json(), field: value}
    with pytest.raises(InputError) as error:
        Estimator.from_json(Fields(data, "file"), len(ORGANS))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError):
        Estimator.from_json(Fields(learn(cases_of(12)).to_json(), "file"), 3)


def test_the_range_is_made_of_order_statistics() -> None:
    assert range_of_residuals(list(range(1, 10))) == (1.0, 9.0)
    assert range_of_residuals(list(range(1, 100))) == (10.0, 90.0)
