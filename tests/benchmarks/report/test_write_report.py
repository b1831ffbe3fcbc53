"""What a report says and leaves out, and what is refused."""

import base64
import gzip
import io
import json
import logging
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attunet.benchmarks.evaluation.saved_cases import load_arrays
from attunet.benchmarks.evaluation.scores import SCORES
from attunet.benchmarks.report import bundles
from attunet.benchmarks.report.answer import answer
from attunet.benchmarks.report.case_data import case_data, choose_cases
from attunet.benchmarks.report.contents import ModelRow
from attunet.benchmarks.report.read_contents import _method_row, read_contents
from attunet.benchmarks.report.speed_figures import log_ticks
from attunet.benchmarks.report.tables import models_table, organs_table
from attunet.benchmarks.report.write_report import write_report, write_report_if_installed
from attunet.classes import CHAOS_MR
from attunet.errors import InputError

PATIENT = "DOE_JANE_19560803"  # of the folder of the source

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def edited(evaluation: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """A copy of the evaluation with changed results."""

    def edit(change: Edit) -> Path:
        folder = shutil.copytree(evaluation, tmp_path / "edited")
        results = json.loads((folder / "results.json").read_text())
        change(results)
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    return edit


def test_the_answer_names_the_best_model_with_its_interval_and_what_is_worst(evaluation: Path) -> None:
    contents = read_contents(evaluation)
    said = answer(contents)
    dice = contents.models[0].scores["dice"]
    assert said.headline == (
        f"right (numpy cpu) reaches a mean Dice of {dice['mean']:.3f} (95 % interval {dice['ci95'][0]:.3f} to "
        f"{dice['ci95'][1]:.3f})."
    )
    text = " ".join(said.lines)
    assert "5 cases that it was not trained on" in text
    assert "no liver (numpy cpu) differs from right (numpy cpu) by -0.2" in text
    assert f"its worst case {min(contents.cases, key=contents.models[0].case_mean)}" in text


def test_without_a_score_there_is_no_answer_but_a_report(edited: Callable[[Edit], Path]) -> None:
    def nothing_unseen(results: dict[str, Any]) -> None:
        for row in results["models"]:
            row["seen_cases"] = results["store"]["cases"]
            row["dice"] |= {"mean": None, "ci95": None, "per_class": dict.fromkeys(row["dice"]["per_class"])}
            row["confusion"] = [[0] * 5 for _ in range(5)]
        results["comparisons"] = []

    folder = edited(nothing_unseen)
    assert (
        answer(read_contents(folder)).headline == "No model has a case that it was not trained on: there is no score."
    )
    assert write_report(folder).stat().st_size > 1e6


def test_models_with_the_same_label_maps_are_named_once(edited: Callable[[Edit], Path]) -> None:
    folder = edited(lambda results: None)
    assert read_contents(folder).twins == {}
    for file in folder.glob("cases/*/prediction-0.npz"):
        shutil.copy(file, file.with_name("prediction-1.npz"))
    contents = read_contents(folder)
    assert contents.twins == {"no liver (numpy cpu)": "right (numpy cpu)"}
    assert "no liver (numpy cpu) gives the label maps of right (numpy cpu)." in answer(contents).lines


def test_neither_paths_nor_patients_reach_the_page(evaluation: Path, report: Path) -> None:
    page = re.sub(r'<script type="text/plain".*?</script>', "", report.read_text(encoding="utf-8"), flags=re.DOTALL)
    secrets = (PATIENT, "DOE", "JANE", str(evaluation.parent), str(Path.home()) + "/", "T2-src.nii")
    assert [secret for secret in secrets if secret in page] == []
    assert len(page) < 200_000
    volumes = case_data(read_contents(evaluation), "01-T2", 0).volumes.values()
    assert not any(b"DOE" in gzip.decompress(base64.b64decode(packed)) for packed in volumes)


def test_the_commands_begin_with_the_store_and_hide_the_names_of_its_source(evaluation: Path) -> None:
    """Each option of `attunet prepare` that is not the default comes back from the manifest."""
    first, last = read_contents(evaluation).commands
    assert first == (
        "attunet prepare SOURCE abdomen --set data.size=64 --set data.normalization=ct --set 'data.window=[0.0, "
        "1100.0]' --folds 3 --seed 0"
    )
    assert last.startswith("attunet evaluate abdomen ")


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((24.8, 40.0), "20 25 30 40 50"),
        ((24.8,), "20 25 30"),
        ((1.5, 90.0), "2 5 10 20 50 100"),
        ((0.2, 2000.0), "1 10 100 1000"),
    ],
)
def test_a_logarithmic_axis_has_whole_figures(values: tuple[float, ...], ticks: str) -> None:
    axis = log_ticks(values)
    assert " ".join(axis["ticktext"]) == ticks
    assert axis["tickvals"] == [pytest.approx(float(tick)) for tick in axis["ticktext"]]


