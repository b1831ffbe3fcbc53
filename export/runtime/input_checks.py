"""Checks of an artefact's input: errors for what it cannot take, warnings for what it was not trained on."""

import warnings

from attunet.errors import Finding, InputError
from attunet.export.artefact.artefact import Artefact
from attunet.volumes.model import Model
from attunet.volumes.spec import MULTIPLE
from attunet.volumes.training_ranges import check_input
from attunet.volumes.volume import Volume


class UntrainedInputWarning(UserWarning):
    """An input's spacing, size or intensities are far outside the training set."""


def warn_if_untrained(volume: Volume, model: Model) -> tuple[Finding, ...]:
    """The findings about a volume far outside the training set, each given as an `UntrainedInputWarning` too."""
    findings = tuple(check_input(volume, model.ranges, model.spec.orientation))
    for finding in findings:  # with the line that called the model's method
        warnings.warn(f"{finding.text} [{finding.rule}]", UntrainedInputWarning, stacklevel=3)
    return findings


def check_slices(where: object, artefact: Artefact, outputs: tuple[str, ...], shape: tuple[int, ...]) -> None:
    """Raises InputError unless the graph in the file `where` gives these outputs and takes slices of this shape."""
    if artefact.whole:
        raise InputError(f"{where}: is a whole artefact, which takes volumes; slices need an artefact without --whole")
    if missing := [name for name in outputs if name not in artefact.outputs]:
        raise InputError(
            f"{where}: has the outputs {', '.join(artefact.outputs)}, not {missing[0]!r}; outputs are chosen at export"
        )
    channels = artefact.spec.in_channels
    fits = len(shape) == 4 and 0 not in shape and shape[1] == channels
    if not fits or any(n != side if side else n % MULTIPLE for n, side in zip(shape[2:], artefact.size, strict=True)):
        height, width = (side or f"a multiple of {MULTIPLE}" for side in artefact.size)
        raise InputError(
            f"{where}: slices must be (N, {channels}, H, W) with height {height} and width {width}, got {tuple(shape)}"
        )


def check_window(where: object, artefact: Artefact, window: tuple[int, int]) -> None:
    """Raises InputError unless the artefact takes slices of this height and width."""
    if any(side and side != length for side, length in zip(artefact.size, window, strict=True)):
        raise InputError(
            f"{where}: takes slices of {' × '.join(str(side or 'any') for side in artefact.size)}, those of the volume "
            f"have {window[0]} × {window[1]} after resampling"
        )
