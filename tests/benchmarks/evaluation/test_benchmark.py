"""One table of everything that loads, with the reasons of what does not."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from attunet.store import Store

pytest.importorskip("torch")
pytest.importorskip("onnx")

from attunet.benchmarks.evaluation.benchmark import _export, benchmark
from attunet.errors import InputError, RunError
from attunet.system.plain_text import table_cell


@pytest.fixture(scope="module")
def run(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(small_store, tmp_path_factory.mktemp("benchmark") / "run", seed=0)


def _train(store: Store, path: Path, seed: int) -> Path:
    from attunet.config import AugmentConfig, Config, ModelConfig, OptimConfig, RunConfig
    from attunet.training.loop import train

    config = Config(
        model=ModelConfig(name="unet", base_width=4, depth=2),
        augment=AugmentConfig(enabled=False),
        optim=OptimConfig(epochs=10.0, batch_size=4, lr=1e-2, ema_decay=0.9),
        run=RunConfig(mixed_precision="no", device="cpu", validate_every_epochs=100.0, seed=seed),
    )
    train(store.path, path, config, fold=0)
    return path


def test_a_model_that_is_not_there_is_one_clause(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such run or artefact$"):
        benchmark(tmp_path / "nowhere", tmp_path / "store", tmp_path / "out", providers=["cpu", "cuda"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rows_of_what_loads_and_reasons_of_what_does_not(
    run: Path, small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attunet.benchmarks.evaluation.evaluate.peak_memory_mb", lambda *_, **__: 1.0)
    out = tmp_path / "out"

    results = benchmark(
        run,
        small_store.path,
        out,
        providers=["cpu", "cuda"],
        precisions=["fp32"],
        batch_sizes=[2],
        latency_seconds=0.05,
    )
    header, *rows = results.rows()
    assert [row[0] for row in rows] == [
        "run (pytorch cpu)",
        "run (onnxruntime cpu)",
        "run (onnxruntime cpu fp32 whole)",
    ]
    assert [row[3] for row in rows] == ["+0.0000"] * 3
    assert "slices/s at 2" in header
    assert set(results.not_loaded) == {"run on cuda", "fp32 on cuda", "fp32-whole on cuda"}
    assert json.loads((out / "benchmark.json").read_text())["rows"] == rows
    page = (out / "benchmark.md").read_text()
    assert all(table_cell(reason) in page for reason in results.reasons())
    assert (out / "results.json").is_file()  # what `attunet report` reads
    made = {name: one["command"] for name, one in json.loads((out / "details.json").read_text())["models"].items()}
    assert [name for name, command in made.items() if "--whole" in command] == ["run (onnxruntime cpu fp32 whole)"]
    other = _train(small_store, tmp_path / "other", seed=1)
    stamp = (out / "artefacts/fp32.onnx").stat().st_mtime_ns
    for precision, words in (
        ("fp32", r"fp32\.onnx: is no fp32 artefact of .*other"),
        ("int8", r"int8\.onnx: is no int8"),
    ):
        shutil.copy(out / "artefacts/fp32.onnx", out / "artefacts/int8.onnx")
        with pytest.raises(InputError, match=words):
            benchmark(
                other if precision == "fp32" else run, small_store.path, out, providers=["cpu"], precisions=[precision]
            )
    again = benchmark(
        out / "artefacts/fp32.onnx",
        small_store.path,
        tmp_path / "again",
        providers=["cpu", "cpu"],
        latency_seconds=0.05,
    )
    assert len(again.rows()) == 2  # the header and one
    assert (out / "artefacts/fp32.onnx").stat().st_mtime_ns == stamp


def test_artefacts_of_an_earlier_call_do_not_allow_a_store_of_other_masks(
    run: Path, small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attunet.benchmarks.evaluation.benchmark._is_of", lambda *_: True)
    for name in ("fp32.onnx", "fp32-whole.onnx"):
        (tmp_path / "out/artefacts").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out/artefacts" / name).touch()
    store = shutil.copytree(small_store.path, tmp_path / "store")
    manifest = json.loads((store / "manifest.json").read_text())
    for row in manifest["cases"]:
        row["label_files"][0]["sha256"] = "corrected"
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="was trained with other masks than"):
        benchmark(run, store, tmp_path / "out", providers=["cpu"], precisions=["fp32"])


def test_no_artefact_of_names_stays_beside_results_of_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of another precision, nor of one whose parity fails now."""
    module = "attunet.benchmarks.evaluation.benchmark"

    def export_run(run: Path, path: Path, *, precision: str, whole: bool, **options: object) -> None:
        if whole:
            raise RunError(f"{precision}: differs")
        path.write_text("numbers")

    monkeypatch.setattr("attunet.export.build.export_run.export_run", export_run)
    monkeypatch.setattr("attunet.runs.ensemble.load_runs", lambda run: SimpleNamespace(fold=0))
    monkeypatch.setattr(f"{module}._is_of", lambda *_: True)
    for name in ("fp32.onnx", "fp16-whole.onnx", "int8-whole.onnx", "mine.txt"):
        (tmp_path / name).write_text("names")
    failed = dict[str, str]()
    files, _ = _export(tmp_path / "run", "store", tmp_path, ["int8"], None, tmp_path / "key.csv", failed)
    assert files == [tmp_path / "int8.onnx"]
    assert list(failed) == ["int8-whole"]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"int8.onnx": "numbers", "mine.txt": "names"}
