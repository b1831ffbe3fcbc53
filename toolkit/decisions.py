"""Decisions: readings of a user's files that another program could make otherwise, each with a rule, a reason and an option.

Every rule is a row of `RULES`; docs/sources.md has the table. A reader notes a decision on its volume, `prepare` and
`inspect` print it as `decided: ...`, and the manifest keeps it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attunet.errors import Finding, InputError


@dataclass(frozen=True)
class Rule:
    """One kind of decision.

    Args:
        question: the subject of the decision.
        default: the reading that is taken without an option.
        option: the option that takes another reading.
        choices: values of `--read RULE=VALUE`, the default first; empty where another option decides.
    """

    question: str
    default: str
    option: str = ""
    choices: tuple[str, ...] = ()


RULES: dict[str, Rule] = {
    "exif-orientation": Rule("camera orientation of photographs and masks (EXIF)", "applied, as viewers do", choices=("apply", "ignore")),
    "alpha-mask": Rule("masks with an alpha channel", "alpha is the mask where the colours are constant", choices=("auto", "drop")),
}

Choices = Mapping[str, str]


@dataclass(frozen=True)
class Decision:
    """One decision about one file: the rule's name, and the reading with its reason."""

    rule: str
    text: str

    def __post_init__(self) -> None:
        assert self.rule in RULES, self.rule


def choice(rule: str, choices: Choices) -> str:
    """The value of a rule: the user's choice, or the rule's default."""
    return choices.get(rule, RULES[rule].choices[0])


def parse_choices(texts: Iterable[str]) -> dict[str, str]:
    """`RULE=VALUE` texts of `--read` as a dictionary. Raises InputError for an unknown rule or value."""
    choices: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        known = {rule: RULES[rule].choices for rule in RULES if RULES[rule].choices}
        if name not in known:
            raise InputError(f"--read: the rule must be one of {', '.join(known)}, got {name!r}")
        if value not in known[name]:
            raise InputError(f"--read: {name} must be one of {', '.join(known[name])}, got {value!r}")
        choices[name] = value
    return choices


def as_findings(decisions: Mapping[str, Iterable[Decision]]) -> list[Finding]:
    """One finding for each different decision, with the number of cases that share it.

    Args:
        decisions: the decisions of each case, by its name.
    """
    cases: dict[Decision, list[str]] = {}
    for case, made in decisions.items():
        for decision in dict.fromkeys(made):
            cases.setdefault(decision, []).append(case)
    return [_finding(decision, names, len(decisions)) for decision, names in cases.items()]


def _finding(decision: Decision, cases: list[str], total: int) -> Finding:
    rule = RULES[decision.rule]
    option = rule.option or f"--read {decision.rule}={'|'.join(rule.choices[1:])}"
    text = f"{decision.text} ({len(cases)} of {total} cases; otherwise: {option})"
    return Finding(cases[0] if len(cases) == 1 and total > 1 else None, decision.rule, len(cases), "decided", text)


def rules_table() -> str:
    """The Markdown table of docs/sources.md: one row for each rule."""
    rows = ["| rule | about | without an option | otherwise |", "|---|---|---|---|"]
    for name, rule in RULES.items():
        otherwise = rule.option or ", ".join(f"`--read {name}={value}`" for value in rule.choices[1:])
        rows.append(f"| `{name}` | {rule.question} | {rule.default} | {otherwise} |")
    return "\n".join(rows) + "\n"
