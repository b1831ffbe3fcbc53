"""A comparison over folds: what it trains, what it takes as it is, what it refuses, and what its table says."""

import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from attunet.benchmarks.crossvalidation import crossvalidate as module
from attunet.benchmarks.crossvalidation.crossvalidate import crossvalidate
from attunet.benchmarks.crossvalidation.held_out import (
    FIXED_SECONDS,
    check_belongs,
    progress_of,
    score_run,
    scoring_seconds,
)
from attunet.benchmarks.crossvalidation.jobs import Job, run_jobs
from attunet.benchmarks.crossvalidation.plan import PlannedRun, minutes_per_run
from attunet.benchmarks.crossvalidation.results_table import markdown, summary_table
from attunet.benchmarks.evaluation.commands import repeated
from attunet.benchmarks.evaluation.saved_cases import HELD_OUT, load_arrays
from attunet.benchmarks.report.case_data import case_data, choose_cases
from attunet.benchmarks.report.figures import figures
from attunet.benchmarks.report.read_contents import read_contents
from attunet.config import Config
from attunet.errors import InputError
from attunet.evaluate_case import observe_case, read_labelled_case
from attunet.runs.learned_cases import ObservedModel, read_learned_cases
from attunet.runs.load_run import TrainedRun, load_run
from attunet.runs.run_model import open_run
from attunet.store import Store, open_store
from attunet.system.lock import place
from attunet.volumes.spec import LARGEST, UNTOUCHED, Postprocessing

SETTINGS = ("model.base_width=4", "model.depth=2", "optim.epochs=2", "run.mixed_precision=no")
QUICK = tuple(repeated("--set", SETTINGS))


