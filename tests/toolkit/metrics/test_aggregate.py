"""Means over classes, cases and patients, with scores that are not defined."""

import json

import numpy as np

from attunet.metrics.aggregate import case_means, mean, mean_of_defined, nan_to_null, per_patient, summarize

NAN = float("nan")
SCORES = {"a": np.array([0.8, NAN]), "b": np.array([0.6, 0.2]), "c": np.array([NAN, NAN])}


def test_values_that_are_not_defined_count_in_no_mean() -> None:
    values = np.array([[1.0, NAN], [3.0, NAN]])
    np.testing.assert_array_equal(mean_of_defined(values, axis=0), [2, NAN])
    assert mean_of_defined(values) == mean([1.0, 3.0, NAN]) == 2
    assert np.isnan(mean([]))


def test_classes_are_averaged_before_cases() -> None:
    np.testing.assert_allclose(list(case_means(SCORES).values()), [0.8, 0.4, NAN])
    # All three scores together would have a mean of 0.533
    np.testing.assert_allclose(summarize(SCORES, ("liver", "spleen"))["mean"], 0.6)


def test_cases_of_a_patient_count_once() -> None:
    values = {"a1": 0.0, "a2": 1.0, "a3": NAN, "b1": 0.9, "c1": NAN}
    assert per_patient(values, {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "c1": "c"}) == {"a": 0.5, "b": 0.9}


def test_a_summary_lists_excluded_cases_and_leaves_them_out_of_means() -> None:
    summary = nan_to_null(summarize(SCORES, ("liver", "spleen"), exclude=["a"]))
    assert summary == {
        "mean": 0.4,
        "per_class": {"liver": 0.6, "spleen": 0.2},
        "per_case": {
            case: {"liver": liver, "spleen": spleen}
            for case, liver, spleen in (("a", 0.8, None), ("b", 0.6, 0.2), ("c", None, None))
        },
    }
    assert nan_to_null(summarize({}, ("liver",))) == {"mean": None, "per_class": {"liver": None}, "per_case": {}}


def test_json_gets_null_for_what_is_not_a_number() -> None:
    values = {"a": (np.float32(0.5), NAN), "b": [{"c": float("inf"), "n": np.int64(3)}], "d": None, "e": "text"}
    assert json.loads(json.dumps(nan_to_null(values), allow_nan=False)) == {
        "a": [0.5, None],
        "b": [{"c": None, "n": 3}],
        "d": None,
        "e": "text",
    }
