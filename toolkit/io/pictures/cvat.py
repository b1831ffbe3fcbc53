"""CVAT's annotations (XML)."""

import xml.etree.ElementTree as ElementTree
from functools import partial
from io import StringIO

import numpy as np

from attunet.errors import InputError
from attunet.io.pictures.regions import Annotations, Block, NotAnnotations, PackedMask, Region, block_of_runs, numbered

OUTLINES = ("polygon", "mask", "tag")  # a tag is of a whole picture


def read_cvat(content: bytes) -> Annotations:
    parser = ElementTree.XMLParser(target=_Tree())
    try:
        root = ElementTree.fromstring(content, parser)
    except ElementTree.ParseError:
        raise NotAnnotations("is no XML") from None
    if root.tag != "annotations":
        raise NotAnnotations("is no export of CVAT (its first element must be annotations)")
    read = Annotations()
    for image in root.iter("image"):
        ordered = sorted(image, key=lambda shape: int(shape.attrib.get("z_order", 0)))
        regions = [region for shape in ordered if (region := _region(shape)) is not None]
        read.add_picture(image.attrib["name"], regions)
        read.undrawn += sum("label" in shape.attrib and shape.tag not in OUTLINES for shape in image)
        if "width" in image.attrib and "height" in image.attrib:
            read.add_size(image.attrib["name"], int(image.attrib["width"]), int(image.attrib["height"]))
    named = [name.text or "" for label in root.iter("label") for name in label.findall("name")]
    drawn = [region.name for regions in read.pictures.values() for region in regions]
    read.values = numbered([*named, *drawn])
    return read


class _Tree(ElementTree.TreeBuilder):
    """Ends at the declaration of a document's type, in any encoding: it may define entities, which grow."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise InputError("must not define entities")


def _region(shape: ElementTree.Element) -> Region | None:
    name = shape.attrib.get("label", "")
    if shape.tag == "polygon":
        corners = _numbers(shape.attrib["points"], ";", float)
        if corners.shape[1] != 2:
            raise InputError(f"a polygon's points must have two numbers, got {corners.shape[1]}: export it again")
        return Region(name, (corners,))
    if shape.tag == "mask":
        size = int(shape.attrib["height"]), int(shape.attrib["width"])
        corner = int(shape.attrib["top"]), int(shape.attrib["left"])
        return Region(name, mask=PackedMask(size, partial(_rows, shape.attrib["rle"], *size), corner))
    return None


def _rows(runs: str, height: int, width: int) -> Block:
    pixels, row = block_of_runs(_numbers(runs, ",", np.int64)[:, 0].tolist(), height, width)
    return pixels, row, 0


def _numbers(text: str, separator: str, kind: type) -> np.ndarray:
    """Rows of numbers, of which a list would take many times the memory."""
    lines = text.replace(separator, "\n")
    rows = (
        np.loadtxt(StringIO(lines), kind, comments=None, delimiter=",", ndmin=2) if lines.strip() else np.zeros((0, 1))
    )
    if len(rows) <= text.count(separator):
        raise InputError("points and run lengths must be numbers, one is empty: export it again")
    return rows
