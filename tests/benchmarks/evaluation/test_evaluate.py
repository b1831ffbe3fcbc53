"""The evaluator on cases whose brightness gives the organs away, so that what a model should score is known."""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from attunet.benchmarks.evaluation import evaluate as module
from attunet.benchmarks.evaluation.benchmark import BenchmarkResults, benchmark
from attunet.benchmarks.evaluation.evaluate import evaluate
from attunet.benchmarks.evaluation.models import EvaluatedModel, load_models
from attunet.benchmarks.evaluation.results_table import markdown, summary_table
from attunet.benchmarks.report.read_contents import read_contents
from attunet.classes import CHAOS_MR, Classes
from attunet.config import Config, DataConfig
from attunet.errors import InputError
from attunet.preparation.prepare import prepare
from attunet.runs.run_state import RunState
from attunet.store import Store
from attunet.system.outputs import remove_results
from attunet.volumes.model import NetworkModel
from attunet.volumes.spec import PreprocessSpec

CASES = ("01-T1", "01-T2", "02-T2", "03-T2", "04-T2", "05-T2", "06-T2")  # patient 01 has two
WINDOW = (0.0, 1100.0)

Predict = Callable[[np.ndarray], np.ndarray]
Evaluate = Callable[..., dict[str, Any]]


def perfect(slices: np.ndarray) -> np.ndarray:
    """Logits of the class that a pixel's brightness belongs to; conftest paints class k with 400 + 150 k."""
    intensity = (slices[:, 0] + 1) * WINDOW[1] / 2
    labels = np.clip(np.rint((intensity - 400) / 150), 0, 4).astype(int)
    return np.moveaxis(np.eye(5, dtype=np.float32)[labels], -1, 1)


def kidneys_swapped(slices: np.ndarray) -> np.ndarray:
    return perfect(slices)[:, [0, 1, 3, 2, 4]]


def no_spleen(slices: np.ndarray) -> np.ndarray:
    logits = perfect(slices)
    logits[:, 4] = -1
    return logits


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, write_case: Callable[..., Any]) -> Store:
    folder = tmp_path_factory.mktemp("evaluate")
    for number, name in enumerate(CASES):
        write_case(folder / "source", name, seed=number)
    config = DataConfig(normalization="ct", window=WINDOW, size=64)
    return prepare(folder / "source", folder / "store", config, folds=3)


