"""Audit log: one record per predicted case with hashes of input, output and model, and findings; no names or paths."""

import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet.confidence.estimate import CaseConfidence
from attunet.errors import Finding, InputError
from attunet.privacy.audit_log import AuditLog
from attunet.system.atomic_files import sha256
from attunet.version import __version__

MAX_USER = 128  # characters of the user's name


@dataclass(frozen=True)
class Audit:
    """An audit log for one model. Raises InputError for a user that is empty, long, or has control characters."""

    log: AuditLog
    model_sha256: str  # of the artefact's file
    signature: str | None = None  # SHA-256 of the artefact's verified signature; None if it was not checked
    user: str | None = None

    def __post_init__(self) -> None:
        user = self.user
        # Any space counts as printable: Japanese names have one of their own
        is_plain = all(one.isprintable() or unicodedata.category(one) == "Zs" for one in user or "")
        if user is not None and not (user.strip() and is_plain and len(user) <= MAX_USER):
            rule = f"the user's name for the audit log must be 1 to {MAX_USER} printable characters (in a header UTF-8)"
            raise InputError(f"{rule}, got {user[:MAX_USER]!r}")

    def record(
        self,
        input_sha256: str | None,
        output_sha256: str | None,
        findings: Sequence[Finding] = (),
        confidence: CaseConfidence | None = None,
    ) -> str:
        """Append a case, whose output is None if it failed; the input's hash is that of `hash_of_files`."""
        return self.log.append(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "user": self.user,
                "status": "failed" if output_sha256 is None else "done",
                "input_sha256": input_sha256,
                "output_sha256": output_sha256,
                "model_sha256": self.model_sha256,
                "signature_sha256": self.signature,
                "findings": [{"rule": f.rule, "level": f.level, "figure": f.figure} for f in findings],
                **({} if confidence is None else {"confidence": confidence.in_short()}),
                "version": __version__,
            }
        )


class CaseAudit:
    """An audit log of the cases that `predict` segments: the input before it is read, the label map before it gets its
    name, so that each has a record. `records` has the hashes of earlier calls.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit, self._inputs = audit, dict[Path, str]()
        self.records = frozenset(str(record["hash"]) for record in audit.log.records())

    def begin(self, case: Path, input_sha256: str) -> None:
        """Note the input of a case, which has the path of its label map."""
        self._inputs[case] = input_sha256

    def end(
        self, case: Path, labels: Path | None, findings: Sequence[Finding] = (), estimates: CaseConfidence | None = None
    ) -> str:
        """Record a case, and return the record's hash. labels: its whole draft; None if the case failed."""
        written = sha256(labels) if labels is not None else None
        return self._audit.record(self._inputs.get(case), written, findings, estimates)
