"""An artefact's metadata as text, which `attunet inspect model.onnx` prints."""

from pathlib import Path

from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import load_artefact
from attunet.export.artefact.dice_at_export import DiceAtExport
from attunet.system.plain_text import printable_line

MIN_ONNX_RUNTIME = "1.18"  # the first that reads IR 10
NOT_LEARNED = "not learned; export with --confidence CROSSVALIDATION"


def card(path: Path | str) -> str:
    """Lines of text about the artefact at `path`; InputError for any other file."""
    about, data = load_artefact(Path(path))
    return card_of(about, len(data) / 1e6)


def card_of(about: Artefact, file_mb: float, *, is_hidden: bool = False) -> str:
    """Lines of text about an artefact. is_hidden: no names of cases."""
    rows = [
        ("artefact", f"{about.name}, {about.precision}, {about.num_parameters:,} parameters, {file_mb:.1f} MB"),
        ("network", _network(about)),
        ("input", _input(about)),
        *([("channels", ", ".join(about.channels))] if about.channels else []),
        ("outputs", ", ".join(about.outputs)),
        ("runs on", f"ONNX Runtime {MIN_ONNX_RUNTIME} or later, and other runtimes for ONNX opset 20 and IR 10"),
        ("preprocessing", _preprocessing(about)),
        ("post-processing", about.postprocessing.words_in(about.spec.unit)),
        ("trained on", _training(about, is_hidden)),
        *([("started from", f"{about.parent['name']} ({about.parent['sha256'][:12]})")] if about.parent else []),
        ("licence of data", about.license or "not stated"),
        *_dice(about),
        ("confidence", about.confidence.describe() if about.confidence else NOT_LEARNED),
        ("made with", ", ".join(f"{name} {version}" for name, version in about.tools.items())),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {printable_line(text)}" for name, text in rows]
    table = zip(about.classes.names, about.classes.values, about.classes.colors, strict=True)
    classes = [f"  {index}  value {value:<4} {color}  {name}" for index, (name, value, color) in enumerate(table)]
    return "\n".join([*lines, "classes", *map(printable_line, classes), "", "Not a medical device."])


def _network(about: Artefact) -> str:
    of_one = ", ".join(f"{key} {value}" for key, value in about.network_settings.items()) or "not stated"
    return of_one if about.num_members == 1 else f"mean of {about.num_members} networks, the first: {of_one}"


def _input(about: Artefact) -> str:
    if about.whole:
        volume = f"volume float32 ({about.spec.num_channels}, slices, rows, columns)"
        return f"{volume}, spacing float32 (3,) in {about.spec.unit}"
    height, width = (side or "any multiple of 16" for side in about.size)
    return f"slices float32 (batch, {about.spec.in_channels}, height, width); height {height}, width {width}"


def _preprocessing(about: Artefact) -> str:
    spec = about.spec
    low, high = spec.clip_percentiles
    rules = {
        "zscore": f"clipped at the percentiles {low:g} and {high:g}, mean 0 and deviation 1 per volume",
        "ct": f"window {spec.window[0]:g} to {spec.window[1]:g} scaled to -1 to 1",
        "none": "intensities unchanged, integers divided by the range of their type",
    }
    orientation = f"oriented to {spec.orientation}" if spec.orientation else "axes unchanged"
    spacing = f"{spec.spacing_mm:g} {spec.unit} in plane" if spec.spacing_mm else "native spacing"
    context = f", {spec.context_slices} neighbouring slices as channels" if spec.context_slices > 1 else ""
    return f"{orientation}, slices along axis {spec.slice_axis}, {rules[spec.normalization]}, {spacing}{context}"


def _training(about: Artefact, is_hidden: bool) -> str:
    cases = sorted(about.training_cases)
    shown = "" if is_hidden else f" ({', '.join(cases[:12])}{', ...' if len(cases) > 12 else ''})"
    return f"{len(cases)} cases{shown}, fold {about.fold}, {about.step} steps" if cases else "not stated"


def _dice(about: Artefact) -> list[tuple[str, str]]:
    dice = about.dice_at_export
    if not dice:
        return [("Dice at export", "not stated")]
    mean, checkpoint, count = score(dice["artefact"], 4), score(dice["checkpoint"], 4), num_scored(dice)
    kind = "cases left out of training" if dice["cases"] == "held out" else "TRAINING cases"
    return [
        ("Dice at export", f"{mean} on {count} {kind}; the checkpoint {checkpoint}"),
        ("", ", ".join(f"{name} {score(value, 4)}" for name, value in dice["per_class"].items())),
    ]


def num_scored(dice: DiceAtExport) -> int:
    """Cases that the mean is over: those with a Dice of a class."""
    return sum(any(value is not None for value in classes.values()) for classes in dice["per_case"].values())


def score(value: float | None, digits: int) -> str:
    """A Dice as text."""
    return "none" if value is None else f"{value:.{digits}f}"
