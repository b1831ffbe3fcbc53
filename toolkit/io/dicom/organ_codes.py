"""SNOMED CT codes of organs for DICOM SEG, those of DICOM PS3.16 as pydicom has them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attunet.errors import InputError
from attunet.fields import is_text_list, read_json

SNOMED = "SCT"
PRIVATE = "99ATTUNET"  # the scheme of classes without a code in a public one
SIDES = ("left", "right")
ORGANS = (  # of which pydicom has codes; not all of its words, since a class may mean another thing by them
    *("adrenal gland", "aorta", "bladder", "bone", "brain", "colon", "cyst", "duodenum", "esophagus", "femur"),
    *("gallbladder", "heart", "inferior vena cava", "kidney", "left ventricle", "lesion", "liver", "lung", "nodule"),
    *("pancreas", "portal vein", "prostate", "rectum", "retina", "skin lesion", "small intestine", "spleen", "stomach"),
    *("thyroid", "trachea", "tumor", "uterus", "vertebra"),
)
ALIASES = {
    "oesophagus": "esophagus",
    "urinary bladder": "bladder",
    "gall bladder": "gallbladder",
    "tumour": "tumor",
    "postcava": "inferior vena cava",
    "thyroid gland": "thyroid",
}


@dataclass(frozen=True)
class Code:
    """A concept: its value in a coding scheme, its meaning in words, and its side (a value and a meaning) or None."""

    value: str
    scheme: str
    meaning: str
    side: tuple[str, str] | None = None


def code_of(name: str, label_value: int, own: Mapping[str, Code]) -> Code:
    """The code of a class: the user's own, an organ's with its side (as of `left kidney`), else the label value."""
    if name in own:
        return own[name]
    words = re.sub(r"[\W_]+", " ", name.lower()).strip()
    for side in (None, *SIDES):
        rest = re.sub(rf"\b{side}\b", "", words).strip() if side else words
        organ = ALIASES.get(rest, rest)
        if organ in ORGANS:
            of_side = (_value_of(side), side.capitalize()) if side else None
            return Code(_value_of(organ), SNOMED, organ.capitalize(), of_side)
    return Code(str(label_value), PRIVATE, name)


def _value_of(words: str) -> str:
    """SNOMED CT's value of a concept."""
    from pydicom.sr.codedict import codes

    return str(getattr(codes.SCT, words.title().replace(" ", "")).value)


def read_codes(path: Path) -> dict[str, Code]:
    """A user's codes: `{"class name": ["scheme", "value", "meaning"], ...}` in a JSON file. Raises InputError for
    another form, and for texts that DICOM does not hold: too long, or with a backslash, which parts two values there.
    """
    codes: dict[str, Code] = {}
    for name, row in read_json(path).data.items():
        texts: list[str] = row if isinstance(row, list) and len(row) == 3 and is_text_list(row) else [""] * 3
        fits = (0 < len(text) <= most for text, most in zip(texts, (16, 16, 64), strict=True))
        if not all(fits) or "\\" in "".join(texts):
            rule = "a scheme and a value of up to 16 characters and a meaning of up to 64, without a backslash"
            raise InputError(f"{path}: {name!r} must have {rule}")
        scheme, value, meaning = texts
        codes[name] = Code(value, scheme, meaning)
    return codes
