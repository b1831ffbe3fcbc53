"""Commands about data: demo, phantom, prepare, inspect. Each imports what it needs when it runs."""

from pathlib import Path

import click
from click import option

from attunet.errors import InputError
from attunet.launch.exit_codes import debug_option
from attunet.launch.options import PATH, SEED, Value, config_options, pseudonymise_option, source_options
from attunet.presets import read_config
from attunet.system.lock import writing
from attunet.system.plain_text import printable_line


@click.command(short_help="Everything in one go, on generated cases or yours.")
@option("--data", type=PATH, metavar="DIR", help="A folder of your own cases; generated ones by default.")
@option(
    "--out",
    type=PATH,
    required=True,
    metavar="DIR",
    help="Output folder; files that are there already are kept and used.",
)
@option("--cases", type=click.IntRange(2), default=12, help="Number of generated cases.")
@config_options
@debug_option
def demo(data: Path | None, out: Path, cases: int, config_name: str | None, settings: tuple[str, ...]) -> None:
    """Everything in one go: prepare, train both networks, export, evaluate, draw.

    The config is the preset demo for generated cases, and chaos-cpu for your own. A third of the patients is kept out
    of training.
    """
    from attunet.launch.commands.demo import run_demo

    config = read_config(config_name or ("chaos-cpu" if data else "demo"), settings)
    with writing(out, "demo"):
        run_demo(out, data=data, num_cases=cases, config=config)


@click.command(short_help="Write generated abdominal cases.")
@click.argument("out", type=PATH)
@option("--cases", type=click.IntRange(1), default=8)
@option("--seed", type=SEED, default=0)
@debug_option
def phantom(out: Path, cases: int, seed: int) -> None:
    """Write generated abdominal cases to the new folder OUT, as NIfTI pairs named like those of CHAOS."""
    from attunet.phantom import write_phantom

    write_phantom(out, cases=cases, seed=seed)


@click.command(short_help="Make a store of a folder of cases.")
@click.argument("source", type=PATH)
@click.argument("store", type=PATH)
@source_options
@config_options
@option("--folds", type=click.IntRange(2), default=5, help="For cross-validation, by patient.")
@option("--seed", type=SEED, default=0, help="Of the folds.")
@option("--splits", "splits_file", type=PATH, metavar="FILE", help="Your own splits.json instead.")
@option(
    "--labelled",
    "labelled_file",
    type=PATH,
    metavar="FILE",
    help="JSON {case: [class, ...]}: classes drawn in partly labelled cases.",
)
@option("--allow-unlabelled", is_flag=True, help="Take images without a mask too.")
@pseudonymise_option
@option("--strict", is_flag=True, help="A warning about the data ends the work, as an error does.")
@debug_option
def prepare(
    source: Path, store: Path, config_name: str | None, settings: tuple[str, ...], **preparation: Value
) -> None:
    """Make the folder STORE, ready for training, of the cases in SOURCE (a folder, or a zip or tar archive)."""
    from attunet.preparation.prepare import prepare as run

    run(source, store, read_config(config_name, settings).data, **preparation)


@click.command(short_help="List the contents of a path, and what looks wrong.")
@click.argument("path", type=PATH)
@source_options
@option(
    "--picture",
    type=PATH,
    metavar="FILE.png",
    help="Of a source or a store: draw all cases with their labels on one page.",
)
@option(
    "--augmented",
    type=PATH,
    metavar="FILE.png",
    help="Of a store: draw slices as a training with this config would see them.",
)
@option(
    "--lineage", is_flag=True, help="Of a run or an artefact: hashes of checkpoint, store and scans that it comes from."
)
@config_options
@debug_option
def inspect(
    path: Path,
    options: Value,
    picture: Path | None,
    augmented: Path | None,
    lineage: bool,
    config_name: str | None,
    settings: tuple[str, ...],
) -> None:
    """Say what is in PATH (a source, a store, a run, an artefact, a volume), and what looks wrong with it."""
    from attunet.launch.commands.inspect import check_picture, describe
    from attunet.launch.commands.lineage import describe_lineage

    for drawn in (picture, augmented):
        if drawn is not None:
            check_picture(drawn, path)
    errors = 0
    for line in describe_lineage(path) if lineage else describe(path, options, picture):
        click.echo(printable_line(line))
        errors += line.startswith("error: ")
    if augmented is not None:
        from attunet.plots.augmented import draw_augmented
        from attunet.store import open_store

        draw_augmented(augmented, open_store(path), read_config(config_name, settings).augment)
    if errors:
        raise InputError(f"{path}: {errors} error(s), named above")
