"""The command that measures a GPU, rehearsed in miniature without one; its time limits; its page."""

import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from attunet.benchmarks.speed.gpu.__main__ import main
from attunet.benchmarks.speed.gpu.run import Outcome, page, run_step, run_steps
from attunet.benchmarks.speed.gpu.steps import NNUNET_S, Step, steps_of
from attunet.benchmarks.speed.training.kernels import kind_of
from attunet.benchmarks.speed.training.sweep import Row, Settings, rows_of, sweep, table
from attunet.store import Store


@pytest.mark.slow
@pytest.mark.usefixtures("forked_programs")
def test_the_rehearsal_runs_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", str(tmp_path), "--rehearse", "--minutes", "9"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0, capsys.readouterr()
    text = (tmp_path / "gpu.md").read_text()
    for name in ("tests", "gate", "norm_relu", "training_sweep", "inference", "training"):
        assert f"## {name}\n" in text
        if name != "tests":
            json.loads((tmp_path / f"{name}.json").read_text())


def test_a_step_that_hangs_costs_its_limit_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attunet.benchmarks.speed.gpu.run.KILL_AFTER_S", 1)
    hangs = Step("hangs", 3, ["-c", "import time; print('begun', flush=True); time.sleep(60)"])
    fails = Step("fails", 60, ["-c", "raise SystemExit('no such thing')"])
    works = Step("works", 60, ["-c", "print('a result')"])
    outcomes = run_steps([hangs, fails, works], tmp_path, minutes=2)
    assert [outcome.state for outcome in outcomes] == ["out of time", "failed", "done"]
    assert [outcome.text for outcome in outcomes] == ["begun", "no such thing", "a result"]
    assert outcomes[0].seconds < 20
    assert "no such thing" in (tmp_path / "gpu.md").read_text()


def test_no_step_begins_without_time() -> None:
    assert run_step(Step("late", 60, ["-c", "print(1)"]), left_s=1.0).state == "not begun"


def test_a_step_that_is_ended_shows_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attunet.benchmarks.speed.gpu.run.KILL_AFTER_S", 1)
    file = tmp_path / "rows.json"
    program = f"import pathlib, time; pathlib.Path({str(file)!r}).write_text('[1, 2]'); time.sleep(60)"
    step = Step("rows", 3, ["-c", program, "--json", str(file)], table=lambda rows: f"{len(rows)} rows")
    assert run_step(step, left_s=60).text.startswith("2 rows\n(out of time")


def test_a_step_that_fails_shows_nothing_of_an_earlier_call(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text("[1, 2]")
    step = Step(
        "rows", 60, ["-c", "raise SystemExit('no GPU')", "--json", str(file)], table=lambda rows: f"{len(rows)} rows"
    )
    assert (run_step(step, left_s=60).text, file.exists()) == ("no GPU", False)


def test_a_users_cases_are_the_last_steps(tmp_path: Path) -> None:
    names = [step.name for step in steps_of(tmp_path, rehearse=False, source=tmp_path)]
    assert names[0] == "tests"
    assert names[-5:] == ["prepare", "crossvalidation", "export", "evaluation", "prediction"]


def test_nnunet_is_a_step_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def training(*, rehearse: bool) -> Step:
        return next(step for step in steps_of(tmp_path, rehearse=rehearse, source=None) if step.name == "training")

    installed = find_spec("nnunetv2") is not None
    assert ("nnunet" in training(rehearse=True).command) == installed
    assert training(rehearse=False).limit_s == 90 + NNUNET_S * installed
    monkeypatch.setitem(sys.modules, "nnunetv2", None)  # as where it is absent
    assert "nnunet" not in training(rehearse=True).command
    assert training(rehearse=False).limit_s == 90


def test_the_page_is_short() -> None:
    long = Outcome(Step("long", 1, []), "done", 1.0, "line\n" * 500)
    assert len(page([long]).splitlines()) < 100


def test_the_default_training_is_measured_first() -> None:
    rows = list(rows_of(["unet", "attention_unet"], [64, 32], [16, 64], "cuda"))
    assert len(rows) == 32
    assert (rows[0].cuda_graph, rows[0].compile, rows[0].width) == (True, False, 64)
    assert "run.cuda_graph=auto" in rows[0].settings
    assert not any(row.cuda_graph for row in rows_of(["unet"], [64], [16], "cpu"))


def test_a_training_that_failed_has_its_reason_below_the_table_of_the_others() -> None:
    figures = {
        "graph_captured": False,
        "slices_per_s": 4.25,
        "step_ms": 940.0,
        "host_ms": 1.0,
        "matmul_share": 0.5,
        "peak_memory_mb": None,
    }
    done = {**asdict(Row("unet", 64, 4, False, True)), **figures, "kinds_ms": {"gates": 1.0, "pooling": 2.0}}
    failed = {**asdict(Row("unet", 64, 128, True, False)), "error": "out of memory"}
    header, row, *below = table({"rows": [done, failed]}).splitlines()
    assert header.split()[:3] == ["network", "wide", "batch"]
    assert row.split() == ["unet", "64", "4", "no", "yes", "4.2", "940.0", "1.0", "50%", "-"]
    assert below == [
        "unet 64 wide, batch 128, CUDA graph: out of memory",
        "unet 64 wide, batch 4, compiled: ms of one step: pooling 2.0, gates 1.0",
    ]
    assert table({"rows": [failed]}) == below[0]


def test_a_step_that_could_not_be_captured_stands_as_one_without_a_graph() -> None:
    figures = {"slices_per_s": 4.25, "step_ms": 940.0, "host_ms": 1.0, "matmul_share": 0.5, "peak_memory_mb": None}
    row = {**asdict(Row("unet", 64, 4, True, False)), **figures, "kinds_ms": None}
    captured, eager = table(
        {"rows": [row | {"graph_captured": is_captured} for is_captured in (True, False)]}
    ).splitlines()[1:]
    assert (captured.split()[3], eager.split()[3]) == ("yes", "no")


def test_an_error_of_a_library_costs_one_training_of_a_sweep(
    small_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("out of resource: shared memory")

    monkeypatch.setattr("attunet.benchmarks.speed.training.sweep.measure", fail)
    settings = Settings(device="cpu", size=32, seconds=0.1, minutes=1, profiled=False)
    rows = sweep(small_store, list(rows_of(["unet"], [4], [2, 4], "cpu")), settings)["rows"]
    assert [row["error"] for row in rows] == ["out of resource: shared memory"] * 2


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("norm_gradient_sums", "batch norm and ReLU"),
        ("void cudnn::bn_bw_1C11_kernel_new", "batch norm and ReLU"),
        ("gate_backward", "gates"),
        ("sm90_xmma_fprop_implicit_gemm_bf16", "convolutions"),
        ("void at::native::max_pool_backward_nhwc", "pooling"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimizer and average"),
        ("void at::native::vectorized_elementwise_kernel<4, AddFunctor>", "elementwise and reductions"),
        ("something_else_entirely", "other"),
    ],
)
def test_kernels_are_summed_by_kind(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind
