"""Commands that make models: crossvalidate, export. Each imports what it needs when it runs."""

from pathlib import Path

import click
from click import option

from attunet.errors import InputError
from attunet.launch.exit_codes import debug_option
from attunet.launch.options import (
    DEVICE,
    MINUTES,
    MODEL,
    PARITY_CASES,
    PATH,
    PRECISION,
    FoldList,
    Value,
    init_options,
    moved_source_option,
    pseudonymise_option,
    settings_option,
)
from attunet.system.plain_text import printable_line
from attunet.system.workers import process_start


@click.command(short_help="Folds, seeds, networks and recipes in one table.")
@click.argument("store", type=PATH)
@click.argument("out", type=PATH, metavar="DIR")
@option("--model", "models", type=MODEL, multiple=True, required=True, help="May be repeated.")
@option("--seeds", "num_seeds", type=click.IntRange(1), default=1, help="Number of seeds, from 0.")
@option(
    "--config",
    "config_names",
    metavar="FILE|PRESET",
    multiple=True,
    help="A recipe; repeated, recipes are compared too.",
)
@settings_option
@option("--folds", type=FoldList(), metavar="K,...", help="Only these folds; all by default.")
@option("--jobs", type=click.IntRange(1), help="Trainings at a time.  [default: one per GPU, or one]")
@option("--minutes", type=MINUTES, help="The time for all trainings and their table, in place of epochs.")
@init_options
@option(
    "--no-train",
    "train",
    flag_value=False,
    default=True,
    show_default=False,
    help="Judge and tabulate what is finished.",
)
@option(
    "--largest-component",
    "every_postprocessing",
    is_flag=True,
    help="Judge three times: as the store says, with every class's largest connected part alone, with all parts.",
)
@moved_source_option
@pseudonymise_option
@debug_option
def crossvalidate(store: Path, out: Path, **options: Value) -> None:
    """Train every recipe and network on every fold with every seed, judge each on what it left out:
    results.json, results.md, plots.

    Runs lie in DIR/RECIPE/MODEL/seed-S/fold-K; finished ones are taken, interrupted ones continued.
    """
    from attunet.benchmarks.crossvalidation.crossvalidate import TrainingsFailed
    from attunet.benchmarks.crossvalidation.crossvalidate import crossvalidate as run
    from attunet.benchmarks.crossvalidation.results_table import summary_table
    from attunet.benchmarks.report.write_report import write_report_if_installed

    failure: TrainingsFailed | None = None
    try:
        results = run(store, out, began=process_start(), **options)
    except TrainingsFailed as error:
        failure, results = error, error.results
    click.echo(summary_table(results))
    for comparison in results["comparisons"]:
        click.echo(printable_line(comparison["words"]))
    write_report_if_installed(out)
    if failure is not None:
        raise failure


@click.command(short_help="Write a run as one .onnx file, or for Triton.")
@click.argument("run", type=PATH)
@click.argument("out", type=PATH)
@option("--precision", type=PRECISION, default="fp32")
@option(
    "--output",
    "outputs",
    type=click.Choice(["labels", "logits", "probabilities", "attention"]),
    multiple=True,
    default=["labels", "logits"],
    help="Output of the graph; may be repeated, logits must be among them.",
)
@option(
    "--triton",
    metavar="NAME",
    help="OUT is a folder: a model repository of NVIDIA's Triton server with the model NAME.",
)
@option("--whole", is_flag=True, help="The graph takes a volume and gives its label map, instead of slices and logits.")
@option(
    "--size",
    type=int,
    nargs=2,
    metavar="H W",
    help="Fixed height and width of the slices; any multiples of 16 by default.",
)
@option(
    "--largest-component/--all-components",
    default=None,
    help="Keep the largest connected part of every class alone, or all parts.  [default: as the store says]",
)
@option("--license", help="Of the training data, noted in the artefact.")
@option("--store", type=PATH, help="The store of the run, if it moved.")
@moved_source_option
@option("--provider", type=DEVICE, help="Judges the artefact.  [default: cuda for fp16 where it runs]")
@option(
    "--parity-cases",
    type=PARITY_CASES,
    metavar="N|all",
    help="Cases to judge it on.  [default: as many as take two minutes]",
)
@option(
    "--confidence",
    type=PATH,
    metavar="DIR",
    help="A cross-validation of this network: predictions get estimates of their Dice.",
)
@option("--web", type=PATH, metavar="FOLDER", help="Write the page that runs OUT in a browser too; see attunet web.")
@pseudonymise_option
@debug_option
def export(run: Path, out: Path, web: Path | None, **options: Value) -> None:
    """Write RUN as the one file OUT, a self-describing .onnx; refused unless it agrees with the checkpoint.

    RUN may be a folder with several runs below it, as crossvalidate makes: they become one file that averages their
    probabilities.
    """
    from attunet.export.build.export_run import export_run
    from attunet.export.web.write_page import page_files, require_page, write_page

    if web is not None:  # what ends the page ends the work before the export
        if options["whole"] or options["triton"]:
            raise InputError("--web: the page gives slices to one file: leave out --whole and --triton")
        if out.resolve().is_relative_to(web.resolve()):
            raise InputError(f"{out}: must lie outside of the page, {web}, whose files are its own")
        page_files()
        require_page(web)
    export_run(run, out, **options)
    if web is not None:
        write_page(out, web)
