"""Commands that measure models: evaluate, report, benchmark. Each imports what it needs when it runs."""

from pathlib import Path

import click
from click import option

from attunet.launch.exit_codes import debug_option
from attunet.launch.options import (
    DEVICE,
    PATH,
    PRECISION,
    PRECISIONS,
    PROVIDER,
    PROVIDERS,
    SECONDS,
    Value,
    check_computes,
    moved_source_option,
    pseudonymise_option,
    several,
)


@click.command(short_help="Dice and latency of models, side by side.")
@click.argument("store", type=PATH)
@click.argument("models", type=PATH, nargs=-1, required=True, metavar="MODEL...")
@option("--out", type=PATH, required=True, metavar="DIR")
@several("--provider", "--providers", "providers", each=PROVIDER, default=["cpu"], help="For artefacts")
@option("--device", type=DEVICE, default="cpu", help="For runs, which PyTorch evaluates.")
@option(
    "--fold", type=click.IntRange(0), help="Only the cases that this fold leaves out; every labelled case by default."
)
@moved_source_option
@option("--latency-seconds", type=SECONDS, default=5.0, help="For each row.")
@pseudonymise_option
@debug_option
def evaluate(store: Path, models: tuple[Path, ...], out: Path, **options: Value) -> None:
    """Dice and latency of each MODEL (a run, a folder of runs, or an .onnx), side by side.

    Written to DIR: results.json, results.md, plots, and report.html where the extra `report` is installed.
    """
    from attunet.benchmarks.evaluation.evaluate import evaluate as run
    from attunet.benchmarks.evaluation.results_table import summary_table
    from attunet.benchmarks.report.write_report import write_report_if_installed

    check_computes(models, options["providers"], options["device"])
    results = run(store, models, out, **options)
    click.echo(summary_table(results))
    click.echo(f"written to {out}: results.json, results.md, plots/")
    write_report_if_installed(out)


@click.command(short_help="One HTML file of an evaluation or a cross-validation.")
@click.argument("folder", type=PATH, metavar="EVALUATION_OR_CROSSVALIDATION")
@option("-o", "--out", type=PATH, metavar="FILE.html", help="The page to write.  [default: report.html in the folder]")
@option(
    "--cases",
    default="worst:3",
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
@option("--out", type=PATH, required=True, metavar="DIR", help="Folder for the exported files and the results.")
@several(
    "--provider",
    "--providers",
    "providers",
    each=PROVIDER,
    default=PROVIDERS,
    show_default=False,
    help="All by default",
)
@several(
    "--precision",
    "--precisions",
    "precisions",
    each=PRECISION,
    default=PRECISIONS,
    show_default=False,
    help="All by default",
)
@several("--batch", "batch_sizes", each=click.IntRange(1), help="Batch sizes besides 1 and 8")
@moved_source_option
@option("--latency-seconds", type=SECONDS, default=2.0, help="For each row.")
@pseudonymise_option
@debug_option
def benchmark(model: Path, store: Path, out: Path, **options: Value) -> None:
    """Export MODEL, a run, in every precision, as slices and as a whole graph,
    and compare all of it on STORE with every provider.

    MODEL may be an artefact, which is compared as it is. Rows that do not load say why.
    """
    from attunet.benchmarks.evaluation.benchmark import benchmark as run

    click.echo(run(model, store, out, **options).table())
