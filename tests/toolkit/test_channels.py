import pytest

from attunet.channels import are_distinct, check_channels, order_of
from attunet.errors import InputError


def test_the_order_is_found_in_any_case_of_letters() -> None:
    assert order_of(["FLAIR", "t1", "T2"], ["T2", "T1"]) == [2, 1]
    assert order_of(["t1", "adc"], ["t2", "t1"]) is None
    assert order_of(["t1", "T1", "t2"], ["t2", "t1"]) is None
    assert are_distinct(["t1", "t1ce"])
    assert not are_distinct(["t1", "T1 "])


@pytest.mark.parametrize("there", [["t1", "t2"], ["adc", "dwi"], ["t2", "t1", "adc"]], ids=" ".join)
def test_a_store_of_other_channels_or_another_order_is_refused(there: list[str]) -> None:
    with pytest.raises(InputError, match=r"^m\.onnx: needs the channels t2, t1, and store has .*--images t2,t1"):
        check_channels("m.onnx", ["t2", "t1"], "store", there)


@pytest.mark.parametrize(
    ("needed", "there"),
    [(["t2", "t1"], ["T2", "t1"]), ([], ["t1", "t2"]), (["t2", "t1"], []), (["CT"], ["MRI"])],
    ids=["capitals", "model unknown", "store unknown", "one channel"],
)
def test_unknown_names_and_a_single_channel_fit(needed: list[str], there: list[str]) -> None:
    check_channels("m.onnx", needed, "store", there)
