"""The `attunet` command. Each command imports what it needs when it runs, so that help is quick and the base install needs no torch."""

import sys
from pathlib import Path

import click

from attunet import __version__
from attunet.launch.exit_codes import debug_option, run_command
from attunet.launch.options import PATH, config_options, read_config, source_options
from attunet.launch.train import train_command

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
    from attunet.launch.demo import run_demo

    run_demo(
        out, data=data, num_cases=cases, config=read_config(config_name or ("chaos-cpu" if data else "demo"), settings), report=click.echo
    )


@cli.command(short_help="Write generated abdominal cases.")
@click.argument("out", type=PATH)
@click.option("--cases", type=click.IntRange(1), default=8, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@debug_option
def phantom(out: Path, cases: int, seed: int) -> None:
    """Write generated abdominal cases to the new folder OUT, as NIfTI pairs named like those of CHAOS."""
    from attunet.phantom import write_phantom

    write_phantom(out, cases=cases, seed=seed, report=click.echo)


@cli.command(short_help="Make a store of a folder of cases.")
@click.argument("source", type=PATH)
@click.argument("store", type=PATH)
@source_options
@config_options
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="For cross-validation, by patient.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the folds.")
@click.option("--splits", type=PATH, metavar="FILE", help="Your own splits.json instead.")
@click.option("--allow-unlabelled", is_flag=True, help="Take images without a mask too.")
@click.option("--strict", is_flag=True, help="A warning about the data ends the work, as an error does.")
@debug_option
def prepare(
    source: Path,
    store: Path,
    layout: str,
    classes: str | None,
    case_pattern: str | None,
    config_name: str | None,
    settings: tuple[str, ...],
    folds: int,
    seed: int,
    splits: Path | None,
    allow_unlabelled: bool,
    strict: bool,
) -> None:
    """Make the folder STORE, ready for training, of the cases in SOURCE (a folder, or a zip archive)."""
    from attunet.codings import parse_classes
    from attunet.prepare import prepare as run

    run(
        source,
        store,
        read_config(config_name, settings).data,
        layout=layout,
        folds=folds,
        seed=seed,
        splits_file=splits,
        allow_unlabelled=allow_unlabelled,
        classes=parse_classes(classes) if classes else None,
        case_pattern=case_pattern,
        strict=strict,
        report=click.echo,
    )


@cli.command(short_help="What is in a path, and what looks wrong.")
@click.argument("path", type=PATH)
@source_options
@click.option("--picture", type=PATH, metavar="FILE.png", help="Of a source or a store: draw all cases with their labels on one page.")
@debug_option
def inspect(path: Path, layout: str, classes: str | None, case_pattern: str | None, picture: Path | None) -> None:
    """Say what is in PATH (a source, a store, a run, an artefact, a volume), and what looks wrong with it."""
    from attunet.launch.inspection import SourceOptions, describe

    for line in describe(path, SourceOptions(layout, classes, case_pattern, picture)):
        click.echo(line)


cli.add_command(train_command)


@cli.command(short_help="Write a run as one .onnx file.")
@click.argument("run", type=PATH)
@click.argument("out", type=PATH)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp32", show_default=True)
@click.option("--attention", is_flag=True, help="Give the artefact the maps of its attention gates as outputs.")
@click.option("--largest-component", is_flag=True, help="Of every class, the runtime keeps the largest connected part alone.")
@click.option("--license", help="Of the training data, noted in the artefact.")
@click.option("--store", type=PATH, help="Where the run's store is now, if it moved.")
@click.option("--source", type=PATH, metavar="DIR", help="Where the store's source is now, if it moved.")
@debug_option
def export(
    run: Path,
    out: Path,
    precision: str,
    attention: bool,
    largest_component: bool,
    license: str | None,
    store: Path | None,
    source: Path | None,
) -> None:
    """Write RUN as the one file OUT, a self-describing .onnx; refused unless it agrees with the checkpoint."""
    from attunet.export.onnx_export import export_run

    export_run(
        run,
        out,
        precision=precision,
        outputs=("labels", "logits", *(("attention",) if attention else ())),
        largest_component=largest_component,
        license=license,
        store=store,
        source=source,
        report=click.echo,
    )


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
    """Dice and latency of each MODEL (a run or an .onnx), side by side: results.json, results.md, plots."""
    from attunet.benchmarks.evaluate import evaluate as run
    from attunet.benchmarks.results_table import summary_table

    results = run(
        store,
        models,
        out,
        providers=providers or ("cpu",),
        device=device,
        fold=fold,
        source=source,
        latency_seconds=latency_seconds,
        report=click.echo,
    )
    click.echo(summary_table(results))
    click.echo(f"written to {out}: results.json, results.md, plots/")


@cli.command(short_help="Segment volumes.")
@click.argument("model", type=PATH)
@click.argument("input", type=PATH)
@click.argument("output", type=PATH)
@click.option("--attention", is_flag=True, help="Write the maps of the attention gates too.")
@click.option("--provider", type=click.Choice(PROVIDERS), default="cpu", show_default=True, help="For an artefact.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="For a run.")
@debug_option
def predict(model: Path, input: Path, output: Path, attention: bool, provider: str, device: str) -> None:
    """Segment INPUT, a volume or a folder of volumes, with MODEL, a run or an .onnx.

    OUTPUT is a label map on the input's own grid with the label values of the training's source (for a folder: a folder of them).
    """
    from attunet.launch.prediction import predict as run

    run(model, input, output, attention=attention, provider=provider, device=device, report=click.echo)


@cli.command(short_help="Try an artefact on this machine.")
@click.argument("model", type=PATH)
@click.option("--provider", type=click.Choice(PROVIDERS), default="cpu", show_default=True)
@debug_option
def verify(model: Path, provider: str) -> None:
    """Run the small generated input that the artefact MODEL carries, and compare with the answer it got at export."""
    from attunet.export.golden import verify as run

    click.echo(run(model, provider))


if __name__ == "__main__":
    sys.exit(main())
