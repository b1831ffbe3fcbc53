"""The commands that write, each into a folder of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from attunet.export.web.write_page import PAGE

PREPARATION = ["--folds", 2, "--set=data.size=32"]
TRAINING = ["--set=optim.epochs=2", "--set=run.checkpoint_every_steps=2"]
SHORTLY = ["--fold", 0, "--latency-seconds", 0.01]
LOGS = (".jsonl", ".log", ".png", "environment.json")
ORIGIN = ".nii.gz.json"  # of a label map: names its record in the audit log, and the scan of a random number
FIGURES = (*LOGS, "results.json", "results.md", "report.html")  # times differ from call to call


@dataclass(frozen=True)
class Command:
    """A command that writes into a folder.

    Args:
        name: of the command.
        arguments: of the command line, for an output folder.
        product: what is whole or not there, below the output folder; empty for a folder that grows, or whose figures
            differ.
        varies: endings of files that differ from one call to the next: logs, times, pictures.
        again: arguments that are added to go on after a stop.
        is_quick: it takes a part of a second and writes little: its disk is full at every page in turn.
    """

    name: str
    arguments: Callable[[Path], Sequence[object]]
    product: str
    varies: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    is_quick: bool = False


def commands_of(folder: Path, small: Sequence[str]) -> list[Command]:
    """The commands, for the scans, the store, the run, the artefact and the evaluation in a folder. Quick ones
    stand first: in a rehearsal the others may not get their turn.
    """
    scans, store, run, model = (folder / name for name in ("scans", "store", "run", "model.onnx"))
    train, cross = ["--fold", 0, *small, *TRAINING], ["--model", "unet", "--folds", "0", *small]
    quick = partial(Command, is_quick=True)
    predict = ["predict", model, scans]
    page = [Command("web", lambda out: ["web", model, out / "page.html"], "page.html")]
    return [
        quick("prepare", lambda out: ["prepare", scans, out / "store", *PREPARATION], "store"),
        quick("predict", lambda out: [*predict, out / "labels"], "labels"),
        Command("report", lambda out: ["report", folder / "evaluation", "-o", out / "report.html"], "report.html"),
        Command("phantom", lambda out: ["phantom", out / "cases", "--cases", 1], ""),
        quick("card", lambda out: ["card", model, "-o", out / "README.md"], "README.md"),
        quick(
            "predict --audit",
            lambda out: [*predict, out / "labels", "--audit", out / "log.jsonl"],
            "labels",
            (*LOGS, ORIGIN),
        ),
        quick(
            "predict --pseudonymise",
            lambda out: [*predict, out / "labels", "--pseudonymise", out / "key.csv"],
            "",
            (".csv", ".nii.gz", ORIGIN, ".pseudonyms"),  # numbers are random
        ),
        Command("inspect --picture", lambda out: ["inspect", store, "--picture", out / "all.png"], "", LOGS),
        *(page if (PAGE / "index.html").is_file() else []),
        Command("train", lambda out: ["train", store, out / "run", *train], "", LOGS, ("--resume=auto",)),
        Command("evaluate", lambda out: ["evaluate", store, model, "--out", out / "results", *SHORTLY], "", FIGURES),
        Command("export", lambda out: ["export", run, out / "model.onnx"], "model.onnx"),
        Command(
            "crossvalidate",
            lambda out: ["crossvalidate", store, out / "cv", *cross, "--set=optim.epochs=1"],
            "",
            (*FIGURES, "held_out.json"),
        ),
        Command(
            "benchmark",
            lambda out: ["benchmark", model, store, "--out", out / "results", "--provider", "cpu", *SHORTLY[2:]],
            "",
            (*FIGURES, "benchmark.json", "benchmark.md"),
        ),
    ]