def test_every_figure_of_the_table_says_how_it_was_got(evaluation: Path) -> None:
    table = models_table(read_contents(evaluation))
    assert all(cell.how for row in table.rows for cell in row[1:])
    assert [column.title for column in table.columns][:3] == ["Model", "Dice", "95 % interval"]


def test_cases_without_a_score_are_not_among_those_of_a_mean(edited: Callable[[Edit], Path]) -> None:
    """An empty mask, classes that were not drawn, a class that was not found."""

    def change(results: dict[str, Any]) -> None:
        row = results["models"][0]
        row["dice"]["per_case"]["01-T2"] = dict.fromkeys(row["dice"]["per_case"]["01-T2"])
        row["dice"]["per_case"]["02-T2"]["liver"] = None
        row["hd95_mm"]["per_case"]["03-T2"]["liver"] = None

    contents = read_contents(edited(change))
    assert answer(contents).lines[0].startswith("Measured on 4 cases that it was not trained on")
    _, dice, _, hd95, *_ = models_table(contents).rows[0]
    assert ["mean over 4 cases" in dice.how, "mean over 5 cases" in hd95.how] == [True, True]
    liver = next(row for row in organs_table(contents).rows if row[0].text == "liver")
    assert [cell.how.rpartition("; ")[2] for cell in liver[2:4]] == ["mean over 3 cases.", "mean over 4 cases."]


def test_names_from_strangers_stay_text(edited: Callable[[Edit], Path]) -> None:
    name = "</script><img src=x onerror=alert(1)>"

    def rename(results: dict[str, Any]) -> None:
        results["store"]["name"] = name
        results["store"]["classes"][1]["name"] = name
        for row in results["models"]:
            for metric in row.values():
                if isinstance(metric, dict) and "per_class" in metric:
                    metric["per_class"][name] = metric["per_class"].pop("liver")

    assert name not in write_report(edited(rename)).read_text(encoding="utf-8")


def test_the_cases_are_chosen_by_number_or_name(evaluation: Path) -> None:
    contents = read_contents(evaluation)
    means = [min(model.case_mean(case) for model in contents.models) for case in contents.cases]
    assert means == sorted(means)
    assert choose_cases(contents, "worst:2") == list(contents.cases[:2])
    assert choose_cases(contents, "all") == list(contents.cases)
    assert choose_cases(contents, "05-T2,01-T2") == ["05-T2", "01-T2"]
    for wrong, words in (("worst:x", "a number"), ("", "worst:N, all, or names"), ("05-T2,zebra", "no case 'zebra'")):
        with pytest.raises(InputError, match=words):
            choose_cases(contents, wrong)


def test_a_case_opens_where_most_is_wrong(evaluation: Path) -> None:
    contents = read_contents(evaluation)
    data = case_data(contents, "01-T2", 0)
    x, y, z = data.about["worst"]
    wrong = [sum(layer["wrong"][n] for layer in data.about["layers"]) for n in range(6)]
    assert wrong[z] == max(wrong) > 0
    assert data.about["layers"][0]["wrong"] != data.about["layers"][1]["wrong"]
    assert 0 < x < 48
    assert 0 < y < 40


