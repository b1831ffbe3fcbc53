"""SNOMED CT codes of organs for DICOM SEG, from DICOM PS3.16 (`pydicom.sr.codedict.codes.SCT`)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attunet.errors import InputError
from attunet.fields import is_text_list, read_json

SNOMED = "SCT"
PRIVATE = "99ATTUNET"  # the scheme of classes without a code in a public one
SIDES = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}
ORGANS = {
    "adrenal gland": "23451007",
    "aorta": "15825003",
    "bladder": "89837001",
    "bone": "272673000",
    "brain": "12738006",
    "colon": "71854001",
    "cyst": "367643001",
    "duodenum": "38848004",
    "esophagus": "32849002",
    "femur": "71341001",
    "gallbladder": "28231008",
    "heart": "80891009",
    "inferior vena cava": "64131007",
    "kidney": "64033007",
    "left ventricle": "87878005",
    "lesion": "52988006",
    "liver": "10200004",
    "lung": "39607008",
    "nodule": "27925004",
    "pancreas": "15776009",
    "portal vein": "32764006",
    "prostate": "41216001",
    "rectum": "34402009",
    "retina": "5665001",
    "skin lesion": "95324001",
    "small intestine": "30315005",
    "spleen": "78961009",
    "stomach": "69695003",
    "thyroid": "69748006",
    "trachea": "44567001",
    "tumor": "108369006",
    "uterus": "35039007",
    "vertebra": "51282000",
}
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
    organ = ALIASES.get(words, words)
    if organ in ORGANS:
        return Code(ORGANS[organ], SNOMED, organ.capitalize())
    for side, code in SIDES.items():
        rest = re.sub(rf"\b{side}\b", "", words).strip()
        organ = ALIASES.get(rest, rest)
        if rest != words and organ in ORGANS:
            return Code(ORGANS[organ], SNOMED, organ.capitalize(), code)
    return Code(str(label_value), PRIVATE, name)


def read_codes(path: Path) -> dict[str, Code]:
    """A user's codes: `{"class name": ["scheme", "value", "meaning"], ...}` in a JSON file.

    Raises:
        InputError: for a file of another form, or texts that DICOM does not hold: longer (16 characters, meanings 64),
            or with a backslash, which parts two values there.
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
