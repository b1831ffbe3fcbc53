"""Intervals and comparisons on data whose answer is known."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from attunet.metrics import significance
from attunet.metrics.significance import EXACT_UP_TO, bootstrap_interval, compare_paired, permutation_p_value

PATIENTS = {f"c{i}": f"p{i}" for i in range(40)}


def scores(values: np.ndarray) -> dict[str, float]:
    return {f"c{i}": float(v) for i, v in enumerate(values)}


@pytest.mark.parametrize(("n", "lowest", "highest"), [(5, 0.90, 0.94), (6, 0.91, 0.95), (30, 0.93, 0.97)])
def test_bootstrap_interval_covers_the_mean_nearly_as_often_as_it_says(n: int, lowest: float, highest: float) -> None:
    samples = np.random.default_rng(0).normal(0.9, 0.05, (1000, n))
    intervals = [bootstrap_interval(s, draws=2000, seed=i) for i, s in enumerate(samples)]
    covered = np.mean([i is not None and i[0] <= 0.9 <= i[1] for i in intervals])
    assert lowest <= covered <= highest


def test_bootstrap_interval_matches_the_textbook_width() -> None:
    values = np.random.default_rng(1).normal(0, 1, 200)
    interval = bootstrap_interval(values)
    assert interval is not None
    half_width = 1.96 * values.std() / np.sqrt(200)
    np.testing.assert_allclose(interval, [values.mean() - half_width, values.mean() + half_width], atol=0.015)


def test_under_five_patients_there_is_no_interval_and_no_test() -> None:
    assert bootstrap_interval(np.array([0.9, 0.8, 0.7, 0.6])) is None
    comparison = compare_paired(scores(np.ones(4)), scores(np.zeros(4)), PATIENTS, names=("a", "b"))
    assert comparison.ci95 is None
    assert comparison.p_value is None
    assert "says nothing about other patients" in comparison.words


def test_permutation_test_is_exact_for_few_patients() -> None:
    assert permutation_p_value(np.array([0.01, 0.02, 0.03, 0.01, 0.05, 0.02])) == 2 / 64
    assert permutation_p_value(np.array([1.0, 2.0, -3.0])) == 1
    assert permutation_p_value(np.array([3.0, 2.0, -1.0])) == 4 / 8  # 6, 4 and their mirrors reach |4|
    assert permutation_p_value(np.zeros(6)) == 1


def test_permutation_test_rejects_as_often_as_it_says_when_nothing_differs() -> None:
    rng = np.random.default_rng(2)
    for n in (8, 25):  # enumerated, and drawn
        p = [permutation_p_value(rng.normal(0, 1, n), draws=500, seed=i) for i in range(400)]
        assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.085


@pytest.mark.parametrize("n", [6, 30])
def test_intervals_and_tests_are_the_same_whatever_memory_holds_at_once(n: int, monkeypatch) -> None:
    values = np.random.default_rng(5).normal(0.01, 0.05, n)
    expected = bootstrap_interval(values), permutation_p_value(values)
    for at_once in (33 * n, 999 * n):
        monkeypatch.setattr(significance, "VALUES_AT_ONCE", at_once)
        assert (bootstrap_interval(values), permutation_p_value(values)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("compute", [bootstrap_interval, permutation_p_value])
def test_thousands_of_patients_need_little_memory(compute: Callable[..., object]) -> None:
    values = np.random.default_rng(6).normal(0.01, 1, 5000)
    tracemalloc.start()
    try:
        assert compute(values, draws=3000)
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("gain", "sentence"), [(0.03, "The data show that b is better than a"), (-0.03, "a is better than b")]
)
def test_a_real_difference_is_shown(gain: float, sentence: str) -> None:
    rng = np.random.default_rng(3)
    first = rng.normal(0.85, 0.05, 12)  # patients differ by more than the models do: only pairing shows it
    comparison = compare_paired(scores(first), scores(first + rng.normal(gain, 0.01, 12)), PATIENTS, names=("a", "b"))
    assert comparison.difference == pytest.approx(gain, abs=0.01)
    assert comparison.ci95 is not None
    assert comparison.ci95[0] < gain < comparison.ci95[1]
    assert sentence in comparison.words


def test_no_difference_is_not_sold_as_one_nor_as_equality() -> None:
    rng = np.random.default_rng(4)
    first = rng.normal(0.85, 0.05, 12)
    comparison = compare_paired(scores(first), scores(first + rng.normal(0, 0.02, 12)), PATIENTS, names=("a", "b"))
    assert "do not show a difference; nor do they show that there is none" in comparison.words


def test_five_patients_cannot_settle_it_by_the_test() -> None:
    comparison = compare_paired(scores(np.full(5, 0.8)), scores(np.linspace(0.81, 0.85, 5)), PATIENTS, names=("a", "b"))
    assert comparison.p_value == comparison.smallest_p_value == 1 / 16
    assert "do not decide it" in comparison.words
    assert "cannot go below 0.0625" in comparison.words


@pytest.mark.parametrize("n", [6, EXACT_UP_TO, 30])  # enumerated, and drawn
def test_the_smallest_p_value_is_what_the_test_gives_where_all_differ_the_same_way(n: int) -> None:
    comparison = compare_paired(scores(np.full(n, 0.8)), scores(np.full(n, 0.9)), PATIENTS, names=("a", "b"))
    assert comparison.p_value == comparison.smallest_p_value


def test_drawn_sign_patterns_begin_above_sixteen_patients() -> None:
    comparison = compare_paired(scores(np.full(17, 0.8)), scores(np.full(17, 0.9)), PATIENTS, names=("a", "b"))
    assert comparison.smallest_p_value == 1 / 20_001


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"c0": 0.5, "c1": 0.7, "c2": float("nan")}, {"c1": 0.8, "c2": 0.9}),
        ({"c0": None, "c1": 0.7, "c2": 0.5}, {"c0": 0.8, "c1": 0.8, "c2": None}),  # as in results.json
    ],
)
def test_only_cases_that_both_have_are_compared(first: dict, second: dict) -> None:
    comparison = compare_paired(first, second, PATIENTS, names=("a", "b"))
    assert comparison.num_patients == 1
    assert comparison.difference == pytest.approx(0.1)
