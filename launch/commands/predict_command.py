"""The command that segments volumes."""

from pathlib import Path

import click
from click import option
from click.core import ParameterSource

from attunet.launch.exit_codes import debug_option
from attunet.launch.options import (
    DEVICE,
    PATH,
    PROVIDER,
    Number,
    Value,
    audit_options,
    pseudonymise_option,
    read_options,
    signature_option,
)

FOR_SERVERS = ("paths", "server", "token_file", "dicom_seg", "debug")  # parameters of a server's client


@click.command(short_help="Segment volumes.")
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="[MODEL] INPUT OUTPUT")
@option("--attention", is_flag=True, help="Write the maps of the attention gates too.")
@option(
    "--confidence/--no-confidence",
    default=None,
    help="Write estimates of Dice, confidence.json and .csv.  [default: where MODEL was exported with --confidence]",
)
@option("--uncertainty", is_flag=True, help="Write the map of uncertainty too: the entropy, from 0 to 1.")
@option(
    "--review-below",
    type=Number(0, 1),
    metavar="DICE",
    help="Mark estimates below it, not below the learned threshold.",
)
@option("--dicom-seg", is_flag=True, help="In a folder, label maps of DICOM series become DICOM SEG, NAME.dcm.")
@option("--provider", type=PROVIDER, default="cpu", help="For an artefact.")
@option("--tf32", is_flag=True, help="The provider cuda may round float32 to TF32: two to three times as fast in fp32.")
@option("--device", type=DEVICE, default="cpu", help="For a run.")
@option(
    "--server",
    metavar="URL",
    help="Let attunet serve at URL compute; MODEL is a name there, needed where it serves several.",
)
@option("--token-file", type=PATH, metavar="FILE", help="The server's token.")
@option(
    "--max-megapixels", type=click.IntRange(min=1), default=512, help="Refuse larger volumes, on the network's grid."
)
@pseudonymise_option
@audit_options
@signature_option
@read_options
@option(
    "--codes",
    type=PATH,
    metavar="FILE",
    help="Codes of classes for DICOM SEG: {name: [scheme, value, meaning]} as JSON.",
)
@debug_option
def predict(
    paths: tuple[Path, ...],
    confidence: bool | None,
    uncertainty: bool,
    review_below: float | None,
    server: str | None,
    token_file: Path | None,
    readings: tuple[str, ...],
    series: str | None,
    codes: Path | None,
    **options: Value,
) -> None:
    """Segment INPUT, a volume or a folder of volumes, with MODEL, a run, an .onnx,
    or a folder of runs (their mean probabilities).

    OUTPUT is a label map on the input's own grid with the label values of the training's source (for a folder: a folder
    of them): in the input's format; PNG or TIFF for a picture, DICOM SEG (.dcm) for a DICOM series.
    """
    if len(paths) not in ((2, 3) if server else (3,)):
        raise click.UsageError(f"needs MODEL, INPUT and OUTPUT, got {len(paths)} arguments")
    if server:
        if given := _only_here():
            raise click.UsageError(f"{', '.join(given)}: must be left out with --server, which decides on it")
        from attunet.export.serve.client import Client
        from attunet.export.serve.settings import read_token
        from attunet.launch.commands.predict_remote import predict_remote

        name = str(paths[0]) if len(paths) == 3 else None
        with Client(server, token=read_token(token_file) if token_file else None) as client:
            predict_remote(client, name, *paths[-2:], dicom_seg=options["dicom_seg"])
        return
    from attunet.decisions import parse_choices
    from attunet.export.runtime.observed_case import ConfidenceOptions
    from attunet.io.dicom.organ_codes import read_codes
    from attunet.launch.commands.predict import predict as run

    run(
        *paths,
        choices=parse_choices(readings, series),
        codes=read_codes(codes) if codes else None,
        confidence=ConfidenceOptions(confidence is not False, uncertainty, review_below),
        confidence_required=bool(confidence) or review_below is not None,
        **options,
    )


def _only_here() -> list[str]:
    """The options of this call that a server does not take."""
    context = click.get_current_context()
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    return [param.opts[0] for param in context.command.params if param.name in given and param.name not in FOR_SERVERS]
