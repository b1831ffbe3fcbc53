"""Options that several commands share."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import click

from attunet.decisions import parse_choices
from attunet.errors import InputError
from attunet.presets import preset_names

PATH = click.Path(path_type=Path)
PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino")


def config_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add `--config` and `--set`."""
    command = click.option(
        "--set",
        "settings",
        metavar="SECTION.FIELD=VALUE",
        multiple=True,
        help="Set one field over the config; may be repeated.",
    )(command)
    return click.option(
        "--config", "config_name", metavar="FILE|PRESET", help=f"A TOML file, or one of: {', '.join(preset_names())}."
    )(command)


def source_options(command: Callable[..., object]) -> Callable[..., object]:
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
        **others: object,
    ) -> object:
        from attunet.sources.case_files import SourceOptions
        from attunet.sources.codings import parse_classes  # not above: help must be quick

        options = SourceOptions(
            layout=layout,
            classes=parse_classes(classes) if classes else None,
            case_pattern=case_pattern,
            images=_names(images),
            masks=_names(masks),
            choices=parse_choices(readings, series),
        )
        return command(options=options, **others)

    wrapped: Callable[..., object] = with_options
    for option in (
        read_option,
        click.option(
            "--masks", metavar="NAME,...", help="Parts of the names of masks that count; others are left out."
        ),
        click.option(
            "--images", metavar="NAME,...", help="Parts of the names of images that are channels, in their order."
        ),
        click.option(
            "--case-pattern", metavar="REGEX", help="Its first group, matched in a case's name, is the patient."
        ),
        click.option(
            "--classes",
            metavar="NAME=VALUE,...",
            help="Names of the label values; pixels of ignore=V are left out everywhere.",
        ),
        click.option(
            "--layout", default="auto", show_default=True, help="How files make cases; auto detects it and prints it."
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


def read_option(command: Callable[..., object]) -> Callable[..., object]:
    """`--read` and `--series`: the readings that a user chooses."""
    series = click.option(
        "--series",
        metavar="NUMBER|TEXT",
        help="Of folders with several DICOM series, the one with this number or text.",
    )
    return click.option(
        "--read",
        "readings",
        metavar="RULE=VALUE",
        multiple=True,
        help="Another reading than the one that is `decided`; may be repeated.",
    )(series(command))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


class Fold(click.ParamType):
    """The number of a fold, or `all` to train on every labelled case."""

    name = "K|all"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["all"]:
        if value == "all":
            return "all"
        try:
            number = int(str(value))
        except ValueError:
            number = -1
        if number < 0:
            self.fail(f"must be the number of a fold or all, got {value!r}", param, ctx)
        return number


def audit_options(command: Callable[..., object]) -> Callable[..., object]:
    """`--audit` and `--user`."""
    user = click.option("--user", metavar="NAME", help="Of who asks, for the audit log.")
    return click.option("--audit", type=PATH, metavar="LOG", help="Record every case in this log; see verify --audit.")(
        user(command)
    )


def signature_option(command: Callable[..., object]) -> Callable[..., object]:
    """`--require-signature`, as `public_key`."""
    text = "Refuse a model that is not signed with this public key (or authority's certificate)."
    return click.option("--require-signature", "public_key", type=PATH, metavar="FILE", help=text)(command)


def pseudonymise_option(command: Callable[..., object]) -> Callable[..., object]:
    """`--pseudonymise`."""
    text = "Numbers in place of the names of cases; this table keeps both, and is made or used again."
    return click.option("--pseudonymise", type=PATH, metavar="KEY.csv", help=text)(command)


class FoldList(click.ParamType):
    """Numbers of folds, separated by commas."""

    name = "K,..."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() for part in parts):
            self.fail(f"must be numbers of folds separated by commas, got {value!r}", param, ctx)
        return [int(part) for part in parts]


def parse_parity_cases(text: str | None) -> int | Literal["all"] | None:
    """The number of `--parity-cases`, or "all"; None without the option. Raises InputError for anything else."""
    if text is None:
        return None
    if text == "all":
        return "all"
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--parity-cases: must be a whole number from 1 or all, got {text!r}")
    return int(text)
