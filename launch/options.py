"""Options that several commands share, and the types of options.

A command passes most of its options on under their names, `**options: Value`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import click
from click import option

from attunet.config import MODELS
from attunet.decisions import parse_choices
from attunet.errors import InputError
from attunet.fields import MAX_WHOLE, parse_whole
from attunet.presets import preset_names

Command = Callable[..., object]
Value = Any  # of an option: click has checked it

PROVIDERS, PRECISIONS = ("cpu", "cuda", "tensorrt", "openvino"), ("fp32", "fp16", "int8")
PATH = click.Path(path_type=Path)
MODEL, PROVIDER, PRECISION = click.Choice(list(MODELS)), click.Choice(PROVIDERS), click.Choice(PRECISIONS)
DEVICE = click.Choice(["cpu", "cuda"])


def check_computes(models: Sequence[Path], providers: Sequence[str], device: str) -> None:
    """Refuse a provider where no model is an artefact, and a device where none is a run: it would change nothing."""
    given = [provider for provider in providers if provider != "cpu"]
    if given and all(path.is_dir() for path in models):
        raise InputError(f"--provider {given[0]}: computes artefacts, and {models[0]} is of runs: give --device")
    if device != "cpu" and all(path.is_file() for path in models):
        raise InputError(f"--device {device}: computes runs, and {models[0]} is an artefact: give --provider")


class Number(click.FloatRange):
    """A finite number in a range. click's own type takes NaN, which compares false with every bound, and infinity."""

    def convert(self, value: Value, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


SECONDS, MINUTES = Number(0, 86_400, min_open=True), Number(0.1, 1e6)
SEED = click.IntRange(0, MAX_WHOLE - 1)


class WholeOrAll(click.ParamType):
    """A whole number from `low`, or the word all. words: what it must be, for the error."""

    def __init__(self, name: str, words: str, *, low: int = 0) -> None:
        self.name, self.words, self.low = name, words, low

    def convert(self, value: Value, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["all"]:
        if value == "all":
            return "all"
        number = parse_whole(str(value))
        if number is None or number < self.low:
            self.fail(f"must be {self.words}, got {str(value)[:80]!r}", param, ctx)
        return number


FOLD = WholeOrAll("K|all", "the number of a fold or all")
PARITY_CASES = WholeOrAll("N|all", "a whole number from 1 or all", low=1)


class FoldList(click.ParamType):
    """Numbers of folds, separated by commas."""

    name = "K,..."

    def convert(self, value: Value, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        folds = [number for part in str(value).split(",") if (number := parse_whole(part.strip())) is not None]
        if len(folds) != str(value).count(",") + 1:
            self.fail(f"must be numbers of folds separated by commas, got {str(value)[:80]!r}", param, ctx)
        return folds


class Separated(click.ParamType):
    """Values of another type, separated by commas."""

    def __init__(self, each: click.ParamType) -> None:
        self.each, self.name = each, each.name

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self.each.get_metavar(param, ctx)

    def convert(self, value: Value, param: click.Parameter | None, ctx: click.Context | None) -> list[Value]:
        return [self.each.convert(part.strip(), param, ctx) for part in str(value).split(",")]


def several(*names: str, each: click.ParamType, help: str, **attributes: Value) -> Callable[[Command], Command]:
    """An option that takes several values: repeated, or separated by commas."""

    def flat(_: click.Context, __: click.Parameter, values: tuple[list[Value], ...]) -> tuple[Value, ...]:
        return tuple(value for part in values for value in part)

    help += "; may be repeated, or hold several separated by commas."
    return option(*names, type=Separated(each), multiple=True, callback=flat, help=help, **attributes)


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order of the help."""
    return lambda command: functools.reduce(lambda decorated, add: add(decorated), reversed(options), command)


settings_option = option(
    "--set",
    "settings",
    metavar="SECTION.FIELD=VALUE",
    multiple=True,
    help="Set one field over the config; may be repeated.",
)
config_options = together(
    option(
        "--config",
        "config_name",
        metavar="FILE|PRESET",
        help=f"A TOML file, or one of: {', '.join(preset_names())}.",
    ),
    settings_option,
)
read_options = together(
    option(
        "--read",
        "readings",
        metavar="RULE=VALUE",
        multiple=True,
        help="Another reading than the one that is `decided`; may be repeated.",
    ),
    option(
        "--series",
        metavar="NUMBER|TEXT",
        help="Of folders with several DICOM series, the one with this number or text.",
    ),
)
init_options = together(
    option(
        "--init",
        type=PATH,
        metavar="RUN|CHECKPOINT|FILE",
        help="Start from these weights; classes are matched by name.",
    ),
    option(
        "--init-classes",
        default="",
        show_default=False,
        metavar="NEW=OLD,...",
        help="Classes that the model of --init calls by another name.",
    ),
)
audit_options = together(
    option("--audit", type=PATH, metavar="LOG", help="Record every case in this log; see verify --audit."),
    option("--user", metavar="NAME", help="Of who asks, for the audit log."),
)
signature_option = option(
    "--require-signature",
    "public_key",
    type=PATH,
    metavar="FILE",
    help="Refuse a model that is not signed with this public key (or authority's certificate).",
)
pseudonymise_option = option(
    "--pseudonymise",
    type=PATH,
    metavar="KEY.csv",
    help="Numbers in place of the names of cases; this table keeps both, and is made or used again.",
)
moved_source_option = option("--source", type=PATH, metavar="DIR", help="The source of the store, if it moved.")


def source_options(command: Command) -> Command:
    """Options of reading a source; the command gets them as one argument `options`, a `SourceOptions`."""

    @functools.wraps(command)
    def with_options(
        *,
        layout: str,
        classes: str | None,
        case_pattern: str | None,
        images: str | None,
        masks: str | None,
        readings: tuple[str, ...],
        series: str | None,
        **others: Value,
    ) -> object:
        from attunet.sources.case_files import SourceOptions
        from attunet.sources.labels.codings import parse_classes  # not above: help must be quick

        options = SourceOptions(
            layout=layout,
            classes=parse_classes(classes) if classes else None,
            case_pattern=case_pattern,
            images=_names(images),
            masks=_names(masks),
            choices=parse_choices(readings, series),
        )
        return command(options=options, **others)

    return together(
        option("--layout", default="auto", help="File layout; auto detects it and prints it."),
        option(
            "--classes",
            metavar="NAME=VALUE,...",
            help="Names of the label values; pixels of ignore=V are left out everywhere.",
        ),
        option("--case-pattern", metavar="REGEX", help="Its first group, matched in a case's name, is the patient."),
        option("--images", metavar="NAME,...", help="Parts of the names of images that are channels, in their order."),
        option("--masks", metavar="NAME,...", help="Parts of the names of masks that count; others are left out."),
        read_options,
    )(with_options)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()
