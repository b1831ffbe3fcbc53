"""`make audit` tells known vulnerabilities from a database that does not answer."""

import json
import sys
from pathlib import Path

import pytest

from attunet.launch.vulnerabilities import audit

LOCKS = [Path(__file__).parents[2] / "lock-torch.txt"]
SAFE = {"name": "numpy", "version": "2.4.6", "vulns": []}
VULNERABLE = {"name": "pillow", "version": "9.0", "vulns": [{"id": "CVE-2022-1", "fix_versions": ["9.1"]}]}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}


def answering(folder: Path, packages: list[dict[str, object]], code: int) -> list[str]:
    """A program that answers as pip-audit does: the real database is not the same tomorrow."""
    script = folder / "pip_audit.py"
    text = json.dumps({"dependencies": packages, "fixes": []})
    script.write_text(f"import sys\nprint({text!r})\nsys.exit({code})\n", encoding="utf-8")
    return [sys.executable, str(script)]


@pytest.mark.parametrize(
    ("packages", "theirs", "ours", "lines"),
    [
        ([SAFE], 0, 0, ["audit: no known vulnerabilities in 1 packages"]),
        (
            [SAFE, VULNERABLE],
            1,
            1,
            ["pillow 9.0: CVE-2022-1, fixed in 9.1", "audit: 1 known vulnerabilities in 2 packages"],
        ),
        ([SAFE, UNKNOWN], 0, 2, ["audit: 1 of 2 packages could not be compared: torch"]),
        (
            [VULNERABLE, UNKNOWN],
            1,
            1,
            [
                "pillow 9.0: CVE-2022-1, fixed in 9.1",
                "audit: 1 known vulnerabilities in 2 packages",
                "audit: 1 of 2 packages could not be compared: torch",
            ],
        ),
    ],
    ids=["none", "vulnerable", "unknown", "both"],
)
def test_each_answer_has_its_lines_and_code(
    tmp_path: Path, packages: list[dict[str, object]], theirs: int, ours: int, lines: list[str]
) -> None:
    assert audit(LOCKS, answering(tmp_path, packages, theirs)) == (ours, lines)


def test_a_database_that_cannot_be_reached_is_one_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With pip-audit itself, on a network that leads nowhere."""
    pytest.importorskip("pip_audit")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    code, (line,) = audit(LOCKS)
    assert code == 2
    assert line.startswith("audit: not done, the database could not be reached: ")
