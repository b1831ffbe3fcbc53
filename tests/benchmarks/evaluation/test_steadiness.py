"""The measure of post-processing under disturbed logits."""

from attunet.benchmarks.evaluation.steadiness import NOISE, SETTINGS, measure


def test_cutting_necks_gains_dice_and_costs_steadiness() -> None:
    rows = {(row["postprocessing"], row["noise"]): row for row in measure(2, 2)}
    assert len(rows) == len(SETTINGS) * len(NOISE)
    untouched, largest, cut = (rows[how.words, NOISE[0]] for how in SETTINGS)
    assert untouched["dice"] <= largest["dice"] < cut["dice"], (
        "most false pieces are joined, so that only the cut removes them"
    )
    for how in SETTINGS:
        spreads = [rows[how.words, level]["mean_spread"] for level in NOISE]
        assert spreads[0] <= spreads[-1]
        assert all(row["mean_spread"] <= row["max_spread"] for row in rows.values())
