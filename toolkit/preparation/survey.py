"""All cases of a source: their facts, the resolved preprocessing, the findings."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from attunet.config import DataConfig
from attunet.decisions import Decision, as_findings
from attunet.errors import Finding, InputError
from attunet.preparation.case_facts import CaseFacts
from attunet.preparation.checks import check_cases, check_window
from attunet.preparation.resolve_data import Resolved, resolve
from attunet.sources.case_files import Source
from attunet.sources.labels.labelled import check_drawn
from attunet.sources.patients import with_patients_of_headers
from attunet.sources.splits import Splits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """Result of scanning all cases: the facts in the order of the cases; of the findings, decisions come first."""

    facts: tuple[CaseFacts, ...]
    resolved: Resolved
    findings: tuple[Finding, ...]

    @property
    def source(self) -> Source:
        return self.resolved.source


def survey(source: Source, scanned: Iterable[CaseFacts], config: DataConfig, splits: Splits | None = None) -> Survey:
    """Resolve the preprocessing for scanned cases and check the data; raises InputError if they do not fit together.

    Cases without facts are left out. `splits` are the user's own folds, which may separate cases that belong together;
    None if folds are drawn.
    """
    facts: list[CaseFacts] = []
    for fact in scanned:
        facts.append(fact)
        progress("scanned", len(facts), len(source.cases))
    if not facts:
        raise InputError(f"{source.root}: no case can be read")
    readable = {fact.case for fact in facts}
    source = replace(source, cases=tuple(case for case in source.cases if case.case in readable))
    if not source.patients_given:
        source = with_patients_of_headers(source, {f.case: f.patient_hash for f in facts if f.patient_hash is not None})
    resolved = resolve(source, facts, config)
    # The greys of smoothed edges pass those of other classes: there, regions show which classes a mask has
    values = {f.case: f.label_regions if resolved.source.grey_levels else f.values for f in facts}
    present = {case: [index[value] for value in values[case]] for case, index in resolved.mappings.items()}
    check_drawn(resolved.source, resolved.classes.names, present)
    findings = [
        *as_findings({None: (*source.decisions, *resolved.decisions)}),
        *as_findings({fact.case: [Decision(rule, text) for rule, text in fact.decisions] for fact in facts}),
        *check_cases(facts, resolved, splits),
        *check_window(facts, resolved.spec),
    ]
    return Survey(tuple(facts), resolved, tuple(findings))


def refuse_errors(findings: Sequence[Finding], strict: bool) -> None:
    """Log all findings and raise InputError, if there is an error among them or, with `strict`, a warning."""
    if fatal := [f for f in findings if f.level == "error" or (strict and f.level == "warning")]:
        for finding in findings:
            finding.log(logger)
        first = fatal[0]
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        raise InputError(f"{first.case or 'data set'}: {first.text} [{first.rule}]{more}")


def progress(what: str, number: int, total: int) -> None:
    """Log a line of progress when all cases are done, and about ten lines before if there are many cases."""
    if number == total or (total >= 50 and number * 10 // total > (number - 1) * 10 // total):
        logger.info(f"{what} {number} of {total} cases")
