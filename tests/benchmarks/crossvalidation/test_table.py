"""The table of a cross-validation on scores whose answer is known."""

from pathlib import Path

import numpy as np
import pytest

from attunet.benchmarks.crossvalidation.held_out import METRICS, HeldOut
from attunet.benchmarks.crossvalidation.report import _words
from attunet.benchmarks.crossvalidation.table import Arm, arm_row, arms_of, compare_arms, pairs_to_compare
from attunet.benchmarks.crossvalidation.time_to_accuracy import accuracy_curve, time_row
from attunet.plots.folds import draw_differences
from attunet.volumes.spec import LARGEST, UNTOUCHED, Postprocessing

PATIENTS = {f"case{i}": f"p{i}" for i in range(8)}


def held(**dice: float) -> HeldOut:
    """Of each case the Dice of two classes: the given one, and 0.1 above it. Every other metric is 1 - Dice."""
    scores = {
        case: {m: {c: v if m == "dice" else 1 - v for c, v in (("liver", value), ("spleen", value + 0.1))} for m in METRICS}
        for case, value in dice.items()
    }
    return HeldOut(Path("run"), 1, {UNTOUCHED.words: scores})


def arm(model: str, values: np.ndarray) -> Arm:
    """values: (seeds, 8)."""
    return Arm("default", model, runs={(s, f): held(**{f"case{f}": v}) for s, row in enumerate(values) for f, v in enumerate(row)})


def test_seeds_are_averaged_before_cases() -> None:
    one = Arm("default", "unet", runs={(0, 0): held(case0=0.6, case1=0.7), (1, 0): held(case0=0.8, case1=0.7), (0, 1): held(case2=0.1)})
    dice = arm_row(one, "unet", PATIENTS)["scores"]["dice"]
    assert dice["mean"] == pytest.approx(np.mean([0.75, 0.75, 0.15]))
    assert dice["median"] == pytest.approx(0.75)
    assert dice["worst"] == {"case": "case2", "value": pytest.approx(0.15)}
    assert dice["per_class"] == {"liver": pytest.approx(0.5), "spleen": pytest.approx(0.6)}
    assert dice["per_class_worst"] == {"liver": 0.1, "spleen": pytest.approx(0.2)}
    assert dice["per_seed"] == {"0": pytest.approx(np.mean([0.65, 0.75, 0.15])), "1": pytest.approx(0.8)}
    assert dice["ci95"] is None
    assert arm_row(one, "unet", PATIENTS)["scores"]["hd95_mm"]["worst"]["case"] == "case2"  # the largest distance


def test_a_comparison_pairs_what_both_have() -> None:
    """The missing run of the second arm was the first's best: a difference of unpaired means would be wrong."""
    values = np.random.default_rng(0).uniform(0.3, 0.8, (2, 8))
    first, second = arm("unet", values), arm("attention_unet", values + 0.02)
    del second.runs[1, int(values[1].argmax())]
    found = compare_arms(first, second, ("a", "b"), PATIENTS)
    assert found["dice"]["mean"] == pytest.approx(0.02)
    assert list(found["dice"]["per_patient"].values()) == pytest.approx([0.02] * 8)
    assert found["per_class"]["liver"]["mean"] == pytest.approx(0.02)
    assert found["dice"]["p_value"] == 2 / 256
    assert "The data show that b is better than a" in found["words"]


def test_rows_without_a_common_case_are_drawn(tmp_path: Path) -> None:
    first = Arm("default", "a", runs={(0, 0): held(case0=0.6)})
    found = compare_arms(first, Arm("default", "b", runs={(0, 1): held(case1=0.6)}), ("a", "b"), PATIENTS)
    assert found["words"] == "b and a share no patient to be compared on."
    assert draw_differences(tmp_path / "differences.png", [found]).stat().st_size


def test_what_the_test_can_reach_is_said_of_comparisons_that_were_tested() -> None:
    values = np.random.default_rng(0).uniform(0.3, 0.8, (1, 8))
    alike = compare_arms(arm("a", values), arm("b", values + 0.1), ("a", "b"), PATIENTS)
    few = compare_arms(arm("a", values), Arm("default", "c", runs={(0, 0): held(case0=0.6)}), ("a", "c"), PATIENTS)
    notes = "\n".join(_words({"comparisons": [alike, few]}))
    assert "With 8 patients the sign-flip test cannot give less than p = 0.00781." in notes
    assert "Bonferroni" not in notes  # one test alone
    assert "sign-flip" not in "\n".join(_words({"comparisons": [few]}))


def test_no_difference_is_called_one() -> None:
    rng = np.random.default_rng(1)
    base = rng.uniform(0.7, 0.9, 8)
    found = compare_arms(arm("a", base + rng.normal(0, 0.02, (2, 8))), arm("b", base + rng.normal(0, 0.02, (2, 8))), ("a", "b"), PATIENTS)
    assert "do not show a difference" in found["words"]


def test_networks_are_compared_within_recipes_and_recipes_within_networks() -> None:
    runs = {(recipe, model, 0, 0): held(case0=0.5) for recipe in ("x", "y", "z") for model in ("unet", "attention_unet")}
    pairs = [(a.recipe + " " + a.model, b.recipe + " " + b.model) for a, b in pairs_to_compare(arms_of(runs, [UNTOUCHED]))]
    assert pairs[:3] == [(f"{r} unet", f"{r} attention_unet") for r in "xyz"]
    assert sorted(pairs[3:]) == sorted((f"x {m}", f"{r} {m}") for m in ("unet", "attention_unet") for r in "yz")


@pytest.mark.parametrize("ways", [[UNTOUCHED, LARGEST], [LARGEST, UNTOUCHED], [Postprocessing(True, 6.0), LARGEST]])
def test_the_configured_way_is_compared_and_the_other_one_shown_beside_it(ways: list[Postprocessing]) -> None:
    simple, other = sorted(ways)
    scores = {way.words: held(case0=value).scores[UNTOUCHED.words] for way, value in ((simple, 0.5), (other, 0.7))}
    runs = {("x", model, 0, 0): HeldOut(Path("run"), 1, scores) for model in ("unet", "attention_unet")}
    arms = arms_of(runs, ways)
    assert [arm.label(False) for arm in arms[:2]] == ["unet", "attention_unet"]
    assert arms[2].label(False) == f"unet, {ways[1].words}"
    pairs = [(a.model, a.way, b.model, b.way) for a, b in pairs_to_compare(arms)]
    assert pairs[0] == ("unet", ways[0], "attention_unet", ways[0])
    assert pairs[1:] == [(model, simple, model, other) for model in ("unet", "attention_unet")]
    words = compare_arms(arms[0], arms[2], ("a", "b"), PATIENTS)
    assert words["dice"]["mean"] == pytest.approx(0.2 if ways[0] == simple else -0.2)


def test_time_to_accuracy_goes_on_where_a_training_was_continued() -> None:
    def row(seconds: float, dice: float) -> dict:
        return {"event": "validation", "seconds": seconds, "dice": {"mean": dice}}

    rows = [row(60, 0.5), {"event": "train", "seconds": 120.0}, row(60, 0.85), row(120, 0.87), row(180, 0.89)]
    minutes, dice = accuracy_curve(rows)
    assert minutes.tolist() == [1, 3, 4, 5]  # two minutes, and three after the start that followed
    assert dice.tolist() == [0.5, 0.85, 0.87, 0.89]
    found = time_row([rows])["minutes_to"]
    assert found["0.86"] == pytest.approx(3.5)
    assert found["0.88"] == pytest.approx(4.5)
    assert found["0.90"] is None
