"""One network in every form:
`python -m attunet.benchmarks.speed.inference.sweep [--width 64] [--size 256] [--threads 2] [--device cpu]`.

PyTorch, bare ONNX Runtime sessions and the runtime's `Segmenter`, all in one process and in turns. The rows have int8
beside fp32, the runtime beside a bare session, up-sampling by transposed convolution beside a pixel shuffle. The
network has random weights, or is a run's (`--run`). Prints a table and one JSON line. Accuracy is `attunet evaluate`'s;
here logits are only compared, so that no form is timed that computes something else.
"""

import argparse
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.benchmarks.speed.inference.forms import Form, Make, Subject, fresh_network, on_cpu, on_gpu
from attunet.benchmarks.speed.program import (
    LATENCY_COLUMNS,
    add_runs,
    keep,
    program_parser,
    rows_in_turns,
    run_program,
    timing_settings,
)
from attunet.config import MODELS
from attunet.errors import InputError, RunError
from attunet.system.environment import environment
from attunet.system.private_folder import PrivateFolder
from attunet.system.workers import usable_cores

logger = logging.getLogger(__name__)

COLUMNS = {
    "": "{name}",
    "batch": "{shape[0]}",
    **LATENCY_COLUMNS,
    "× first": "{times_the_first:.2f}",
    "logits differ by": "{logits_differ_by:.1e}",
}


def measure(
    subject: Subject,
    *,
    device: str,
    num_threads: int,
    batch_sizes: Sequence[int],
    only: Sequence[str] = (),
    runs: int = 200,
    seconds: float = math.inf,
    file: Path | None = None,
) -> Json:
    """A row for each form and batch size; arguments are the program's options. A form that does not load is in
    `skipped`, with the reason; `file` is written again after every batch size.

    Example:
        >>> measure(subject, device="cpu", num_threads=2, batch_sizes=[1, 8], runs=20)  # doctest: +SKIP
    """
    makers = on_gpu(subject) if device == "cuda" else on_cpu(subject, num_threads=num_threads)
    if unknown := [name for name in only if name not in makers]:
        raise InputError(f"--only: must be of {'; '.join(makers)}, got {unknown[0]!r}")
    forms, skipped, load_ms = _load({name: makers[name] for name in only or makers})
    if not forms:
        raise RunError("inference: nothing could be loaded")
    settings: Json = {
        **timing_settings(runs, seconds),
        "threads": num_threads if device == "cpu" else None,
        "num_parameters": sum(p.numel() for p in subject.network.parameters()),
        "size": list(subject.size),
        "device": device,
    }
    rows: list[Json] = []
    results: Json = {
        "environment": environment(),
        "settings": settings,
        "skipped": skipped,
        "load_ms": load_ms,
        "rows": rows,
    }
    for batch in batch_sizes:
        rows += _time(forms, subject.slices(batch), runs, seconds)
        keep(results, file)
    return results


def _load(makers: Mapping[str, Make]) -> tuple[dict[str, Form], dict[str, str], dict[str, float]]:
    """The forms that load, the reasons of the others, and the milliseconds that loading took."""
    forms: dict[str, Form] = {}
    skipped, load_ms = {}, {}
    for name, make in makers.items():
        began = time.perf_counter()
        try:
            forms[name] = make()
        except (InputError, RunError) as error:
            skipped[name] = str(error)
            logger.info(f"skipped: {name}: {error}")
        else:
            load_ms[name] = 1000 * (time.perf_counter() - began)
    return forms, skipped, load_ms


def _time(forms: Mapping[str, Form], slices: np.ndarray, runs: int, seconds: float) -> list[Json]:
    expected = next(iter(forms.values())).logits(slices)
    calls = [form.timed_call(slices) for form in forms.values()]
    timed = rows_in_turns(calls, len(slices), "times_the_first", runs=runs, seconds=seconds)
    return [
        {
            "name": name,
            "options": {**form.options},
            "shape": list(slices.shape),
            **row,
            "logits_differ_by": _root_mean_square(form.logits(slices) - expected) / _root_mean_square(expected),
        }
        for (name, form), row in zip(forms.items(), timed, strict=True)
    ]


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def table(results: Json) -> str:
    return format_table(results["rows"], COLUMNS)


def main() -> None:
    cores = usable_cores()
    parser = program_parser("One network in every form, timed in turns.")
    parser.add_argument("--run", type=Path, help="a trained run's network instead of random weights")
    parser.add_argument("--model", choices=list(MODELS), default="attention_unet")
    parser.add_argument("--width", type=int, default=64, help="channels of the finest level, 64 by default")
    parser.add_argument("--size", type=int, default=256, help="of the square slices, 256 by default")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=cores, help="of the CPU's forms, all usable cores by default")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="1 and 8 by default, on a GPU 1 and 32")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="one row of the table; may be repeated"
    )
    add_runs(parser)

    def measured(arguments: argparse.Namespace) -> Json:
        with PrivateFolder() as folder:
            return measure(
                _subject(arguments, folder.path),
                device=arguments.device,
                num_threads=arguments.threads,
                batch_sizes=arguments.batch_sizes or ([1, 32] if arguments.device == "cuda" else [1, 8]),
                only=arguments.only,
                runs=arguments.runs,
                seconds=arguments.seconds,
                file=arguments.json,
            )

    run_program("inference.sweep", parser, measured, table)


def _subject(arguments: argparse.Namespace, folder: Path) -> Subject:
    if arguments.run is None:
        width, size = arguments.width, arguments.size
        if width < 1 or size < 16 or size % 16:
            raise InputError(f"--width, --size: must be at least 1 and a multiple of 16, got {width} and {size}")
        return Subject(fresh_network(arguments.model, width=width), (size, size), folder)
    from attunet.runs.ensemble import load_runs

    run = load_runs(arguments.run)
    return Subject(run.network.eval(), run.spec.size, folder, run.spec.in_channels, len(run.classes))


if __name__ == "__main__":
    main()
