"""Estimates of a case's Dice with a range, and whether a person should look at it: the record beside predictions."""

from dataclasses import asdict, dataclass

from attunet.fields import JsonObject

SCHEMA = 1


@dataclass(frozen=True)
class OrganEstimate:
    """The estimate of one organ.

    Args:
        dice: estimated Dice; None where it cannot be estimated, for `reason`. low, high: likewise; `LEVEL` of true
            values lie between.
        review: whether a person should look at it.
        reason: one line for people; empty where there is nothing to say.
    """

    dice: float | None
    low: float | None
    high: float | None
    review: bool
    reason: str = ""


@dataclass(frozen=True)
class CaseConfidence:
    """The estimates of one case, by class name. It holds no name of a case, a file or a patient.

    Args:
        review: whether a person should look at the case.
        reasons: of `review`, or of there being no estimates; one line each.
        level: share of true values that lie in the ranges.
        threshold: estimates below it are marked.
    """

    review: bool
    reasons: tuple[str, ...]
    level: float
    threshold: float | None
    organs: dict[str, OrganEstimate]

    def to_json(self) -> JsonObject:
        return {"schema": SCHEMA, **asdict(self)}

    def in_short(self) -> JsonObject:
        """`{"review", "organs": {name: [dice, low, high]}}`, rounded; without organs that have no estimate."""
        organs = {
            name: [round(value, 3) for value in (organ.dice, organ.low, organ.high) if value is not None]
            for name, organ in self.organs.items()
            if organ.dice is not None
        }
        return {"review": self.review, "organs": organs}

    def describe(self) -> str:
        estimates = ", ".join(
            f"{name} {organ.dice:.2f} ({organ.low:.2f} to {organ.high:.2f})"
            for name, organ in self.organs.items()
            if organ.dice is not None
        )
        words = [f"estimated Dice {estimates}"] if estimates else []
        if self.reasons:
            words.append(("review: " if self.review else "") + "; ".join(self.reasons))
        return "; ".join(words)