@pytest.fixture(scope="module")
def by_hand(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison's folder in which fold 0 of both networks was trained by `attunet train`."""
    from attunet.launch.cli import cli
    from attunet.launch.exit_codes import run_command

    out = tmp_path_factory.mktemp("comparison") / "folds"
    for model in ("unet", "attention_unet"):
        run = out / "default" / model / "seed-0" / "fold-0"
        arguments = ["train", str(small_store.path), str(run), "--model", model, "--fold", "0", *QUICK]
        assert run_command(cli, "attunet", arguments) == 0
    return out


@pytest.fixture
def folder(by_hand: Path, tmp_path: Path) -> Path:
    return shutil.copytree(by_hand, tmp_path / "folds")


@pytest.fixture
def compare(attunet: Callable[..., Any], small_store: Store, folder: Path) -> Callable[..., Any]:
    """`attunet crossvalidate` of the U-Net with further options."""

    def call(*options: object, out: Path = folder) -> Any:
        return attunet("crossvalidate", small_store.path, out, "--model", "unet", *QUICK, *options)

    return call


def planned(run: TrainedRun) -> PlannedRun:
    """Its place in a comparison."""
    return PlannedRun("default", "unet", 0, 0, run.path, run.config, ())


def check_learned_cases(run: Path, store: Store, results: dict) -> None:
    """What confidence is learned from: the held-out cases with the Dice of the table,
    and the features that the run's model shows.
    """
    origin, cases = read_learned_cases(run)
    assert [origin] == ObservedModel.of_members(load_run(run), store, store.preprocessing.postprocessing)
    assert list(cases) == store.split(0)[1]
    scores = results["methods"][0]["scores"]["dice"]["per_case"]
    for name, case in cases.items():
        assert case.patient == store.case(name).patient
        assert list(case.dice) == pytest.approx([scores[name][organ] for organ in store.classes.foreground])
        again = observe_case(open_run(run), read_labelled_case(store, name))
        assert [organ and organ.parts for organ in again.features.organs] == [
            organ and organ.parts for organ in case.features.organs
        ]


def test_a_table_of_what_is_finished_says_what_is_missing(compare, small_store: Store, folder: Path) -> None:
    options = ("--model", "attention_unet", "--no-train", "--largest-component")
    done = compare(*options)
    assert done.code == 0, done.err
    results = json.loads((folder / "results.json").read_text())
    check_learned_cases(folder / "default/unet/seed-0/fold-0", small_store, results)
    assert len(results["missing"]) == 4
    page = (folder / "results.md").read_text()
    assert "4 of 6 trainings are not finished" in page
    assert "Under 5 patients there is no interval" in page
    configured = small_store.preprocessing.postprocessing
    others = [postprocessing.words for postprocessing in (LARGEST, UNTOUCHED) if postprocessing != configured]
    assert [method["name"] for method in results["methods"]] == [
        "unet",
        "attention_unet",
        *(f"{model}, {other}" for other in others for model in ("unet", "attention_unet")),
    ]
    held_out = small_store.split(0)[1]
    unet, attention = results["methods"][:2]
    assert list(unet["scores"]["dice"]["per_case"]) == sorted(held_out)
    difference = attention["scores"]["dice"]["mean"] - unet["scores"]["dice"]["mean"]
    assert results["comparisons"][0]["dice"]["mean"] == pytest.approx(difference)
    pictures = {
        "cases.png",
        "differences.png",
        "time_to_accuracy.png",
        "worst_default=unet.png",
        "worst_default=attention_unet.png",
    }
    assert {p.name for p in (folder / "plots").iterdir()} == pictures
    worst = unet["worst_organ"]
    assert worst["dice"] == min(
        v for scores in unet["scores"]["dice"]["per_case"].values() for v in scores.values() if v is not None
    )
    assert f"![{worst['class']} of {worst['case']}](plots/worst_default=unet.png)" in page
    check_report(folder, held_out)
    assert (results["store"]["unit"], "pixels" in page) == ("mm", False)
    results["store"]["unit"] = "pixels"
    assert all("what is called mm is pixels" in write(results) for write in (markdown, summary_table))
    (folder / "elsewhere").mkdir()
    # What was scored is kept: the table does not need the scans
    again = compare(*options, "--source", folder / "elsewhere")
    assert again.code == 0, again.err
    assert "warning: no picture of the worst organ" in again.out + again.err
    assert "![" + worst["class"] not in (folder / "results.md").read_text()
    native = next(
        row
        for line in (folder / "default/unet/seed-0/fold-0/metrics.jsonl").read_text().splitlines()
        if (row := json.loads(line))["event"] == "native"
    )
    assert unet["scores"]["dice"]["mean"] == pytest.approx(native["dice"]["mean"], abs=1e-4)


def check_report(folder: Path, held_out: list[str]) -> None:
    """The report is written and has the label maps, gates, curves and hashes of the runs that are finished."""
    contents = read_contents(folder)
    assert (folder / "report.html").stat().st_size > 1e6
    assert [model.label for model in contents.models] == ["unet", "attention_unet"]
    assert "4 of 6 trainings are not finished" in contents.about
    assert choose_cases(contents, "all") == sorted(held_out, key=contents.cases.index)
    assert {"per-case", "per-organ", "accuracy-time", "loss", "validation", "confusion-0"} <= set(figures(contents))
    for model, num_maps in zip(contents.models, (0, 2 * len(held_out)), strict=True):
        assert sorted(model.predictions) == sorted(held_out)
        maps = [
            one
            for case in held_out
            for one in case_data(contents, case, 0).about["attention"]
            if one["name"].startswith(model.label)
        ]
        assert len(maps) == num_maps  # depth 2
        assert {path.name for path in (*model.predictions.values(), *model.attention.values())} <= {
            f"{case}.npz" for case in held_out
        }
    assert sorted(contents.case_details) == sorted(held_out)
    image = folder / "cases" / held_out[0] / "image.npz"
    arrays = load_arrays(image)
    np.savez(image, **{**arrays, "undrawn": np.array([1])})
    known, own = read_contents(folder).models[0].confusion, load_arrays(contents.models[0].predictions[held_out[0]])
    np.savez(image, **arrays)  # nothing is known of the predictions of a class that was not drawn
    assert contents.models[0].confusion[:, 1].sum() - known[:, 1].sum() == (own["prediction"] == 1).sum()
    prepared, call = contents.commands
    assert prepared.startswith("attunet prepare SOURCE ")
    assert prepared.endswith("--folds 3 --seed 0")
    assert call.startswith("attunet crossvalidate ")
    assert "--model unet --model attention_unet" in call
    assert "--set optim.epochs=2 --set run.mixed_precision=no --largest-component" in call


@pytest.mark.usefixtures("trainings_here")
@pytest.mark.slow
def test_missing_folds_are_trained_and_finished_ones_taken(compare, small_store: Store, folder: Path) -> None:
    taken = folder / "default/unet/seed-0/fold-0/metrics.jsonl"
    before = taken.stat().st_mtime_ns
    done = compare("--folds", "0,2")
    assert done.code == 0, done.err
    assert "training default/unet/seed-0/fold-2" in done.out
    assert taken.stat().st_mtime_ns == before
    results = json.loads((folder / "results.json").read_text())
    assert results["missing"] == []
    expected = [np.mean(list(case.values())) for case in results["methods"][0]["scores"]["dice"]["per_case"].values()]
    assert len(expected) == len(small_store.split(0)[1]) + len(small_store.split(2)[1])
    assert results["methods"][0]["scores"]["dice"]["mean"] == pytest.approx(np.mean(expected))
    again = compare("--folds", "0,2")
    assert "training default" not in again.out
    left, picture = (
        folder / "default/unet/seed-0/fold-2/run.lock",
        folder / "default/unet/seed-0/fold-2/plots/training.png",
    )
    ended = subprocess.Popen(["true"])
    ended.wait()
    left.write_text(
        json.dumps({"host": socket.gethostname(), "pid": ended.pid, "place": place(), "token": "of a killed one"})
    )
    picture.unlink()  # it was killed before it drew
    assert compare("--folds", "0,2").out.count("training default") == 1
    assert picture.exists()
    assert not left.exists()
    assert json.loads((folder / "results.json").read_text())["methods"] == results["methods"]


@pytest.mark.usefixtures("trainings_here")
def test_trainings_that_fail_leave_a_report_of_the_others_that_names_them(
    compare, small_store: Store, folder: Path
) -> None:
    (folder / "default/unet/seed-0/fold-2").write_text("in the place of a run")
    done = compare("--folds", "0,2")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "1 of 2 trainings failed; default/unet/seed-0/fold-2: " in done.err
    assert "report: " in done.out
    assert "1 of 2 trainings are not finished" in (folder / "results.md").read_text()
    contents = read_contents(folder)
    assert contents.about.endswith("so not every case is judged: default/unet/seed-0/fold-2 missing")
    assert sorted(contents.models[0].predictions) == sorted(small_store.split(0)[1])
    assert contents.about in (folder / "report.html").read_text()
    assert contents.commands[1].endswith("--folds 0,2")


def test_a_table_that_is_stopped_while_it_scores_leaves_none_of_older_scores(
    small_store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their label maps may be replaced already."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    score = partial(crossvalidate, small_store.path, folder, models=["unet"], settings=SETTINGS, train=False)
    score()
    with pytest.raises(InputError, match="none of 1 trainings is finished"):
        score(folds=[1])
    assert (folder / "results.json").exists()
    assert list((folder / "cases").iterdir())
    monkeypatch.setattr(module, "keep_cases", stop)
    with pytest.raises(KeyboardInterrupt):
        score()
    assert not (folder / "cases").exists()
    assert not {"results.json", "results.md", "report.html"} & {path.name for path in folder.iterdir()}
    assert not list((folder / "plots").iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "optim.lr=0.1"), "was trained with optim.lr = 0.0015, this comparison wants 0.1"),
        (("--set", "run.seed=3"), "must not set run.seed"),
        (("--folds", "7"), "fold: must be 0 to 2"),
        (("--folds", "one"), "must be numbers of folds"),
        (("--config", "demo", "--config", "demo.toml"), "two recipes 'demo'"),
    ],
)
def test_a_wrong_comparison_is_one_line(compare, options: tuple[str, ...], words: str) -> None:
    done = compare("--no-train", *options)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert words in done.err


