"""Signals of processes: the first ends them in order, a second one at once, also where their terminal is gone."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from multiprocessing import get_context
from pathlib import Path

import pytest

from attunet.system.stop_signals import UnwindOnSignals

WAIT = """
import sys, time
from attunet.system.stop_signals import StopSignals
with StopSignals() as stop:
    print("ready", flush=True)
    while not stop.received:
        time.sleep(0.01)
    print("received", flush=True)
    if sys.argv[1:]:
        open(sys.argv[1], "w").write("saved")
        sys.exit(128 + stop.received)
    time.sleep(60)
"""
UNWIND = """
import os, signal, sys, time
from attunet.system.stop_signals import UnwindOnSignals
if sys.argv[1:]:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
with UnwindOnSignals():
    try:
        if os.fork() == 0:
            print("ready", flush=True)
        time.sleep(60)
    finally:
        print("removed", flush=True)
"""


def started(script: str, *arguments: str) -> subprocess.Popen[str]:
    """The process of a script that has printed its first line."""
    command = [sys.executable, "-c", script, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_second_signal_ends_at_once_and_an_echo_does_not() -> None:
    process = started(WAIT)
    assert process.stdout is not None
    process.terminate()
    assert process.stdout.readline() == "received\n"
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 128 + signal.SIGINT
    assert process.stderr is not None
    assert "SIGTERM: saving a checkpoint at the next step; once more to leave at once" in process.stderr.read()


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_every_context_once(number: signal.Signals) -> None:
    process = started(UNWIND)
    os.killpg(process.pid, number)  # a forked worker gets it too
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, "removed\n")
    assert err == f"{number.name}: ending; once more to leave at once\n"


def test_a_process_of_nohup_goes_on() -> None:
    process = started(UNWIND, "nohup")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "removed\n"


def test_a_forked_process_ends_by_the_system_alone() -> None:
    """A handler of Python's runs after the call that waits, which may wait for ever: a pool could not end a worker."""
    with UnwindOnSignals(), get_context("fork").Pool(1) as pool:
        assert pool.apply(signal.getsignal, [signal.SIGTERM]) == signal.SIG_DFL


@pytest.mark.usefixtures("hangup")
def test_a_process_whose_terminal_was_closed_saves_what_it_has(tmp_path: Path) -> None:
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT, tmp_path / "state"],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(inner)
    assert b"ready" in os.read(outer, 100)
    os.close(outer)
    assert process.wait(timeout=30) == 128 + signal.SIGHUP
    assert (tmp_path / "state").read_text() == "saved"
