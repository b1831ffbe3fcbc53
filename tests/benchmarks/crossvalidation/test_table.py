"""The table of a cross-validation on scores whose answer is known."""

from pathlib import Path

import numpy as np
import pytest

from attunet.benchmarks.crossvalidation.held_out import METRICS, HeldOut
from attunet.benchmarks.crossvalidation.results_table import _significance
from attunet.benchmarks.crossvalidation.table import Method, compare_methods, method_row, methods_of, pairs_to_compare
from attunet.benchmarks.crossvalidation.time_to_accuracy import accuracy_curve, time_row
from attunet.plots.folds import draw_cases, draw_differences
from attunet.volumes.spec import LARGEST, UNTOUCHED, Postprocessing

PATIENTS = {f"case{i}": f"p{i}" for i in range(8)}


def held(**dice: float) -> HeldOut:
    """Of each case the Dice of two classes: the given one, and 0.1 above it. Every other metric is 1 - Dice."""
    scores = {
        case: {
            m: {c: v if m == "dice" else 1 - v for c, v in (("liver", value), ("spleen", value + 0.1))} for m in METRICS
        }
        for case, value in dice.items()
    }
    return HeldOut(Path("run"), {UNTOUCHED.words: scores})


def method_of(model: str, runs: dict[tuple[int, int], HeldOut]) -> Method:
    return Method(model, "default", model, UNTOUCHED, True, runs)


def method(model: str, values: np.ndarray) -> Method:
    """values: (seeds, 8)."""
    runs = {(s, f): held(**{f"case{f}": v}) for s, row in enumerate(values) for f, v in enumerate(row)}
    return method_of(model, runs)


def test_seeds_are_averaged_before_cases() -> None:
    first = {(0, 0): held(case0=0.6, case1=0.7), (1, 0): held(case0=0.8, case1=0.7)}
    row = method_row(method_of("unet", {**first, (0, 1): held(case2=0.1)}), PATIENTS, time_row([]))
    dice = row["scores"]["dice"]
    assert dice["mean"] == pytest.approx(np.mean([0.75, 0.75, 0.15]))
    assert dice["median"] == pytest.approx(0.75)
    assert dice["worst"] == {"case": "case2", "value": pytest.approx(0.15)}
    assert dice["per_class"] == {"liver": pytest.approx(0.5), "spleen": pytest.approx(0.6)}
    assert dice["per_class_worst"] == {"liver": 0.1, "spleen": pytest.approx(0.2)}
    assert dice["per_seed"] == {"0": pytest.approx(np.mean([0.65, 0.75, 0.15])), "1": pytest.approx(0.8)}
    assert dice["ci95"] is None
    # The largest distance
    assert row["scores"]["hd95_mm"]["worst"]["case"] == "case2"
    assert row["worst_organ"] == {"seed": 0, "fold": 1, "case": "case2", "class": "liver", "dice": 0.1}


def test_a_class_may_be_called_mean(tmp_path: Path) -> None:
    scores = {"case0": {m: {"mean": 0.2, "liver": 0.6} for m in METRICS}}
    run = HeldOut(Path("run"), {UNTOUCHED.words: scores})
    row = method_row(method_of("unet", {(0, 0): run}), PATIENTS, time_row([]))
    dice = row["scores"]["dice"]
    assert dice["per_case"] == {"case0": {"mean": 0.2, "liver": 0.6}}
    assert dice["per_case_mean"] == {"case0": pytest.approx(0.4)}
    assert draw_cases(tmp_path / "cases.png", [row]).is_file()


def test_a_case_without_a_dice_counts_in_no_mean_and_no_number() -> None:
    row = method_row(method_of("unet", {(0, 0): held(case0=0.6, case1=float("nan"))}), PATIENTS, time_row([]))
    assert row["num_cases"] == 1
    assert row["scores"]["dice"]["mean"] == pytest.approx(0.65)


def test_a_comparison_pairs_what_both_have() -> None:
    """The missing run of the second method was the first's best: a difference of unpaired means would be wrong."""
    values = np.random.default_rng(0).uniform(0.3, 0.8, (2, 8))
    first, second = method("a", values), method("b", values + 0.02)
    del second.runs[1, int(values[1].argmax())]
    found = compare_methods(first, second, PATIENTS)
    assert found["dice"]["mean"] == pytest.approx(0.02)
    assert list(found["dice"]["per_patient"].values()) == pytest.approx([0.02] * 8)
    assert found["per_class"]["liver"]["mean"] == pytest.approx(0.02)
    assert found["dice"]["p_value"] == 2 / 256
    assert "The data show that b is better than a" in found["words"]


def test_rows_without_a_common_case_are_drawn(tmp_path: Path) -> None:
    first, second = method_of("a", {(0, 0): held(case0=0.6)}), method_of("b", {(0, 1): held(case1=0.6)})
    found = compare_methods(first, second, PATIENTS)
    assert found["words"] == "b and a share no patient to be compared on."
    assert draw_differences(tmp_path / "differences.png", [found]).stat().st_size


def test_what_the_test_can_reach_is_said_of_comparisons_that_were_tested() -> None:
    values = np.random.default_rng(0).uniform(0.3, 0.8, (1, 8))
    alike = compare_methods(method("a", values), method("b", values + 0.1), PATIENTS)
    few = compare_methods(method("a", values), method_of("c", {(0, 0): held(case0=0.6)}), PATIENTS)
    notes = "\n".join(_significance({"comparisons": [alike, few]}))
    assert "With 8 patients the sign-flip test cannot give less than p = 0.00781." in notes
    assert "Bonferroni" not in notes  # one test alone
    assert "sign-flip" not in "\n".join(_significance({"comparisons": [few]}))


def test_no_difference_is_called_one() -> None:
    rng = np.random.default_rng(1)
    base = rng.uniform(0.7, 0.9, 8)
    first, second = (method(name, base + rng.normal(0, 0.02, (2, 8))) for name in "ab")
    found = compare_methods(first, second, PATIENTS)
    assert "do not show a difference" in found["words"]


def test_networks_are_compared_within_recipes_and_recipes_within_networks() -> None:
    runs = {
        (recipe, model, 0, 0): held(case0=0.5) for recipe in ("x", "y", "z") for model in ("unet", "attention_unet")
    }
    pairs = [
        (a.recipe + " " + a.model, b.recipe + " " + b.model) for a, b in pairs_to_compare(methods_of(runs, [UNTOUCHED]))
    ]
    assert pairs[:3] == [(f"{r} unet", f"{r} attention_unet") for r in "xyz"]
    assert sorted(pairs[3:]) == sorted((f"x {m}", f"{r} {m}") for m in ("unet", "attention_unet") for r in "yz")


@pytest.mark.parametrize(
    "postprocessings", [[UNTOUCHED, LARGEST], [LARGEST, UNTOUCHED], [Postprocessing(True, 6.0), LARGEST]]
)
def test_the_configured_way_is_compared_and_the_other_one_shown_beside_it(
    postprocessings: list[Postprocessing],
) -> None:
    simple, other = sorted(postprocessings)
    scores = {
        postprocessing.words: held(case0=value).scores[UNTOUCHED.words]
        for postprocessing, value in ((simple, 0.5), (other, 0.7))
    }
    runs = {("x", model, 0, 0): HeldOut(Path("run"), scores) for model in ("unet", "attention_unet")}
    methods = methods_of(runs, postprocessings)
    names = [method.name for method in methods[:3]]
    assert names == ["unet", "attention_unet", f"unet, {postprocessings[1].words}"]
    pairs = [(a.model, a.postprocessing, b.model, b.postprocessing) for a, b in pairs_to_compare(methods)]
    assert pairs[0] == ("unet", postprocessings[0], "attention_unet", postprocessings[0])
    assert pairs[1:] == [(model, simple, model, other) for model in ("unet", "attention_unet")]
    words = compare_methods(methods[0], methods[2], PATIENTS)
    assert words["dice"]["mean"] == pytest.approx(0.2 if postprocessings[0] == simple else -0.2)


def test_time_to_accuracy_goes_on_where_a_training_was_continued() -> None:
    def row(seconds: float, dice: float) -> dict:
        return {"event": "validation", "seconds": seconds, "dice": {"mean": dice}}

    rows = [row(60, 0.5), {"event": "train", "seconds": 120.0}, row(60, 0.81), row(120, 0.84), row(180, 0.86)]
    minutes, dice = accuracy_curve(rows)
    assert minutes.tolist() == [1, 3, 4, 5]  # two minutes, and three after the start that followed
    assert dice.tolist() == [0.5, 0.81, 0.84, 0.86]
    found = time_row([rows])["minutes_to"]
    assert found["0.85"] == pytest.approx(4.5)
    assert found["0.80"] == pytest.approx(1 + 2 * 0.30 / 0.31)
    assert found["0.90"] is None