def test_cases_of_a_user_are_refused(compare, folder: Path) -> None:
    """Also what is called as ours, where there are no scores."""
    scan = folder / "cases/01/image.npz"
    scan.parent.mkdir(parents=True)
    scan.write_text("mine")
    done = compare("--no-train")
    assert (done.code, "image.npz: is of no evaluation" in done.err) == (2, True)
    assert scan.read_text() == "mine"


def test_a_run_of_another_fold_is_refused(compare, folder: Path) -> None:
    runs = folder / "default/unet/seed-0"
    (runs / "fold-0").rename(runs / "fold-1")
    done = compare("--no-train")
    assert done.code == 2
    assert "must be of fold 1" in done.err


def test_what_cannot_work_is_said_before_anything_is_trained(
    compare, small_store: Store, folder: Path, tmp_path: Path, change_state
) -> None:
    begun = folder / "default/unet/seed-0/fold-0"
    checkpoint = max((begun / "checkpoints").glob("step-*"))
    change_state(checkpoint, finished=False)
    done = compare("--set", "optim.epochs=3")
    assert done.code == 2
    assert "was trained with optim.epochs = 2.0, this comparison wants 3" in done.err
    assert "training default" not in done.out
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for out, words in {
        "typo": "typo: no such folder",
        "file": "file: must be a folder, or nothing yet",
        "empty": "empty: none of 3 trainings is finished",
        small_store.path: "holds a store; name another folder for a cross-validation",
        begun: "holds a run; name another folder",
    }.items():
        done = compare("--no-train", out=tmp_path / out)
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert words in done.err
    assert not list((tmp_path / "empty").iterdir())


