"""Answers of a server as its client reads them: nothing is believed, every field is checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attunet.classes import LABEL_VALUE
from attunet.errors import InputError
from attunet.export.serve.formats import ENDINGS, MARKS, ModelDescription
from attunet.fields import Fields, JsonObject, Rule, parse_json
from attunet.io.dicom.segmentation import check_segmentation_file
from attunet.io.readers import read_mask

MAX_LINE = 2000  # characters of a text


@dataclass(frozen=True)
class Answer:
    """The result of a scan."""

    content: bytes  # the label map's file
    unit: str  # ml or voxels
    volumes: Mapping[str, float]  # amount of every foreground class in it
    findings: tuple[Mapping[str, str | float], ...]  # warnings of the server
    model_sha256: str  # of the artefact that gave it
    # {"review": true where a person should look, "organs": {name: [estimated Dice, low, high]}}; None without estimator
    confidence: JsonObject | None = None
    decisions: tuple[Mapping[str, str], ...] = ()  # rule and text of readings that another program could make otherwise


@dataclass(frozen=True)
class Response:
    """A response that was read whole; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


def description_of(row: Fields) -> ModelDescription:
    """A served model. Raises InputError for a field that is missing or of another type."""
    return {
        "name": row.text("name"),
        "network": row.text("network"),
        "sha256": row.text("sha256"),
        "precision": row.text("precision"),
        "provider": row.text("provider"),
        "channels": row.whole("channels", 1),
        "channel_names": row.text_list("channel_names"),
        "classes": [{"name": one.text("name"), "value": one.get("value", LABEL_VALUE)} for one in row.rows("classes")],
    }


def reason_of(content: bytes) -> str:
    """The server's reason for a refusal."""
    try:
        return " ".join(str(parse_json(content)["error"])[:MAX_LINE].split())
    except (ValueError, KeyError, TypeError):
        return "no reason given"


def answer_of(response: Response, url: str, accept: str) -> Answer:
    """The answer to a scan. Raises InputError for a wrong field, KeyError and ValueError for a wrong header."""
    kind = response.headers["content-type"]
    ending = ENDINGS.get(kind, "")
    is_marked = ending == ".dcm" or response.content.startswith(MARKS.get(ending, ()))
    if accept not in (kind, "*/*") or not is_marked:
        raise ValueError(f"its label map is no {accept}")
    amounts = Fields(parse_json(response.headers["x-attunet-volumes"]), url)
    volumes = amounts.inner("volumes")
    findings = Fields({"findings": parse_json(response.headers["x-attunet-findings"])}, url)
    decisions = Fields({"decisions": parse_json(response.headers.get("x-attunet-decisions", "[]"))}, url)
    confidence = parse_json(response.headers.get("x-attunet-confidence", "null"))
    if confidence is not None:
        Fields(confidence, url).flag("review")
    return Answer(
        content=response.content,
        unit=amounts.choice("unit", ("ml", "voxels")),
        volumes={name: float(volumes.get(name, Rule(float, 0))) for name in volumes.data},
        findings=tuple(map(_finding, findings.rows("findings"))),
        model_sha256=response.headers["x-attunet-model-sha256"],
        confidence=confidence,
        decisions=tuple(
            {"rule": row.text("rule"), "text": row.text("text", MAX_LINE)} for row in decisions.rows("decisions")
        ),
    )


def write_labels(content: bytes, path: Path) -> None:
    """Write a label map. Raises ValueError for one that cannot be read."""
    path.write_bytes(content)
    try:
        (check_segmentation_file if path.name.lower().endswith(".dcm") else read_mask)(path)
    except InputError as error:
        raise ValueError(f"its label map cannot be read: {str(error).removeprefix(f'{path}: ')}") from None


def _finding(row: Fields) -> dict[str, str | float]:
    figure = float(row.get("figure", Rule(float)))
    return {"rule": row.text("rule"), "level": row.text("level"), "text": row.text("text", MAX_LINE), "figure": figure}