def test_a_prediction_of_a_class_that_was_not_drawn_is_not_wrong(evaluation: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(evaluation, tmp_path / "partly")
    image, prediction = (folder / "cases/01-T2" / name for name in ("image.npz", "prediction-0.npz"))
    arrays = load_arrays(image)
    whole, hidden = arrays["truth"], int(arrays["truth"].max())
    np.savez(prediction, prediction=whole)
    np.savez(image, **{**arrays, "truth": np.where(whole == hidden, 0, whole)})
    layer, *_ = case_data(read_contents(folder), "01-T2", 0).about["layers"]
    assert sum(layer["wrong"]) == (whole == hidden).sum()
    np.savez(image, **{**arrays, "truth": np.where(whole == hidden, 0, whole), "undrawn": np.array([hidden])})
    about = case_data(read_contents(folder), "01-T2", 0).about
    assert sum(about["layers"][0]["wrong"]) == 0
    assert about["undrawn"] == [hidden]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda results: results.update(schema=99), "version must be 2, got 99"),
        (lambda results: results.pop("store"), "is damaged: KeyError 'store'"),
        (lambda results: results.update(models=3), "is damaged: TypeError"),
        (lambda results: results["store"].update(cases=["../../01-T2"]), "'../../01-T2' must be a plain file name"),
        (lambda results: results["models"][0]["dice"].update(per_class=3), "is damaged: "),
        (lambda results: results["models"][0]["dice"].update(mean=float("inf")), "is damaged: "),
        (lambda results: results["models"][0]["dice"].update(mean=5), "is damaged: dice cannot be 5"),
        (lambda results: results["models"][0]["dice"].update(ci95=[7.5, -3]), "ci95 must be two ascending numbers"),
        (lambda results: results["models"][0]["dice"].update(ci95=[0.5, 7.5]), "is damaged: dice cannot be 7.5"),
        (lambda results: results["models"][0]["surface_dice"]["per_class"].update(liver=-0.5), "cannot be -0.5"),
        (lambda results: results.update(environment=3), "is damaged: "),
        (lambda results: results["environment"].update(gpus=[3]), "is damaged: "),
    ],
)
def test_results_that_cannot_be_read_are_refused(edited: Callable[[Edit], Path], change: Edit, words: str) -> None:
    folder = edited(change)
    (folder / "report.html").unlink(missing_ok=True)
    with pytest.raises(InputError, match=words):
        write_report(folder)
    assert not (folder / "report.html").exists()


def with_header(path: Path, header: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("prediction.npy", header)
        archive.writestr("image.npy", header)


def lying_header(path: Path) -> None:
    """An array that says to have 2^40 numbers."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**20, 2**20)})
    with_header(path, header.getvalue())


def deep_header(path: Path) -> None:
    """An array whose shape is a sum that Python's parser cannot follow."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': 1" + b"+1" * 4000 + b"}"
    with_header(path, b"\x93NUMPY\x02\0" + len(header).to_bytes(4, "little") + header)