def test_runs_with_other_masks_are_refused(small_store: Store, folder: Path) -> None:
    run = load_run(folder / "default/unet/seed-0/fold-0")
    check_belongs(run, small_store, planned(run))
    masks = run.training_labels
    other = replace(run, training_labels=masks | {next(iter(masks)): "corrected"})
    with pytest.raises(InputError, match="was trained with other masks than"):
        check_belongs(other, small_store, planned(run))


def test_runs_and_scores_of_files_that_were_read_in_another_way_are_not_taken(
    compare, small_store: Store, folder: Path, tmp_path: Path
) -> None:
    """The files and their hashes are the same, and their labels are not."""
    held_out, *_ = small_store.split(0)[1]
    training, *_ = small_store.split(0)[0]
    assert compare("--no-train", "--folds", "0").code == 0

    def store_with(change: Callable[[dict[str, Any]], object], case: str) -> Path:
        path = shutil.copytree(small_store.path, tmp_path / f"other-{case}")
        manifest = json.loads((path / "manifest.json").read_text())
        change(next(row for row in manifest["cases"] if row["case"] == case))
        (path / "manifest.json").write_text(json.dumps(manifest))
        return path

    def exchange(row: dict[str, Any]) -> None:
        first, second = list(row["label_mapping"])[1:3]
        mapping = row["label_mapping"]
        mapping[first], mapping[second] = mapping[second], mapping[first]

    run = load_run(folder / "default/unet/seed-0/fold-0")
    with pytest.raises(InputError, match="reads its training cases in another way"):
        check_belongs(run, open_store(store_with(exchange, training)), planned(run))
    other = open_store(store_with(exchange, held_out))
    check_belongs(run, other, planned(run))
    before, after = (score_run(planned(run), store, [UNTOUCHED]) for store in (small_store, other))
    assert before.scores != after.scores


def test_a_run_with_a_setting_of_its_own_is_refused_where_the_comparison_says_auto(
    attunet, small_store: Store, folder: Path
) -> None:
    arguments = [part for part in QUICK if part != "--set" and not part.startswith("optim.epochs")]
    done = attunet("crossvalidate", small_store.path, folder, "--model", "unet", *repeated("--set", arguments))
    assert done.code == 2
    assert "was trained with optim.epochs = 2.0, this comparison wants 'auto'" in done.err
    run = load_run(folder / "default/unet/seed-0/fold-0")
    assert run.automatic == ["optim.batch_size", "optim.schedule"]
    sections = run.config.to_json()
    automatic = Config.from_json(sections | {"optim": sections["optim"] | {"epochs": "auto"}})
    check_belongs(
        replace(run, automatic=["optim.epochs", *run.automatic]), small_store, replace(planned(run), config=automatic)
    )


@pytest.mark.parametrize(
    ("had", "wanted", "words"),
    [
        (0, 0, ""),
        (10, 11, ""),
        (10, 0, "= 10, .* wants 0"),
        (0, 10, "= 0, .* wants 10"),
        (10, 20, "= 10, .* wants 20"),
    ],
)
def test_a_run_of_another_time_is_refused(small_store: Store, folder: Path, had: int, wanted: int, words: str) -> None:
    def timed(run: TrainedRun, minutes: int) -> TrainedRun:
        return replace(run, config=replace(run.config, run=replace(run.config.run, minutes=float(minutes))))

    run = load_run(folder / "default/unet/seed-0/fold-0")
    with pytest.raises(InputError, match=words) if words else nullcontext():
        check_belongs(timed(run, had), small_store, planned(timed(run, wanted)))


