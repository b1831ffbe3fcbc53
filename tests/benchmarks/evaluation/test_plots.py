"""The choice of the cases whose outlines are drawn."""

from attunet.benchmarks.evaluation.plots import _cases_to_show


def test_an_organ_that_a_case_does_not_have_makes_it_no_worst_case() -> None:
    dice = {f"case{number}": {"liver": number / 10, "spleen": number / 10} for number in range(1, 7)}
    dice["without a spleen"] = {"liver": 0.65, "spleen": None}
    shown = _cases_to_show({"models": [{"dice": {"per_case": dice}}]})
    assert shown == ["case1", "case2", "case4", "without a spleen"]
