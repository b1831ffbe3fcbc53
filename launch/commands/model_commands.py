"""Commands that make and check models: crossvalidate, export, web, card, sign, verify.
Each imports what it needs when it runs.
"""

from pathlib import Path

import click

from attunet.config import MODELS
from attunet.launch.exit_codes import debug_option
from attunet.launch.options import PATH, PROVIDERS, FoldList, parse_parity_cases, pseudonymise_option
from attunet.system.lock import writing


@click.command(short_help="Folds, seeds, networks and recipes in one table.")
@click.argument("store", type=PATH)
@click.argument("out", type=PATH, metavar="DIR")
@click.option(
    "--model", "models", type=click.Choice(list(MODELS)), multiple=True, required=True, help="May be repeated."
)
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="How many, from 0.")
@click.option(
    "--config",
    "config_names",
    metavar="FILE|PRESET",
    multiple=True,
    help="A recipe; repeated, recipes are compared too.",
)
@click.option(
    "--set",
    "settings",
    metavar="SECTION.FIELD=VALUE",
    multiple=True,
    help="Set one field in every recipe; may be repeated.",
)
@click.option("--folds", type=FoldList(), metavar="K,...", help="Only these folds; all by default.")
@click.option("--jobs", type=click.IntRange(1), help="Trainings at a time.  [default: one per GPU, or one]")
@click.option("--minutes", type=click.FloatRange(0.1), help="The time for all trainings together, in place of epochs.")
@click.option(
    "--init",
    type=PATH,
    metavar="RUN|CHECKPOINT|FILE",
    help="Start every training from these weights, as attunet train does.",
)
@click.option(
    "--init-classes", default="", metavar="NEW=OLD,...", help="Classes that the model of --init calls by another name."
)
@click.option("--no-train", is_flag=True, help="Judge and tabulate what is finished.")
@click.option(
    "--largest-component",
    is_flag=True,
    help="Judge in every way: as the store says, with every class's largest connected part alone, with all parts.",
)
@click.option("--source", type=PATH, metavar="DIR", help="Where the store's source is now, if it moved.")
@pseudonymise_option
@debug_option
def crossvalidate(
    store: Path,
    out: Path,
    models: tuple[str, ...],
    seeds: int,
    config_names: tuple[str, ...],
    settings: tuple[str, ...],
    folds: list[int] | None,
    jobs: int | None,
    minutes: float | None,
    init: Path | None,
    init_classes: str,
    no_train: bool,
    largest_component: bool,
    source: Path | None,
    pseudonymise: Path | None,
) -> None:
    """Train every recipe and network on every fold with every seed, judge each on what it left out:
    results.json, results.md, plots.

    Runs lie in DIR/RECIPE/MODEL/seed-S/fold-K; finished ones are taken, interrupted ones continued.
    """
    from attunet.benchmarks.crossvalidation.crossvalidate import TrainingsFailed
    from attunet.benchmarks.crossvalidation.crossvalidate import crossvalidate as run
    from attunet.benchmarks.crossvalidation.results_table import summary_table
    from attunet.benchmarks.report.write_report import write_report_if_installed

    failure: TrainingsFailed | None = None
    with writing(out, "cross-validation"):
        try:
            results = run(
                store,
                out,
                models=models,
                config_names=config_names,
                settings=settings,
                num_seeds=seeds,
                folds=folds,
                jobs=jobs,
                minutes=minutes,
                init=init,
                init_classes=init_classes,
                train=not no_train,
                every_postprocessing=largest_component,
                source=source,
                pseudonymise=pseudonymise,
            )
        except TrainingsFailed as error:
            failure, results = error, error.results
    click.echo(summary_table(results))
    for comparison in results["comparisons"]:
        click.echo(comparison["words"])
    write_report_if_installed(out)
    if failure is not None:
        raise failure