def test_a_source_that_has_moved_leaves_the_older_table(compare, folder: Path, tmp_path: Path) -> None:
    assert compare("--no-train", "--folds", "0").code == 0
    before = (folder / "results.json").read_bytes()
    (folder / "default/unet/seed-0/fold-0/held_out.json").unlink()
    done = compare("--no-train", "--folds", "0", "--source", tmp_path / "moved")
    assert (done.code, "moved" in done.err) == (2, True)
    assert (folder / "results.json").read_bytes() == before


def test_label_maps_of_another_post_processing_are_made_again(small_store: Store, folder: Path) -> None:
    run = load_run(folder / "default/unet/seed-0/fold-0")
    case = run.path / HELD_OUT / f"{run.held_out[0]}.npz"

    def is_written(how: Postprocessing) -> bool:
        case.parent.mkdir(exist_ok=True)
        case.write_bytes(b"of an earlier call")
        store = replace(small_store, preprocessing=replace(small_store.preprocessing, postprocessing=how))
        score_run(planned(run), store, [how])
        return case.read_bytes() != b"of an earlier call"

    assert [is_written(how) for how in (LARGEST, LARGEST, UNTOUCHED, LARGEST)] == [True, False, True, True]


def test_a_report_shows_the_trainings_of_its_results_alone(compare, folder: Path) -> None:
    assert compare("--no-train", "--folds", "0").code == 0
    contents = read_contents(folder)
    before, *_ = contents.models
    assert set(contents.case_details) == set(contents.cases)
    for of_earlier_call in ("default/unet/seed--1/fold-0", "another/unet/seed-0/fold-0"):
        run = shutil.copytree(folder / "default/unet/seed-0/fold-0", folder / of_earlier_call)
        (run / "held_out.json").write_text("{")
        after, *_ = read_contents(folder).models
        assert (after.predictions, after.details, after.curves) == (before.predictions, before.details, before.curves)
        assert read_contents(folder).case_details == contents.case_details


def test_a_damaged_last_checkpoint_is_not_finished(folder: Path, change_state) -> None:
    run = folder / "default/unet/seed-0/fold-0"
    step, finished = progress_of(run)
    assert finished
    checkpoint = max((run / "checkpoints").glob("step-*"))
    earlier = shutil.copytree(checkpoint, checkpoint.with_name("step-0000000001"))
    change_state(earlier, step=1, finished=False)
    with (checkpoint / "average.safetensors").open("r+b") as file:
        file.truncate(100)
    assert step > 1
    assert progress_of(run) == (1, False)
    shutil.rmtree(earlier)
    assert progress_of(run) == (0, False)


def test_a_job_that_cannot_begin_is_a_failure_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    jobs = [Job("first", ("--help",), tmp_path / "file/first.log"), Job("second", ("--help",), tmp_path / "second.log")]
    first, second = run_jobs(jobs, 1, [], started=lambda job: None, stop=lambda: False)
    assert first.code == 1
    assert "file" in first.last_line
    assert second.code == 0


def test_no_training_outlives_a_caller_that_gives_up(small_store: Store, tmp_path: Path) -> None:
    slow = (str(small_store.path), str(tmp_path / "run"), "--fold", "0", *QUICK, "--set", "optim.epochs=10000")
    jobs = [Job("slow", slow, tmp_path / "slow.log"), Job("quick", ("--help",), tmp_path / "quick.log")]
    outcomes = run_jobs(jobs, 2, [], started=lambda job: None, stop=lambda: False)
    assert next(outcomes).job.name == "quick"
    outcomes.close()
    ours = psutil.Process().children(recursive=True)
    assert not [process for process in ours if "attunet.launch.train" in process.cmdline()]


KILLED = """
import sys
from pathlib import Path
from attunet.benchmarks.crossvalidation.jobs import Job, run_jobs

job = Job("slow", tuple(sys.argv[2:]), Path(sys.argv[1]))
list(run_jobs([job], 1, [], started=lambda job: print("started", flush=True), stop=lambda: False))
"""


def test_a_training_ends_with_a_caller_that_is_killed(small_store: Store, tmp_path: Path) -> None:
    slow = [small_store.path, tmp_path / "run", "--fold", 0, *QUICK, "--set", "optim.epochs=10000"]
    command = [sys.executable, "-c", KILLED, tmp_path / "slow.log", *slow]
    caller = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True)
    with caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "started\n"
        (training,) = psutil.Process(caller.pid).children()
        deadline = time.monotonic() + 120
        while not (tmp_path / "run/run.lock").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert training.is_running()
        caller.kill()
    assert psutil.wait_procs([training], timeout=60)[1] == []