@pytest.fixture
def run_evaluate(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Evaluates networks given by name; `seen`: names of the cases that they were trained on;
    pictures only with `draw`.
    """

    def run(
        networks: dict[str, Predict], *, seen: tuple[str, ...] = (), draw: bool = False, **options: Any
    ) -> dict[str, Any]:
        if not draw:
            monkeypatch.setattr(module, "draw_evaluation", lambda *_, **__: None)
        hashes = frozenset(store.case(name).image_sha256 for name in seen)
        made = [_model(name, network, store, hashes) for name, network in networks.items()]
        monkeypatch.setattr(module, "load_models", lambda models, **_: made)
        monkeypatch.setattr(module, "peak_memory_mb", lambda *_, **__: None)
        return evaluate(store.path, [], tmp_path / "out", latency_seconds=0.01, **options)

    return run


def _model(
    name: str, network: Predict, store: Store, hashes: frozenset[str] = frozenset(), **changes: Any
) -> EvaluatedModel:
    values = {
        "spec": store.spec,
        "classes": store.classes,
        "training_cases": {digest: digest for digest in hashes},
        **changes,
    }
    return EvaluatedModel(
        model=NetworkModel(name=name, network=network, **values),
        name=name,
        path=Path(name),
        backend="numpy",
        provider="cpu",
        precision="fp32",
        file_mb=0.0,
        timed_call=lambda slices: lambda: network(slices),
        options={},
    )


def test_a_perfect_model_is_perfect_and_a_wrong_one_is_wrong_where_it_is(run_evaluate: Evaluate) -> None:
    results = run_evaluate({"perfect": perfect, "swapped": kidneys_swapped, "blind": no_spleen})
    right, swapped, blind = results["models"]
    assert right["dice"]["mean"] == pytest.approx(1, abs=1e-3)
    assert right["hd95_mm"]["mean"] == 0
    assert right["chaos_score"]["mean"] == pytest.approx(100, abs=0.5)
    assert swapped["dice"]["per_class"] == {**right["dice"]["per_class"], "right kidney": 0.0, "left kidney": 0.0}
    assert swapped["dice"]["mean"] == pytest.approx(0.5, abs=1e-3)
    assert blind["recall_per_class"]["spleen"] == 0
    # The diagonal of the image
    assert blind["mssd_mm"]["per_case"]["02-T2"]["spleen"] == pytest.approx(np.linalg.norm([96, 80, 48]))
    assert np.array(blind["confusion"])[4, 0] == np.sum(blind["confusion"], axis=1)[4] > 0
    assert blind["pixel_accuracy"] < right["pixel_accuracy"]
    agreement = {c["second"]: c["agreement"] for c in results["comparisons"]}
    assert agreement["swapped (numpy cpu)"]["dice"] == pytest.approx(0.5)
    assert agreement["blind (numpy cpu)"]["equal_voxels"] < 1


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_case_without_any_class_is_said_to_have_none(
    log_lines: list[str], tmp_path: Path, write_case: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        image, mask = write_case(tmp_path / "source", f"{number}-T2", seed=number)
    for path, data in ((image, np.arange(11520).reshape(48, 40, 6) % 300), (mask, np.zeros((48, 40, 6)))):
        nib.save(nib.Nifti1Image(data.astype(np.int16), nib.load(path).affine), path)
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(normalization="ct", window=WINDOW, size=64))
    monkeypatch.setattr(module, "load_models", lambda models, **_: [_model("m", perfect, store, frozenset())])
    monkeypatch.setattr(module, "peak_memory_mb", lambda *_, **__: None)
    monkeypatch.setattr(module, "draw_evaluation", lambda *_, **__: None)
    evaluate(store.path, [], tmp_path / "out", latency_seconds=0.01)
    said = [line for line in log_lines if line.startswith("[")]
    assert "Dice 1.000, " in said[0]
    assert said[1].startswith("[2/2] 1-T2: m (numpy cpu): no class, ")


def test_results_json_has_what_readers_of_it_expect(run_evaluate: Evaluate, tmp_path: Path) -> None:
    returned = run_evaluate({"a": perfect, "b": no_spleen})
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert results == returned
    assert results["schema"] == 2
    assert {"versions", "cpu", "commit"} <= set(results["environment"])
    row = results["models"][0]
    assert {"name", "file", "file_mb", "backend", "provider", "precision", "num_parameters", "peak_memory_mb"} <= set(
        row
    )
    for score in ("dice", "hd95_mm", "assd_mm", "mssd_mm", "ravd_percent"):
        assert set(row[score]) == {"mean", "ci95", "per_class", "per_case"}
        assert set(row[score]["per_case"]) == set(CASES)
        assert set(row[score]["per_case"]["02-T2"]) == set(CHAOS_MR.foreground)
    assert set(row["precision_per_class"]) == set(row["recall_per_class"]) == set(CHAOS_MR.names)
    assert set(row["latency_ms"]["batch"]) == set(row["throughput_slices_per_s"]["batch"]) == {"1", "8"}
    assert {"p50", "p95", "p99"} <= set(row["latency_ms"]["batch"]["8"])
    assert set(row["volume_ms"]) == {"read", "prepare", "network", "finish", "write", "total"}
    assert row["volume_ms"]["total"] == pytest.approx(sum(v for k, v in row["volume_ms"].items() if k != "total"))


def test_page_table_and_pictures(run_evaluate: Evaluate, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib draws the pictures")
    results = run_evaluate({"a": perfect, "b": no_spleen}, draw=True)
    page = (tmp_path / "out/results.md").read_text(encoding="utf-8")
    assert "| b (numpy cpu) | spleen | 0.000 |" in page
    assert results["comparisons"][0]["words"] in page
    assert len(summary_table(results).splitlines()) == 3
    assert "| agreement |" in page
    assert f"| {results['comparisons'][0]['agreement']['dice']:.4f} |" in page
    drawn = {path.name for path in (tmp_path / "out/plots").iterdir()}
    assert {
        "dice_against_latency.png",
        "latency_against_batch.png",
        "volume_time.png",
        "confusion_a_numpy_cpu.png",
    } <= drawn
    assert len([name for name in drawn if name.startswith("outlines_")]) == 4
    remove_results(tmp_path / "out")
    assert not list((tmp_path / "out/plots").iterdir())


def test_cases_of_seen_patients_stay_out_of_the_mean(run_evaluate: Evaluate) -> None:
    everything = run_evaluate({"m": no_spleen})["models"][0]
    assert everything["seen_cases"] == []
    row = run_evaluate({"m": no_spleen}, seen=("01-T2", "03-T2"))["models"][0]
    assert row["seen_cases"] == ["01-T1", "01-T2", "03-T2"]  # 01-T1 is another case of a patient seen
    assert set(row["dice"]["per_case"]) == set(CASES)
    unseen = [np.mean(list(v.values())) for case, v in row["dice"]["per_case"].items() if case not in row["seen_cases"]]
    assert row["dice"]["mean"] == pytest.approx(np.mean(unseen))
    assert np.sum(row["confusion"]) < np.sum(everything["confusion"])


def unpacked(path: Path) -> None:
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()


def compressed_again(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))


def turned(path: Path) -> None:
    """The same voxels along other axes, as other numbers."""
    image = nib.load(path)
    data, affine = np.asarray(image.dataobj)[::-1], image.affine @ np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = (image.affine @ (data.shape[0] - 1, 0, 0, 1))[:3]
    nib.save(nib.Nifti1Image(data.astype(np.int32), affine), path)


@pytest.mark.parametrize("change", [unpacked, compressed_again, turned])
def test_a_scan_of_the_training_is_known_in_any_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    (tmp_path / "source").mkdir()
    for name, new in (("03-T2", "a-T2"), ("04-T2", "b-T2")):
        for kind in ("src", "mask"):
            file = tmp_path / f"source/{new}-{kind}.nii.gz"
            shutil.copy(store.source_root / f"{name}-{kind}.nii.gz", file)
            change(file)
    other = prepare(tmp_path / "source", tmp_path / "store", DataConfig(normalization="ct", window=WINDOW, size=64))
    state = RunState.at_start(store, ["03-T2"], [], 0, Config().resolve(base_width=4, epochs=1, batch_size=2))
    seen = {"training_cases": state.training_cases, "training_voxels": state.training_voxels}
    monkeypatch.setattr(module, "load_models", lambda models, **_: [_model("m", perfect, store, **seen)])
    monkeypatch.setattr(module, "peak_memory_mb", lambda *_, **__: None)
    monkeypatch.setattr(module, "draw_evaluation", lambda *_, **__: None)
    results = evaluate(other.path, [], tmp_path / "out", latency_seconds=0.01)
    assert results["models"][0]["seen_cases"] == ["a-T2"]


def test_a_model_that_has_seen_everything_has_no_mean(run_evaluate: Evaluate, tmp_path: Path) -> None:
    results = run_evaluate({"m": perfect}, seen=CASES)
    (row,) = results["models"]
    assert row["dice"]["mean"] is None
    assert row["pixel_accuracy"] is None
    page, table = (tmp_path / "out/results.md").read_text(encoding="utf-8"), BenchmarkResults(results, {})
    for text in (page, summary_table(results), table.table(), table.markdown()):
        assert "or on their patients: m (numpy cpu); no case is left for its means." in text


def test_results_without_physical_spacing_say_that_mm_are_pixels(run_evaluate: Evaluate, tmp_path: Path) -> None:
    results, words = run_evaluate({"m": perfect}, fold=0), "what is called mm is pixels"
    assert (results["store"]["unit"], words in summary_table(results)) == ("mm", False)
    results["store"]["unit"] = PreprocessSpec(orientation=None, slice_axis=2, spacing_mm=None, size=(32, 32)).unit
    (tmp_path / "out/results.json").write_text(json.dumps(results))
    table = BenchmarkResults(results, {})
    for text in (markdown(results), summary_table(results), table.table(), table.markdown()):
        assert words in text
    assert words in read_contents(tmp_path / "out").about


def test_interval_from_five_patients_on(run_evaluate: Evaluate) -> None:
    assert run_evaluate({"m": no_spleen})["models"][0]["dice"]["ci95"] is not None
    few = run_evaluate({"m": no_spleen}, seen=("01-T1", "02-T2"))["models"][0]  # four patients are left
    assert few["dice"]["ci95"] is None


def test_a_fold_is_evaluated_on_the_cases_it_leaves_out(run_evaluate: Evaluate, store: Store) -> None:
    results = run_evaluate({"m": perfect}, fold=1)
    assert results["store"]["cases"] == store.split(1)[1]
    assert set(results["models"][0]["dice"]["per_case"]) == set(store.split(1)[1])


def test_sources_are_followed_where_they_moved_and_refused_where_they_changed(
    run_evaluate: Evaluate, store: Store, tmp_path: Path
) -> None:
    moved = shutil.copytree(store.source_root, tmp_path / "moved")
    case = store.split(0)[1][0]
    assert run_evaluate({"m": perfect}, fold=0, source=moved)["models"][0]["dice"]["mean"] == pytest.approx(1, abs=1e-3)
    file = moved / store.case(case).image_files[0]
    file.write_bytes((moved / store.case("06-T2" if case != "06-T2" else "05-T2").image_files[0]).read_bytes())
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(InputError, match=file.name):
        run_evaluate({"m": perfect}, fold=0, source=moved)
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_the_store_is_refused_before_anything_is_written(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_classes = _model("m", perfect, store, classes=Classes(("background", "tumour"), (0, 1)))
    other_channels = _model("m", perfect, store, spec=replace(store.spec, num_channels=3))
    for model, words in ((other_classes, "classes"), (other_channels, "channels")):
        monkeypatch.setattr(module, "load_models", lambda models, model=model, **_: [model])
        with pytest.raises(InputError, match=words):
            evaluate(store.path, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_evaluation_replaces_nothing_but_an_evaluation(run_evaluate: Evaluate, store: Store, tmp_path: Path) -> None:
    """Its folder `cases` would take the place of a store's arrays, or of a user's scans."""
    out = tmp_path / "out"
    for file, words in (
        ("manifest.json", "holds a store; name another folder for an evaluation"),
        ("checkpoints/step-1/state.json", "holds a run"),
        ("results.json", "holds a results.json of something else"),
        ("results.md", "holds a results.md of something else"),
        ("report.html", r"holds a report\.html of something else"),
        ("plots/training.png", r"holds a plots/training\.png of something else"),
        ("cases/01/scan.nii.gz", r"01/scan\.nii\.gz: is of no evaluation"),
    ):
        (out / file).parent.mkdir(parents=True)
        (out / file).write_text("{}")
        with pytest.raises(InputError, match=words):
            run_evaluate({"m": perfect}, fold=0)
        assert [path for path in out.rglob("*") if path.is_file()] == [out / file]
        shutil.rmtree(out)
    run_evaluate({"m": perfect}, fold=0)
    (out / "cases/.DS_Store").touch()
    assert run_evaluate({"m": perfect}, fold=0)["models"][0]["dice"]["mean"] > 0.9
    for seconds in (float("nan"), 0, -1):
        for call in (evaluate, partial(benchmark, providers=["cpu"])):
            with pytest.raises(InputError, match=r"latency_seconds: must be a number from 0\.001 to 86400"):
                call("store", "run", out, latency_seconds=seconds)
    with pytest.raises(InputError, match="models must be a list of paths, got 'run'"):
        evaluate(store.path, "run", out)


def test_an_evaluation_that_is_stopped_while_it_times_leaves_that_before_it(
    run_evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    run_evaluate({"m": perfect}, fold=0)
    before = contents()
    monkeypatch.setattr(module, "time_networks", stop)
    with pytest.raises(KeyboardInterrupt):
        run_evaluate({"m": no_spleen}, fold=0)
    assert contents() == before


@pytest.mark.parametrize(
    ("models", "options", "words"),
    [
        ([], {}, "at least one model"),
        (["nothing.onnx"], {}, "nothing.onnx"),
        (["weights.pt"], {}, "no such file"),
        ([""], {"device": "tpu"}, "cpu or cuda"),
    ],
)
def test_models_that_are_none(models: list[str], options: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        load_models([tmp_path / name for name in models], **options)


def test_models_of_one_name_are_told_apart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from attunet.benchmarks.evaluation import models

    monkeypatch.setattr(models, "_evaluated", lambda path, provider, num_threads: _model("attention", perfect, store))
    assert [one.name for one in load_models([Path("a.onnx"), Path("b.onnx")])] == ["attention", "attention #2"]
