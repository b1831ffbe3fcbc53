"""The answer of an evaluation in words: the best model, its interval, what is weakest, and the limits of the data."""

import math
from dataclasses import dataclass

from attunet.benchmarks.report.contents import Contents, ModelRow
from attunet.metrics.significance import MIN_PATIENTS


@dataclass(frozen=True)
class Answer:
    headline: str
    lines: tuple[str, ...]


def answer(contents: Contents) -> Answer:
    """Sentences from the best model's scores and the paired comparisons."""
    scored = [(value, m) for m in contents.models if (value := m.scores["dice"]["mean"]) is not None]
    if not scored:
        return Answer("No model has a case that it was not trained on: there is no score.", ())
    _, best = max(scored, key=lambda pair: pair[0])
    dice = best.scores["dice"]
    count = best.num_scored("dice")
    measured = f"Measured on {count} case{'s' if count > 1 else ''} that it was not trained on"
    headline = f"{best.label} reaches a mean Dice of {dice['mean']:.3f}"
    if dice["ci95"]:
        headline += f" (95 % interval {dice['ci95'][0]:.3f} to {dice['ci95'][1]:.3f})"
        reach = f"{measured}; the interval is a bootstrap over patients and speaks of patients like these."
    else:
        reach = (
            f"{measured}. With fewer than {MIN_PATIENTS} patients there is no interval: the figure says little about "
            "other patients."
        )
    lines = (reach, *_comparisons(contents), *_weakest(best, contents), *_speed(contents, best))
    return Answer(f"{headline}.", lines)


def _comparisons(contents: Contents) -> list[str]:
    """The paired tests in words; a model that gives the label maps of an earlier one is named instead."""
    twins = contents.twins
    words = [c["words"] for c in contents.comparisons if c["first"] not in twins and c["second"] not in twins]
    words += [f"{label} gives the label maps of {first}." for label, first in twins.items()]
    return list(dict.fromkeys(words))


def _weakest(best: ModelRow, contents: Contents) -> list[str]:
    per_class = {name: value for name, value in best.scores["dice"]["per_class"].items() if value is not None}
    cases = {case: best.case_mean(case) for case in contents.cases if case not in best.seen}
    defined = {case: value for case, value in cases.items() if not math.isnan(value)}
    if not per_class or not defined:
        return []
    weakest, worst = min(per_class, key=lambda n: per_class[n]), min(defined, key=lambda c: defined[c])
    case = f"worst case {worst} ({defined[worst]:.3f})"
    if len(per_class) == 1:
        return [f"Its {case}."]
    return [f"Its weakest class is {weakest} ({per_class[weakest]:.3f}), its {case}."]


def _speed(contents: Contents, best: ModelRow) -> list[str]:
    timed = {m.label: m.speed["latency_ms"]["batch"]["1"]["p50"] for m in contents.models if m.speed}
    if best.label not in timed:
        return []
    fastest = min(timed, key=lambda label: timed[label])
    is_fastest = fastest == best.label
    rest = ", the fastest here" if is_fastest else f"; the fastest model is {fastest} with {timed[fastest]:.1f} ms"
    return [f"It takes {timed[best.label]:.1f} ms a slice on this machine{rest}."]