def test_scores_that_were_changed_to_what_is_no_figure_are_refused(compare, folder: Path) -> None:
    options = ("--no-train", "--folds", "0")
    assert compare(*options).code == 0
    kept = folder / "default/unet/seed-0/fold-0/held_out.json"
    whole = kept.read_text()

    def lose(figures: dict[str, object]) -> object:
        return figures.pop("liver")

    for change in (
        lose,
        lambda figures: figures.update(liver="\x1b[31mX"),
        lambda figures: figures.update(liver=True),
        lambda figures: figures.update(heart=0.5),
        lambda figures: figures.update(liver=5),
    ):
        data = json.loads(whole)
        (scores,) = data["scores"].values()
        change(next(iter(scores.values()))["surface_dice"])
        kept.write_text(json.dumps(data))
        done = compare(*options)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert f"{kept}: must have a number or null for each case, metric and class" in done.err
    kept.write_text(whole)
    assert compare(*options).code == 0


def test_another_checkpoint_is_judged_again(compare, small_store: Store, folder: Path) -> None:
    options = ("--no-train", "--folds", "0")
    assert compare(*options).code == 0
    kept = folder / "default/unet/seed-0/fold-0/held_out.json"
    data = json.loads(kept.read_text())
    (scores,) = data["scores"].values()
    scores[small_store.split(0)[1][0]]["dice"]["liver"] = 0.5
    kept.write_text(json.dumps(data))
    assert compare(*options).code == 0
    assert json.loads(kept.read_text()) == data  # the same checkpoint: read again
    mask = {case: [image, "of an earlier mask"] for case, (image, _) in data["cases"].items()}
    for other in ({"checkpoint": "of another training"}, {"cases": mask}):
        kept.write_text(json.dumps(data | other))
        assert compare(*options).code == 0
        judged = json.loads(kept.read_text())
        assert judged["cases"] == data["cases"]
        assert judged["scores"] != data["scores"]


