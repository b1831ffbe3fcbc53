"""Known vulnerabilities of the locked packages: `python -m attunet.launch.vulnerabilities lock.txt lock-torch.txt`.

pip-audit looks every package up in the database of PyPI. Its own exit code is 1 for a vulnerability and for a database
that does not answer, and 0 for packages that the database does not know; here each has its line and its exit code.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NONE_KNOWN, VULNERABLE, NOT_COMPARED = 0, 1, 2
OPTIONS = ("--format", "json", "--progress-spinner", "off", "--require-hashes", "--disable-pip")
MAX_NAMED = 5  # packages in a line


def audit(locks: Sequence[Path], program: Sequence[str] = (sys.executable, "-m", "pip_audit")) -> tuple[int, list[str]]:
    """Compare the packages of lock files with the database, by the command that starts pip-audit. Returns lines, and
    the exit code: 0 no known vulnerability, 1 at least one, 2 not all packages could be compared.
    """
    named = [word for lock in locks for word in ("--requirement", str(lock))]
    done = subprocess.run([*program, *OPTIONS, *named], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
        return NOT_COMPARED, [f"audit: not done, the database could not be reached: {reason}"]
    lines = [
        f"{one['name']} {one['version']}: {known['id']}, fixed in {', '.join(known['fix_versions']) or 'no version'}"
        for one in packages
        for known in one.get("vulns", [])
    ]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    if lines:
        lines.append(f"audit: {len(lines)} known vulnerabilities in {len(packages)} packages")
    if skipped:
        more = ", ..." if len(skipped) > MAX_NAMED else ""
        names = ", ".join(skipped[:MAX_NAMED]) + more
        lines.append(f"audit: {len(skipped)} of {len(packages)} packages could not be compared: {names}")
    code = VULNERABLE if len(lines) > bool(skipped) else NOT_COMPARED if skipped else NONE_KNOWN
    return code, lines or [f"audit: no known vulnerabilities in {len(packages)} packages"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("locks", type=Path, nargs="+", metavar="LOCK", help="requirements with hashes")
    code, lines = audit(parser.parse_args().locks)
    print("\n".join(lines))
    sys.exit(code)


if __name__ == "__main__":
    main()
