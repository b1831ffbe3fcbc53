"""The `attunet` command. Each command imports what it needs when it runs, so that help is quick and the base install needs no torch."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attunet.config import MODELS
from attunet.launch.commands.serve import serve_command
from attunet.launch.exit_codes import debug_option, run_command
from attunet.launch.options import PATH, FoldList, audit_options, config_options, read_option, signature_option, source_options
from attunet.launch.train import train_command
from attunet.presets import read_config
from attunet.system.lock import writing
from attunet.system.plain_text import printable
from attunet.version import __version__

if TYPE_CHECKING:
    from attunet.sources.find_cases import SourceOptions

PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino")


def main() -> int:
    return run_command(cli, "attunet")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
@debug_option
def cli() -> None:
    """U-Net and Attention U-Net for slices of medical volumes: from a folder of scans to an evaluated ONNX file.

    Not a medical device.
    """


@cli.command(short_help="Everything in one go, on generated cases or yours.")
@click.option("--data", type=PATH, metavar="DIR", help="A folder of your own cases; generated ones by default.")
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Where everything goes; what is there already is kept and used.")
@click.option("--cases", type=click.IntRange(2), default=12, show_default=True, help="How many cases to generate.")
@config_options
@debug_option
def demo(data: Path | None, out: Path, cases: int, config_name: str | None, settings: tuple[str, ...]) -> None:
    """Everything in one go: prepare, train both networks, export, evaluate, draw.

    The config is the preset demo for generated cases, and chaos-cpu for your own. A third of the patients is kept out of training.
    """
    from attunet.launch.commands.demo import run_demo

    run_demo(out, data=data, num_cases=cases, config=read_config(config_name or ("chaos-cpu" if data else "demo"), settings))


@cli.command(short_help="Write generated abdominal cases.")
@click.argument("out", type=PATH)
@click.option("--cases", type=click.IntRange(1), default=8, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@debug_option
def phantom(out: Path, cases: int, seed: int) -> None:
    """Write generated abdominal cases to the new folder OUT, as NIfTI pairs named like those of CHAOS."""
    from attunet.phantom import write_phantom

    write_phantom(out, cases=cases, seed=seed)


@cli.command(short_help="Make a store of a folder of cases.")
@click.argument("source", type=PATH)
@click.argument("store", type=PATH)
@source_options
@config_options
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="For cross-validation, by patient.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the folds.")
@click.option("--splits", type=PATH, metavar="FILE", help="Your own splits.json instead.")
@click.option("--labelled", type=PATH, metavar="FILE", help="JSON {case: [class, ...]}: classes drawn in partly labelled cases.")
@click.option("--allow-unlabelled", is_flag=True, help="Take images without a mask too.")
@click.option("--strict", is_flag=True, help="A warning about the data ends the work, as an error does.")
@debug_option
def prepare(
    source: Path,
    store: Path,
    options: "SourceOptions",
    config_name: str | None,
    settings: tuple[str, ...],
    folds: int,
    seed: int,
    splits: Path | None,
    labelled: Path | None,
    allow_unlabelled: bool,
    strict: bool,
) -> None:
    """Make the folder STORE, ready for training, of the cases in SOURCE (a folder, or a zip or tar archive)."""
    from attunet.preparation.prepare import prepare as run

    run(
        source,
        store,
        read_config(config_name, settings).data,
        options=options,
        folds=folds,
        seed=seed,
        splits_file=splits,
        allow_unlabelled=allow_unlabelled,
        labelled_file=labelled,
        strict=strict,
    )


@cli.command(short_help="What is in a path, and what looks wrong.")
@click.argument("path", type=PATH)
@source_options
@click.option("--picture", type=PATH, metavar="FILE.png", help="Of a source or a store: draw all cases with their labels on one page.")
@click.option("--augmented", type=PATH, metavar="FILE.png", help="Of a store: draw slices as a training with this config would see them.")
@click.option("--lineage", is_flag=True, help="Of a run or an artefact: hashes of checkpoint, store and scans that it comes from.")
@config_options
@debug_option
def inspect(
    path: Path,
    options: "SourceOptions",
    picture: Path | None,
    augmented: Path | None,
    lineage: bool,
    config_name: str | None,
    settings: tuple[str, ...],
) -> None:
    """Say what is in PATH (a source, a store, a run, an artefact, a volume), and what looks wrong with it."""
    from attunet.launch.commands.inspect import describe
    from attunet.launch.commands.lineage import describe_lineage

    for line in describe_lineage(path) if lineage else describe(path, options, picture):
        click.echo(printable(line))
    if augmented is not None:
        from attunet.plots.augmented import draw_augmented
        from attunet.store import open_store

        draw_augmented(augmented, open_store(path), read_config(config_name, settings).augment)


cli.add_command(train_command)
cli.add_command(serve_command)


@cli.command(short_help="Folds, seeds, networks and recipes in one table.")
@click.argument("store", type=PATH)
@click.argument("out", type=PATH, metavar="DIR")
@click.option("--model", "models", type=click.Choice(list(MODELS)), multiple=True, required=True, help="May be repeated.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="How many, from 0.")
@click.option("--config", "config_names", metavar="FILE|PRESET", multiple=True, help="A recipe; repeated, recipes are compared too.")
@click.option("--set", "settings", metavar="SECTION.FIELD=VALUE", multiple=True, help="Set one field in every recipe; may be repeated.")
@click.option("--folds", type=FoldList(), metavar="K,...", help="Only these folds; all by default.")
@click.option("--jobs", type=click.IntRange(1), help="Trainings at a time.  [default: one per GPU, or one]")
@click.option("--minutes", type=click.FloatRange(0.1), help="The time for all trainings together, in place of epochs.")
@click.option("--no-train", is_flag=True, help="Judge and tabulate what is finished.")
@click.option(
    "--largest-component",
    is_flag=True,
    help="Judge in every way: as the store says, with every class's largest connected part alone, with all parts.",
)
@click.option("--source", type=PATH, metavar="DIR", help="Where the store's source is now, if it moved.")
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
    no_train: bool,
    largest_component: bool,
    source: Path | None,
) -> None:
    """Train every recipe and network on every fold with every seed, judge each on what it left out: results.json, results.md, plots.

    Runs lie in DIR/RECIPE/MODEL/seed-S/fold-K; finished ones are taken, interrupted ones continued.
    """
    from attunet.benchmarks.crossvalidation.crossvalidate import crossvalidate as run
    from attunet.benchmarks.crossvalidation.results_table import summary_table
    from attunet.benchmarks.report.write_report import write_report_if_installed

    with writing(out, "cross-validation"):
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
            train=not no_train,
            every_postprocessing=largest_component,
            source=source,
        )
    click.echo(summary_table(results))
    for comparison in results["comparisons"]:
        click.echo(comparison["words"])
    write_report_if_installed(out)


@cli.command(short_help="Write a run as one .onnx file, or for Triton.")
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
@click.option("--triton", metavar="NAME", help="OUT is a folder: a model repository of NVIDIA's Triton server with the model NAME.")
@click.option("--whole", is_flag=True, help="The graph takes a volume and gives its label map, instead of slices and logits.")
@click.option("--size", type=int, nargs=2, metavar="H W", help="Fixed height and width of the slices; any multiples of 16 by default.")
@click.option(
    "--largest-component/--all-components",
    default=None,
    help="Whether the runtime keeps the largest connected part of every class alone.  [default: as the store says]",
)
@click.option("--license", help="Of the training data, noted in the artefact.")
@click.option("--store", type=PATH, help="Where the run's store is now, if it moved.")
@click.option("--source", type=PATH, metavar="DIR", help="Where the store's source is now, if it moved.")
@click.option("--web", type=PATH, metavar="FOLDER", help="Write the page that runs OUT in a browser too; see attunet web.")
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
    web: Path | None,
) -> None:
    """Write RUN as the one file OUT, a self-describing .onnx; refused unless it agrees with the checkpoint.

    RUN may be a folder with several runs below it, as crossvalidate makes: they become one file that averages their probabilities.
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
        )
    if web is not None:
        write_page(out, web)