@pytest.mark.soak
def test_a_stopped_comparison_stops_its_trainings_and_continues(small_store: Store, tmp_path: Path) -> None:
    slow = (*QUICK, "--set", "optim.epochs=60", "--set", "optim.batch_size=4", "--set", "run.log_every=1")
    command = [sys.executable, "-m", "attunet.launch.cli", "crossvalidate", str(small_store.path), str(tmp_path)]
    command += ["--jobs", "2", "--model", "unet", "--model", "attention_unet", "--folds", "0", *slow]
    logs = [tmp_path / f"default/{model}/seed-0/fold-0/metrics.jsonl" for model in ("unet", "attention_unet")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not all(log.exists() for log in logs):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, out
    assert "the same call continues" in out
    steps = [progress_of(log.parent) for log in logs]
    assert all(step > 0 and not finished for step, finished in steps)
    assert not list(tmp_path.rglob("run.lock"))
    subprocess.run(command, check=True, timeout=400, stdout=subprocess.DEVNULL)
    assert all(progress_of(log.parent)[1] for log in logs)
    assert all("resuming at step" in log.parent.with_suffix(".log").read_text() for log in logs)
    assert not json.loads((tmp_path / "results.json").read_text())["missing"]


@pytest.mark.parametrize(("num_runs", "jobs", "expected"), [(10, 1, 9.2), (10, 4, 30.667), (3, 4, 92.0)])
def test_the_time_of_a_table_is_shared_by_its_trainings(num_runs: int, jobs: int, expected: float) -> None:
    assert minutes_per_run(100, num_runs, jobs) == expected


def test_long_scores_and_the_start_leave_less_time_to_the_trainings() -> None:
    assert minutes_per_run(10, 2, 1, scoring=0.1, spent=0.2) == 4.5
    assert minutes_per_run(10, 2, 1, scoring=3.0, spent=0.2) == 3.4
    with pytest.raises(InputError, match=r"too little time for 20 trainings and their scores, 1\.2 more"):
        minutes_per_run(1, 20, 1, scoring=0.2)


def test_scores_are_estimated_from_one_case(small_store: Store, tmp_path: Path) -> None:
    few, many = (scoring_seconds(small_store, folds, 1) for folds in ([0], [0] * 50))
    assert FIXED_SECONDS < few < many
    assert scoring_seconds(open_store(small_store.path, source=tmp_path), [0], 1) == 0


@pytest.mark.usefixtures("trainings_here")
@pytest.mark.slow
def test_every_training_starts_from_the_model_of_init(compare, folder: Path, tmp_path: Path) -> None:
    weights = next((folder / "default/unet/seed-0/fold-0/checkpoints").glob("step-*")) / "average.safetensors"
    tuned = tmp_path / "tuned"
    done = compare("--folds", "0", "--init", weights, out=tuned)
    assert done.code == 0, done.err
    lineage = load_run(tuned / "default/unet/seed-0/fold-0").lineage
    assert lineage is not None
    assert lineage.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert "--init average.safetensors" in json.loads((tuned / "results.json").read_text())["commands"][1]
    assert "training default" not in compare("--folds", "0", "--init", weights, out=tuned).out
    for options, words in (
        ((), "started from the weights of average.safetensors, this comparison wants fresh weights (--init)"),
        (("--init-classes", "a=b"), "--init-classes: needs --init"),
        (("--init", tmp_path / "none"), "must be a run, a checkpoint or a .safetensors file"),
    ):
        done = compare("--folds", "0", *options, out=tuned)
        assert done.code == 2
        assert words in done.err
    done = compare("--folds", "1", "--init", weights, out=tmp_path / "seen")
    assert done.code == 2
    assert "must not have seen the cases that are left out, but it was trained on" in done.err
    assert not (tmp_path / "seen").exists()


def test_a_training_that_started_from_other_weights_than_the_call_is_in_no_table(
    small_store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run of --init may be trained on while the others start from it."""
    trained, out = folder / "default/unet/seed-0/fold-0", tmp_path / "out"
    weights = next((trained / "checkpoints").glob("step-*")) / "average.safetensors"

    def train(plan: Sequence[PlannedRun], *_: object) -> str:
        shutil.copytree(trained, plan[0].path)
        return ""

    monkeypatch.setattr(module, "_train", train)
    with pytest.raises(InputError, match="started from fresh weights, this comparison wants those of average"):
        crossvalidate(small_store.path, out, models=["unet"], settings=SETTINGS, folds=[0], init=weights)
    assert not (out / "results.json").exists()


def test_a_comparison_is_continued_with_the_table_that_it_was_begun_with(compare, folder: Path, tmp_path: Path) -> None:
    """In another, a number is another patient; and what was written with names stays, such as the logs of trainings."""
    out, key, log = tmp_path / "out", tmp_path / "key.csv", "default/unet/seed-0/fold-0.log"
    done = compare("--no-train", "--pseudonymise", key)
    assert (done.code, "is called by names, not by the table key.csv" in done.err) == (2, True)
    out.mkdir()
    for _ in range(2):
        done = compare("--no-train", "--pseudonymise", key, out=out)
        assert "none of 3 trainings is finished" in done.err
        (out / log).parent.mkdir(parents=True, exist_ok=True)
        (out / log).touch()
    done = compare("--no-train", "--pseudonymise", tmp_path / "other.csv", out=out)
    assert (done.code, "is called by another table" in done.err) == (2, True)
    assert "is called by another table, not by names" in compare("--no-train", out=out).err


@pytest.mark.parametrize("name", ["checkpoints", "cases", "Plots", "manifest.json", "results.json", ".partial"])
def test_no_recipe_has_the_place_of_the_table_s_own_files(
    attunet, small_store: Store, tmp_path: Path, name: str
) -> None:
    """A folder with `checkpoints` is a run to the next call, and an evaluation removes `cases`."""
    recipe, out = tmp_path / f"{name}.toml", tmp_path / "out"
    recipe.write_text("[model]\nbase_width = 4\n")
    out.mkdir()
    done = attunet("crossvalidate", small_store.path, out, "--model", "unet", "--config", recipe, "--no-train")
    assert (done.code, f"the recipe {name!r} would have the place of the table's own files" in done.err) == (2, True)


def test_a_recipe_s_file_may_not_lead_out_of_the_folder(attunet, small_store, tmp_path: Path) -> None:
    recipe = tmp_path / "...toml"
    recipe.write_text("[model]\nbase_width = 4\n")
    done = attunet("crossvalidate", small_store.path, tmp_path / "out/inner", "--model", "unet", "--config", recipe)
    assert (done.code, "must name the recipe's folder, got '..'" in done.err) == (2, True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["...toml"]
