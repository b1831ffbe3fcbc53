"""An artefact's metadata as a model card, see https://huggingface.co/docs/hub/model-cards."""

import json
from pathlib import Path

from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import load_artefact
from attunet.export.artefact.card import card_of, num_scored, score
from attunet.system.plain_text import markdown_table, printable_line, table_cell
from attunet.version import __version__


def hub_card(path: str | Path) -> str:
    """The model card of the artefact at `path`, `README.md` on the Hub. Raises InputError for any other file."""
    path = Path(path)
    about, data = load_artefact(path)
    metadata = card_of(about, len(data) / 1e6).replace("```", "").splitlines()
    parts = [
        _metadata_block(about),
        f"# {table_cell(about.name)}",
        _summary(about),
        "## Intended use",
        "Research on the segmentation of images like those in the training set. **Not a medical device**: not for "
        "diagnosis, treatment planning or any decision about a patient.",
        "## Use",
        _use(about, path.name),
        "## Training data",
        _data(about),
        "## Results",
        *_results(about),
        "## Limits",
        _limits(about),
        "## All metadata",
        "```text\n" + "\n".join(f" {line}" for line in metadata) + "\n```",
        f"Written by attunet {__version__} (Apache-2.0).",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata_block(about: Artefact) -> str:
    """The YAML block; JSON strings are YAML strings."""
    lines = ["---", "library_name: attunet", "pipeline_tag: image-segmentation"]
    lines += ["tags:", *(f"- {tag}" for tag in ("medical-imaging", "segmentation", "unet", "onnx", about.precision))]
    if about.license:
        lines += ["license: other", f"license_name: {json.dumps(printable_line(about.license))}"]
    dice = about.dice_at_export
    if dice is not None and dice["artefact"] is not None:
        kind = "held-out cases" if dice["cases"] == "held out" else "training cases"
        lines += [
            "model-index:",
            f"- name: {json.dumps(printable_line(about.name))}",
            "  results:",
            "  - task:",
            "      type: image-segmentation",
            "    dataset:",
            f"      name: {json.dumps(kind)}",
            f"      type: {kind.replace(' ', '-')}",
            "    metrics:",
            "    - type: dice",
            f"      value: {dice['artefact']:.4f}",
            "      name: mean Dice",
        ]
    return "\n".join([*lines, "---"])


def _summary(about: Artefact) -> str:
    networks = {"unet": "a U-Net", "attention_unet": "an Attention U-Net"}
    network = networks.get(str(about.network_settings.get("name")), "a network")
    if about.num_members > 1:
        network = f"the mean of {about.num_members} networks"
    kind = "a whole volume to its label map" if about.whole else "2D slices of a volume to logits"
    classes = ", ".join(table_cell(name) for name in about.classes.foreground)
    return (
        f"One self-describing ONNX file with {network} of {about.num_parameters:,} parameters ({about.precision}), "
        f"from {kind}. It segments {classes}."
    )


def _use(about: Artefact, name: str) -> str:
    text = (
        f"```bash\npip install attunet\nattunet predict {printable_line(name)} scan.nii.gz labels.nii.gz\n```\n\n"
        "Or with any ONNX runtime, as attunet's page on the artefact describes. Download with the Hub's own tools "
        "(`hf download OWNER/REPOSITORY`); a local copy works offline."
    )
    if about.postprocessing.largest_component:
        text += " Post-processing of the label map is the client's task there."
    return text


def _data(about: Artefact) -> str:
    cases, licence = len(about.training_cases), table_cell(about.license) if about.license else "not stated"
    fold = "none" if about.fold == "all" else about.fold
    text = f"{cases} cases, {about.step:,} steps, fold held out: {fold}. Licence of the data: {licence}."
    if about.ranges is None:
        return text
    spacing, extent = (
        " × ".join(f"{low:g} to {high:g}" for low, high in axes) for axes in (about.ranges.spacing, about.ranges.extent)
    )
    unit = about.ranges.unit
    return f"{text} Spacing {spacing} {unit}, extent {extent} {unit}. Other inputs get a warning."


def _results(about: Artefact) -> list[str]:
    dice = about.dice_at_export
    if not dice:
        return ["Not stated."]
    kind = "held-out cases" if dice["cases"] == "held out" else "TRAINING cases, since the training held none out"
    rows = [(table_cell(name), score(value, 3)) for name, value in dice["per_class"].items()]
    rows.append(("**mean**", f"**{score(dice['artefact'], 3)}**"))
    span = "too few patients for an interval" if "ci95" in dice else "its interval is not known"
    if interval := dice.get("ci95"):
        span = f"95 % interval over patients {interval[0]:.3f} to {interval[1]:.3f}"
    return [
        f"Dice on {kind} ({num_scored(dice)} in all), in 3D on the native grid, after post-processing; {span}.",
        markdown_table(("class", "Dice"), rows),
    ]


def _limits(about: Artefact) -> str:
    cases = num_scored(about.dice_at_export) if about.dice_at_export else 0
    lines = [
        f"- The scored cases ({cases} in all) come from the same source as the training set; other scanners, sites and "
        "protocols were not tested.",
        "- A network segments every input, also one without these organs.",
    ]
    if about.precision == "int8":
        lines.append("- int8 needs a CPU with VNNI or AMX; others compute other labels, which `attunet verify` shows.")
    if about.whole and about.postprocessing.largest_component:
        lines.append("- The graph gives labels before post-processing; `attunet predict` applies it.")
    return "\n".join(lines)