@cli.command(short_help="Write the page that runs an artefact in a browser.")
@click.argument("model", type=PATH)
@click.argument("out", type=PATH, metavar="FOLDER")
@debug_option
def web(model: Path, out: Path) -> None:
    """Write the static files of a page that segments scans with the artefact MODEL in a browser, to any web server's FOLDER.

    A name that ends in .html becomes one file with everything inside, for small networks. Scans never leave the browser.
    """
    from attunet.export.web.write_page import write_page

    write_page(model, out)


@cli.command(short_help="Write a model card for the Hugging Face Hub.")
@click.argument("model", type=PATH)
@click.option("-o", "--out", type=PATH, help="File for the card, README.md in a repository; standard output by default.")
@debug_option
def card(model: Path, out: Path | None) -> None:
    """Write a Hugging Face model card of the artefact MODEL: metadata, intended use, data, Dice with interval, limits."""
    from attunet.export.artefact.hub_card import hub_card
    from attunet.system.atomic_files import write_text

    text = hub_card(model)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)


@cli.command(short_help="Dice and latency of models, side by side.")
@click.argument("store", type=PATH)
@click.argument("models", type=PATH, nargs=-1, required=True, metavar="MODEL...")
@click.option("--out", type=PATH, required=True, metavar="DIR")
@click.option(
    "--provider", "providers", type=click.Choice(PROVIDERS), multiple=True, help="For artefacts; may be repeated.  [default: cpu]"
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="For runs, which PyTorch evaluates.")
@click.option("--fold", type=click.IntRange(0), help="Only the cases that this fold leaves out; every labelled case by default.")
@click.option("--source", type=PATH, metavar="DIR", help="Where the store's source is now, if it moved.")
@click.option("--latency-seconds", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True, help="For each row.")
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
        )
    click.echo(summary_table(results))
    click.echo(f"written to {out}: results.json, results.md, plots/")
    write_report_if_installed(out)


