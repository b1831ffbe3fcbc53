"""Files that are whole or not there, also after a process was killed while it wrote one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from attunet.system.atomic_files import write_text

KILLED = """
import os, signal, sys
from pathlib import Path
from attunet.system.atomic_files import write_file

def write(temporary):
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

write_file(Path(sys.argv[1]), write)
"""


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "labels[1].txt"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    others = [tmp_path / f".{os.getppid()}.partial.{path.name}", tmp_path / ".note.partial.labels[1].txt"]
    for other in others:
        other.write_text("another process writes this")
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])
    assert path.read_text() == "whole"
