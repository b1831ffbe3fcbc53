"""A look at every case of a source: facts, settled preprocessing, findings."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet.config import DataConfig
from attunet.errors import Finding, InputError
from attunet.preparation.case_facts import CaseFacts
from attunet.preparation.checks import check_cases
from attunet.preparation.facts_cache import scan_cases
from attunet.preparation.resolve_data import Settled, settle
from attunet.sources.case_files import Source
from attunet.splits import Splits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """What a look at every case of a source gave; facts in the order of the source's cases."""

    source: Source
    facts: tuple[CaseFacts, ...]
    settled: Settled
    findings: tuple[Finding, ...]


def survey(found: Source, config: DataConfig, *, splits: Splits | None = None, building: Path | None = None) -> Survey:
    """Read every case once, settle the preprocessing and check what looks wrong. Raises InputError where a case cannot be used.

    splits: a user's own folds, which may part what belongs together; building: the folder that remembers what has been looked at.
    """
    facts: list[CaseFacts] = []
    for fact in scan_cases(found, building):
        facts.append(fact)
        progress("looked at", len(facts), len(found.cases))
    settled = settle(found, facts, config)
    findings = check_cases(facts, {c.case: c.patient for c in found.cases}, settled.mappings, settled.classes, splits)
    return Survey(found, tuple(facts), settled, tuple(findings))


def refuse_errors(findings: Sequence[Finding], strict: bool) -> None:
    """Raises InputError with the first finding that ends the work (with `strict`, warnings do), after all have been reported."""
    if fatal := [f for f in findings if f.level == "error" or (strict and f.level == "warning")]:
        for finding in findings:
            finding.log(logger)
        first = fatal[0]
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        raise InputError(f"{first.case or 'data set'}: {first.text} [{first.rule}]{more}")


def progress(what: str, number: int, total: int) -> None:
    """A line where all are done, and about ten on the way where there are many."""
    if number == total or (total >= 50 and number * 10 // total > (number - 1) * 10 // total):
        logger.info(f"{what} {number} of {total} cases")