@cli.command(short_help="One HTML file of an evaluation or a cross-validation.")
@click.argument("folder", type=PATH, metavar="EVALUATION_OR_CROSSVALIDATION")
@click.option("-o", "--out", type=PATH, metavar="FILE.html", help="Where to write it.  [default: report.html in the folder]")
@click.option(
    "--cases",
    default="worst:3",
    show_default=True,
    metavar="worst:N|all|NAME,...",
    help="Cases to look at slice by slice; they make up most of the file.",
)
@debug_option
def report(folder: Path, out: Path | None, cases: str) -> None:
    """Write FOLDER, which `evaluate` or `crossvalidate` wrote, as one HTML file: scores, charts, and scans to look into.

    The file holds everything it shows and fetches nothing.
    """
    from attunet.benchmarks.report.write_report import write_report

    write_report(folder, out, cases=cases)


@cli.command(short_help="Every precision and provider of a model in one table.")
@click.argument("model", type=PATH)
@click.argument("store", type=PATH)
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Folder for the exported files and the results.")
@click.option("--provider", "providers", type=click.Choice(PROVIDERS), multiple=True, help="May be repeated.  [default: all]")
@click.option(
    "--precision", "precisions", type=click.Choice(["fp32", "fp16", "int8"]), multiple=True, help="May be repeated.  [default: all]"
)
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, help="Batch sizes besides 1 and 8; may be repeated.")
@click.option("--source", type=PATH, metavar="DIR", help="Where the store's source is now, if it moved.")
@click.option("--latency-seconds", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True, help="For each row.")
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
) -> None:
    """Export MODEL, a run, in every precision, as slices and as a whole graph, and compare all of it on STORE with every provider.

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
    )
    click.echo(results.table())


@cli.command(short_help="Segment volumes.")
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="[MODEL] INPUT OUTPUT")
@click.option("--attention", is_flag=True, help="Write the maps of the attention gates too.")
@click.option("--dicom-seg", is_flag=True, help="In a folder, label maps of DICOM series become DICOM SEG, NAME.dcm.")
@click.option("--provider", type=click.Choice(PROVIDERS), default="cpu", show_default=True, help="For an artefact.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="For a run.")
@click.option("--server", metavar="URL", help="Let attunet serve at URL compute; MODEL is a name there, needed where it serves several.")
@click.option("--token-file", type=PATH, metavar="FILE", help="The server's token.")
@click.option(
    "--max-megapixels", type=click.IntRange(min=1), default=512, show_default=True, help="Refuse larger volumes, on the network's grid."
)
@audit_options
@signature_option
@read_option
@click.option("--codes", type=PATH, metavar="FILE", help="Codes of classes for DICOM SEG: {name: [scheme, value, meaning]} as JSON.")
@debug_option
def predict(
    paths: tuple[Path, ...],
    attention: bool,
    dicom_seg: bool,
    provider: str,
    device: str,
    server: str | None,
    token_file: Path | None,
    max_megapixels: int,
    audit: Path | None,
    user: str | None,
    public_key: Path | None,
    readings: tuple[str, ...],
    codes: Path | None,
) -> None:
    """Segment INPUT, a volume or a folder of volumes, with MODEL, a run, an .onnx, or a folder of runs (their mean probabilities).

    OUTPUT is a label map on the input's own grid with the label values of the training's source (for a folder: a folder of them):
    in the input's format; PNG or TIFF for a picture, DICOM SEG (.dcm) for a DICOM series.
    """
    if len(paths) not in ((2, 3) if server else (3,)):
        raise click.UsageError(f"needs MODEL, INPUT and OUTPUT, got {len(paths)} arguments")
    if server:
        from attunet.export.serve.client import Client
        from attunet.export.serve.settings import read_token
        from attunet.launch.commands.predict_remote import predict_remote

        if attention or audit or public_key:
            raise click.UsageError("--attention, --audit and --require-signature are not for a server's client")
        with Client(server, token=read_token(token_file) if token_file else None) as client:
            predict_remote(client, str(paths[0]) if len(paths) == 3 else None, paths[-2], paths[-1], dicom_seg=dicom_seg)
        return
    from attunet.decisions import parse_choices
    from attunet.io.organ_codes import read_codes
    from attunet.launch.commands.predict import AuditOptions
    from attunet.launch.commands.predict import predict as run

    run(
        *paths,
        attention=attention,
        dicom_seg=dicom_seg,
        provider=provider,
        device=device,
        choices=parse_choices(readings),
        codes=read_codes(codes) if codes else None,
        max_megapixels=max_megapixels,
        audit=AuditOptions(audit, user) if audit else None,
        public_key=public_key,
    )


@cli.command(short_help="Try an artefact, or check a log or a signature.")
@click.argument("model", type=PATH, required=False)
@click.option("--provider", type=click.Choice(PROVIDERS), default="cpu", show_default=True)
@click.option(
    "--key", type=PATH, metavar="FILE", help="Verify the signature beside MODEL with this public key, or authority's certificate."
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


@cli.command(short_help="Sign an artefact.")
@click.argument("model", type=PATH)
@click.option("--key", type=PATH, required=True, metavar="FILE", help="A private elliptic-curve key, PEM without a password.")
@click.option("--certificate", type=PATH, metavar="FILE", help="The key's certificate: verified with an authority's certificate.")
@click.option("--chain", type=PATH, multiple=True, metavar="FILE", help="Certificates above it; may be repeated.")
@debug_option
def sign(model: Path, key: Path, certificate: Path | None, chain: tuple[Path, ...]) -> None:
    """Sign the artefact MODEL in the format of OpenSSF Model Signing; the signature is MODEL.sig. It needs no network."""
    from attunet.export.artefact.signature import sign_artefact

    click.echo(f"written to {sign_artefact(model, key, certificate=certificate, chain=chain)}")


if __name__ == "__main__":
    sys.exit(main())
