"""Commands that measure models: evaluate, report, benchmark. Each imports what it needs when it runs."""

from pathlib import Path

import click

from attunet.launch.exit_codes import debug_option
from attunet.launch.options import PATH, PROVIDERS, pseudonymise_option
from attunet.system.lock import writing


@click.command(short_help="Dice and latency of models, side by side.")
@click.argument("store", type=PATH)
@click.argument("models", type=PATH, nargs=-1, required=True, metavar="MODEL...")
@click.option("--out", type=PATH, required=True, metavar="DIR")
@click.option(
    "--provider",
    "providers",
    type=click.Choice(PROVIDERS),
    multiple=True,
    help="For artefacts; may be repeated.  [default: cpu]",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="For runs, which PyTorch evaluates.",
)
@click.option(
    "--fold", type=click.IntRange(0), help="Only the cases that this fold leaves out; every labelled case by default."
)
@click.option("--source", type=PATH, metavar="DIR", help="Where the store's source is now, if it moved.")
@click.option(
    "--latency-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="For each row.",
)
@pseudonymise_option
@debug_option
def evaluate(
    store: Path,
    models: tuple[Path, ...],
    out: Path,
    providers: tuple[str, ...],
    device: str,
    fold: int | None,
    source: Path | None,
    latency_seconds: float,
    pseudonymise: Path | None,
) -> None:
    """Dice and latency of each MODEL (a run, a folder of runs, or an .onnx), side by side.

    Written to DIR: results.json, results.md, plots, and report.html where the extra `report` is installed.
    """
    from attunet.benchmarks.evaluation.evaluate import evaluate as run
    from attunet.benchmarks.evaluation.results_table import summary_table
    from attunet.benchmarks.report.write_report import write_report_if_installed

    with writing(out, "evaluation"):
        results = run(
            store,
            models,
            out,
            providers=providers or ("cpu",),
            device=device,
            fold=fold,
            source=source,
            latency_seconds=latency_seconds,
            pseudonymise=pseudonymise,
        )
    click.echo(summary_table(results))
    click.echo(f"written to {out}: results.json, results.md, plots/")
    write_report_if_installed(out)


@click.command(short_help="One HTML file of an evaluation or a cross-validation.")
@click.argument("folder", type=PATH, metavar="EVALUATION_OR_CROSSVALIDATION")
@click.option(
    "-o", "--out", type=PATH, metavar="FILE.html", help="Where to write it.  [default: report.html in the folder]"
)
@click.option(
    "--cases",
    default="worst:3",
    show_default=True,
    metavar="worst:N|all|NAME,...",
    help="Cases to look at slice by slice; they make up most of the file.",
)
@debug_option
def report(folder: Path, out: Path | None, cases: str) -> None:
    """Write FOLDER, which `evaluate` or `crossvalidate` wrote, as one HTML file:
    scores, charts, and scans to look into.

    The file holds everything it shows and fetches nothing.
    """
    from attunet.benchmarks.report.write_report import write_report

    write_report(folder, out, cases=cases)


@click.command(short_help="Every precision and provider of a model in one table.")
@click.argument("model", type=PATH)
@click.argument("store", type=PATH)
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Folder for the exported files and the results.")
@click.option(
    "--provider", "providers", type=click.Choice(PROVIDERS), multiple=True, help="May be repeated.  [default: all]"
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["fp32", "fp16", "int8"]),
    multiple=True,
    help="May be repeated.  [default: all]",
)
@click.option(
    "--batch", "batches", type=click.IntRange(1), multiple=True, help="Batch sizes besides 1 and 8; may be repeated."
)
@click.option("--source", type=PATH, metavar="DIR", help="Where the store's source is now, if it moved.")
@click.option(
    "--latency-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="For each row.",
)
@pseudonymise_option
@debug_option
def benchmark(
    model: Path,
    store: Path,
    out: Path,
    providers: tuple[str, ...],
    precisions: tuple[str, ...],
    batches: tuple[int, ...],
    source: Path | None,
    latency_seconds: float,
    pseudonymise: Path | None,
) -> None:
    """Export MODEL, a run, in every precision, as slices and as a whole graph,
    and compare all of it on STORE with every provider.

    MODEL may be an artefact, which is compared as it is. Rows that do not load say why.
    """
    from attunet.benchmarks.evaluation.benchmark import benchmark as run

    results = run(
        model,
        store,
        out,
        providers=providers or PROVIDERS,
        precisions=precisions or ("fp32", "fp16", "int8"),
        batch_sizes=batches,
        source=source,
        latency_seconds=latency_seconds,
        pseudonymise=pseudonymise,
    )
    click.echo(results.table())
