"""Channels of an image, such as T1w and FLAIR: their names, the order in which a model takes them, and which of them
tell a scan from others.

Names are equal in any case of letters. Nothing is compared where one side has no names, and a single channel fits
whatever its name.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from attunet.errors import InputError

MAX_SHARING = 3  # a scan that is there more often with other channels beside it is not expected


def order_of(there: Sequence[str], needed: Sequence[str]) -> list[int] | None:
    """The index of each needed channel among those that are there; None if one is missing or there twice."""
    names, wanted = list(map(_plain, there)), list(map(_plain, needed))
    return [names.index(name) for name in wanted] if all(names.count(name) == 1 for name in wanted) else None


def check_channels(where: object, needed: Sequence[str], store: object, there: Sequence[str]) -> None:
    """Raise InputError if the model at `where` needs other channels than a store has, or has them in another order."""
    if min(len(needed), len(there)) > 1 and list(map(_plain, needed)) != list(map(_plain, there)):
        raise InputError(
            f"{where}: needs the channels {', '.join(needed)}, and {store} has {', '.join(there)}: prepare it with the "
            f"model's channels in the model's order (files of a case by --images {','.join(needed)})"
        )


def are_colours(names: Sequence[str]) -> bool:
    """True for the channels of a colour picture, by whose names a grey picture is one as well."""
    return list(map(_plain, names)) in (["red", "green", "blue"], ["r", "g", "b"])


def telling_channels(hashes: Iterable[tuple[str, Sequence[str]]]) -> set[str]:
    """The hashes of channels that tell a scan: an atlas, or coordinates, are the same for more than `MAX_SHARING`
    patients. hashes: patient and hashes of the channels of each case.
    """
    patients: defaultdict[str, set[str]] = defaultdict(set)
    for patient, own in hashes:
        for digest in own:
            patients[digest].add(patient)
    return {digest for digest, sharing in patients.items() if len(sharing) <= MAX_SHARING}


def are_distinct(names: Sequence[str]) -> bool:
    """True if no two names are equal."""
    return len(set(map(_plain, names))) == len(names)


def _plain(name: str) -> str:
    return name.strip().casefold()