def change_arrays(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    arrays = load_arrays(path)
    changed = {name: change(arrays[name].astype(np.float64)) for name in arrays.keys() & {"truth", "prediction"}}
    np.savez(path, **{**arrays, **changed})


@pytest.mark.parametrize("file", ["image.npz", "prediction-0.npz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: np.savez(path, prediction=np.zeros((2, 2, 2), np.uint8), image=np.zeros((1, 2, 2, 2), np.uint8)),
        lambda path: np.savez(path, prediction=np.array([print], dtype=object), image=np.array([print], dtype=object)),
        lying_header,
        deep_header,
        lambda path: change_arrays(path, lambda array: array + 256),
        lambda path: change_arrays(path, lambda array: array + 0.5),
        lambda path: change_arrays(path, lambda array: array[..., :0]),
    ],
    ids=["cut short", "another shape", "objects", "lying header", "deep header", "wide", "fractions", "nothing"],
)
def test_damaged_arrays_are_refused_by_name(
    evaluation: Path, tmp_path: Path, file: str, damage: Callable[[Path], object]
) -> None:
    folder = shutil.copytree(evaluation, tmp_path / "damaged")
    damage(folder / "cases/01-T2" / file)
    with pytest.raises(InputError, match=rf"01-T2/{file}: "):
        write_report(folder, cases="01-T2")


@pytest.mark.parametrize("name", ["slice_axis", "undrawn"])
def test_infinity_is_no_index(evaluation: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(evaluation, tmp_path / "damaged")
    image = folder / "cases/01-T2/image.npz"
    value = np.array([np.inf])[() if name == "undrawn" else 0]
    np.savez(image, **{**load_arrays(image), name: value})
    with pytest.raises(InputError, match="is damaged: OverflowError"):
        write_report(folder, cases="01-T2")


def test_a_report_takes_no_other_file_s_place(evaluation: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(evaluation, tmp_path / "results")
    before = (folder / "results.json").read_bytes()
    with pytest.raises(InputError, match=r"must be a file name that ends in \.html"):
        write_report(folder, folder / "results.json")
    assert (folder / "results.json").read_bytes() == before


def test_another_folder_is_refused(tmp_path: Path, evaluation: Path) -> None:
    with pytest.raises(InputError, match=r"no results\.json"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="must be a file"):
        write_report(evaluation, tmp_path)


def test_without_the_extra_one_line_says_how_to_get_it(
    evaluation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bundles, "NEEDED", [*bundles.NEEDED, "niivue-of-the-future"])
    with caplog.at_level(logging.INFO, logger="attunet"):
        assert write_report_if_installed(evaluation) is None
    assert "niivue-of-the-future not installed (pip install 'attunet[report]', then: attunet report" in caplog.text
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"a report needs niivue-of-the-future: pip install 'attunet\[report\]'"):
        write_report(evaluation, tmp_path / "report.html")
    with pytest.raises(InputError, match=r"pip install 'attunet\[report\]'"):
        write_report(evaluation, tmp_path / "report.html")


@pytest.mark.parametrize("place", ["cases/01-T2", "cases/01-T2/image.npz", "details.json", "cases/09", "cases/a.log"])
def test_a_link_out_of_the_folder_is_refused(evaluation: Path, tmp_path: Path, place: str) -> None:
    folder, other = (shutil.copytree(evaluation, tmp_path / name) for name in ("sent", "other"))
    (other / "cases/a.log").mkdir()
    if (folder / place).is_dir():
        shutil.rmtree(folder / place)
    (folder / place).unlink(missing_ok=True)
    (folder / place).symlink_to(other / place)
    with pytest.raises(InputError, match=rf"{place}: leads out of .*sent, of which alone a report is made"):
        read_contents(folder)


def test_finished_work_does_not_fail_for_a_report_that_is_refused(
    evaluation: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a cross-validation whose runs a user has moved to another disk, with a link in their place."""
    folder = shutil.copytree(evaluation, tmp_path / "own")
    (folder / "default").symlink_to(tmp_path)
    assert write_report_if_installed(folder) is None
    assert f"no report: {folder / 'default'}: leads out of" in caplog.text


def test_a_link_within_the_folder_or_to_a_log_is_no_fault(evaluation: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(evaluation, tmp_path / "own")
    (folder / "cases").rename(folder / "of cases")
    (folder / "cases").symlink_to("of cases")
    (folder / "debug-core.log").symlink_to(tmp_path / "core.log")  # as Weights & Biases links to its own
    assert "01-T2" in choose_cases(read_contents(folder), "all")


def test_classes_that_were_not_drawn_are_few(evaluation: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(evaluation, tmp_path / "many")
    image = folder / "cases/01-T2/image.npz"
    np.savez_compressed(image, **{**load_arrays(image), "undrawn": np.zeros(1_000_000, np.uint8)})
    with pytest.raises(InputError, match=r"01-T2/image\.npz: .*'undrawn' must have at most 4,096 bytes, got 1,000,000"):
        write_report(folder, cases="01-T2")


def test_a_pipe_in_place_of_an_image_is_no_image(evaluation: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(evaluation, tmp_path / "device")
    image = folder / "cases/01-T2/image.npz"
    image.unlink()
    os.mkfifo(image)
    assert "01-T2" not in choose_cases(read_contents(folder), "all")


def test_a_class_may_be_called_mean() -> None:
    scores = {"dice": {"mean": 0.4, "ci95": None, "per_class": {}, "per_case": {"a": {"mean": 0.2, "liver": 0.6}}}}
    assert ModelRow("unet", scores).case_mean("a") == pytest.approx(0.4)


def test_the_settings_of_a_network_name_that_network(tmp_path: Path) -> None:
    """A recipe is noted once for all of its networks."""
    method = {"name": "attention_unet", "recipe": "chaos", "model": "attention_unet", "num_runs": 1, "num_cases": 1}
    method |= {"scores": dict.fromkeys(SCORES), "time_to_accuracy": None, "postprocessing": "untouched"}
    noted = {"model": {"name": "unet", "depth": 4}, "optim": {"lr": 0.1}}
    results = {"recipes": {"chaos": noted}, "seeds": [0], "store": {"folds": {"0": ["01"]}}}
    row = _method_row(tmp_path, method, ["01"], CHAOS_MR, results)
    assert row.details is not None
    assert row.details["settings"] == {"model": {"name": "attention_unet", "depth": 4}, "optim": {"lr": 0.1}}
    assert noted["model"]["name"] == "unet"