@click.command(short_help="Write a run as one .onnx file, or for Triton.")
@click.argument("run", type=PATH)
@click.argument("out", type=PATH)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp32", show_default=True)
@click.option(
    "--output",
    "outputs",
    type=click.Choice(["labels", "logits", "probabilities", "attention"]),
    multiple=True,
    help="Output of the graph; may be repeated, logits must be among them.  [default: labels, logits]",
)
@click.option(
    "--triton",
    metavar="NAME",
    help="OUT is a folder: a model repository of NVIDIA's Triton server with the model NAME.",
)
@click.option(
    "--whole", is_flag=True, help="The graph takes a volume and gives its label map, instead of slices and logits."
)
@click.option(
    "--size",
    type=int,
    nargs=2,
    metavar="H W",
    help="Fixed height and width of the slices; any multiples of 16 by default.",
)
@click.option(
    "--largest-component/--all-components",
    default=None,
    help="Whether the runtime keeps the largest connected part of every class alone.  [default: as the store says]",
)
@click.option("--license", help="Of the training data, noted in the artefact.")
@click.option("--store", type=PATH, help="Where the run's store is now, if it moved.")
@click.option("--source", type=PATH, metavar="DIR", help="Where the store's source is now, if it moved.")
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    help="Judges the artefact.  [default: cuda for fp16 where it runs]",
)
@click.option("--parity-cases", metavar="N|all", help="Cases to judge it on.  [default: as many as take two minutes]")
@click.option(
    "--confidence",
    type=PATH,
    metavar="DIR",
    help="A cross-validation of this network: predictions get estimates of their Dice.",
)
@click.option(
    "--web", type=PATH, metavar="FOLDER", help="Write the page that runs OUT in a browser too; see attunet web."
)
@pseudonymise_option
@debug_option
def export(
    run: Path,
    out: Path,
    precision: str,
    outputs: tuple[str, ...],
    triton: str | None,
    whole: bool,
    size: tuple[int, int] | None,
    largest_component: bool | None,
    license: str | None,
    store: Path | None,
    source: Path | None,
    provider: str | None,
    parity_cases: str | None,
    confidence: Path | None,
    web: Path | None,
    pseudonymise: Path | None,
) -> None:
    """Write RUN as the one file OUT, a self-describing .onnx; refused unless it agrees with the checkpoint.

    RUN may be a folder with several runs below it, as crossvalidate makes: they become one file that averages their
    probabilities.
    """
    from attunet.export.build.export_run import export_run
    from attunet.export.web.write_page import page_files, write_page

    if web is not None:
        page_files()  # a page that is not built ends the work before the export
    with writing(out, "export"):
        export_run(
            run,
            out,
            precision=precision,
            outputs=outputs or ("labels", "logits"),
            whole=whole,
            triton=triton,
            size=size,
            largest_component=largest_component,
            license=license,
            store=store,
            source=source,
            provider=provider,
            parity_cases=parse_parity_cases(parity_cases),
            confidence=confidence,
            pseudonymise=pseudonymise,
        )
    if web is not None:
        write_page(out, web)


@click.command(short_help="Write the page that runs an artefact in a browser.")
@click.argument("model", type=PATH)
@click.argument("out", type=PATH, metavar="FOLDER")
@debug_option
def web(model: Path, out: Path) -> None:
    """Write the static files of a page that segments scans with the artefact MODEL in a browser,
    to any web server's FOLDER.

    A name that ends in .html becomes one file with everything inside, for small networks. Scans never leave the
    browser.
    """
    from attunet.export.web.write_page import write_page

    write_page(model, out)


@click.command(short_help="Write a model card for the Hugging Face Hub.")
@click.argument("model", type=PATH)
@click.option(
    "-o", "--out", type=PATH, help="File for the card, README.md in a repository; standard output by default."
)
@debug_option
def card(model: Path, out: Path | None) -> None:
    """Write a Hugging Face model card of the artefact MODEL: metadata, intended use, data, Dice with interval,
    limits.
    """
    from attunet.export.artefact.hub_card import hub_card
    from attunet.system.atomic_files import write_text

    text = hub_card(model)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)


@click.command(short_help="Sign an artefact.")
@click.argument("model", type=PATH)
@click.option(
    "--key", type=PATH, required=True, metavar="FILE", help="A private elliptic-curve key, PEM without a password."
)
@click.option(
    "--certificate", type=PATH, metavar="FILE", help="The key's certificate: verified with an authority's certificate."
)
@click.option("--chain", type=PATH, multiple=True, metavar="FILE", help="Certificates above it; may be repeated.")
@debug_option
def sign(model: Path, key: Path, certificate: Path | None, chain: tuple[Path, ...]) -> None:
    """Sign the artefact MODEL in the format of OpenSSF Model Signing; the signature is MODEL.sig.
    It needs no network.
    """
    from attunet.export.artefact.signature import sign_artefact

    click.echo(f"written to {sign_artefact(model, key, certificate=certificate, chain=chain)}")


@click.command(short_help="Try an artefact, or check a log or a signature.")
@click.argument("model", type=PATH, required=False)
@click.option("--provider", type=click.Choice(PROVIDERS), default="cpu", show_default=True)
@click.option(
    "--key",
    type=PATH,
    metavar="FILE",
    help="Verify the signature beside MODEL with this public key, or authority's certificate.",
)
@click.option("--audit", type=PATH, metavar="LOG", help="Follow the chain of an audit log instead.")
@debug_option
def verify(model: Path | None, provider: str, key: Path | None, audit: Path | None) -> None:
    """Run the small generated input that the artefact MODEL carries, and compare with the answer it got at export."""
    from attunet.export.artefact.signature import verify_signature
    from attunet.export.runtime.self_test import verify as run
    from attunet.system.audit_log import verify_audit

    if (model is None) == (audit is None):
        raise click.UsageError("needs either MODEL or --audit LOG")
    if audit is not None:
        click.echo(f"{audit}: {verify_audit(audit)}")
    if model is not None and key is not None:
        click.echo(f"{model}: signed with {key}, signature {verify_signature(model, key)}")
    if model is not None:
        click.echo(run(model, provider))
