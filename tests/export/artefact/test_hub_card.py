"""The model card has the Hub's metadata block, and says what the artefact says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attunet.export.artefact.hub_card import hub_card
from attunet.export.runtime.segmenter import Segmenter
from attunet.system.atomic_files import sha256

DICE = {
    "cases": "held out",
    "artefact": 0.9,
    "checkpoint": 0.9,
    "per_class": {"liver": 0.95, "right kidney": 0.85, "left kidney": None, "spleen": 0.9},
    "ci95": [0.91, 0.94],
    "per_case": {
        f"case-{n}": {"liver": 0.9 + 0.01 * n, "right kidney": None, "left kidney": None, "spleen": 0.9}
        for n in range(6)
    },
}


@pytest.fixture
def card_of(save_artefact: Callable[..., Path]) -> Callable[..., str]:
    return lambda **changes: hub_card(save_artefact(**{"dice_at_export": DICE, **changes}))


def test_metadata_block_is_yaml_that_the_hub_knows(card_of: Callable[..., str]) -> None:
    yaml = pytest.importorskip("yaml")
    text = card_of(license='CC-BY "4.0": free', name="a: #b")
    assert text.startswith("---\n")
    block = yaml.safe_load(text.split("---\n")[1])
    assert block["library_name"] == "attunet"
    assert block["pipeline_tag"] == "image-segmentation"
    assert block["license_name"] == 'CC-BY "4.0": free'
    (result,) = block["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "dice", "value": 0.9, "name": "mean Dice"}]
    assert block["model-index"][0]["name"] == "a: #b"


def test_card_has_use_data_dice_and_limits(card_of: Callable[..., str]) -> None:
    text = card_of()
    for words in (
        "Not a medical device",
        "attunet predict model.onnx",
        "| liver | 0.950 |",
        "| left kidney | none |",
        "95 % interval over patients 0.910 to 0.940",
        "## Limits",
    ):
        assert words in text


def test_cases_without_a_score_are_none_of_those_of_the_mean(card_of: Callable[..., str]) -> None:
    unscored = {"case-6": dict.fromkeys(DICE["per_class"])}
    text = card_of(dice_at_export=DICE | {"per_case": DICE["per_case"] | unscored})
    assert "Dice on held-out cases (6 in all)" in text
    assert "The scored cases (6 in all)" in text
    assert "0.9000 on 6 cases left out of training" in text


def test_few_patients_have_no_interval(card_of: Callable[..., str]) -> None:
    older = {key: value for key, value in DICE.items() if key != "ci95"}
    assert "its interval is not known" in card_of(dice_at_export=older)
    assert "too few patients for an interval" in card_of(dice_at_export=DICE | {"ci95": None})


def test_scores_of_training_cases_are_called_so(card_of: Callable[..., str]) -> None:
    text = card_of(dice_at_export=DICE | {"cases": "training"}, fold="all")
    assert "TRAINING cases" in text
    assert "fold held out: none." in text


def test_a_stranger_s_names_cannot_break_out_of_the_page(card_of: Callable[..., str]) -> None:
    text = card_of(name="a\n---\n<script>", license="x\n---")
    assert text.count("\n---\n") == 1


def test_a_card_takes_no_other_file_s_place(attunet: Callable[..., Any], artefact: Path, tmp_path: Path) -> None:
    before = artefact.read_bytes()
    done = attunet("card", artefact, "-o", artefact)
    assert (done.code, done.err) == (2, f"error: {artefact}: must be a file name that ends in .md\n")
    assert artefact.read_bytes() == before
    assert attunet("card", artefact, "-o", tmp_path / "README.md").code == 0


def test_a_snapshot_that_the_hub_s_tools_left_is_loaded_and_described(artefact: Path, tmp_path: Path) -> None:
    """Their cache keeps files under their hashes, and a snapshot's files are relative links to them."""
    blob, snapshot = tmp_path / "blobs" / sha256(artefact), tmp_path / "snapshots/1f2e3d/model.onnx"
    for path in (blob, snapshot):
        path.parent.mkdir(parents=True)
    blob.write_bytes(artefact.read_bytes())
    snapshot.symlink_to(Path("../../blobs", blob.name))
    assert Segmenter(snapshot, num_threads=1).sha256 == blob.name
    assert "attunet predict model.onnx" in hub_card(snapshot)
