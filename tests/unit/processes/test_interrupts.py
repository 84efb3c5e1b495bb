"""Ctrl-C, SIGTERM and SIGHUP end a process in one way, at whatever moment they come."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.processes.interrupts import interrupts_wait

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


WAITING = """
import shutil, sys, time
from exporter.processes.interrupts import interrupt_on_signals
from exporter.bundle import stage_bundle
interrupt_on_signals()
def slowly(*given, remove=shutil.rmtree, **options):
    print("removing", flush=True)
    time.sleep(0.5)
    remove(*given, **options)
shutil.rmtree = slowly
try:
    with stage_bundle(sys.argv[1]) as folder:
        (folder / "a").touch()
        print("staged", flush=True)
        while True:
            time.sleep(0.02)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param(("SIGINT",), id="Ctrl-C"),
        pytest.param(("SIGTERM",), id="SIGTERM"),
        pytest.param(("SIGHUP",), id="SIGHUP"),
        pytest.param(("SIGTERM", "SIGTERM"), id="again while cleaning up"),
        pytest.param(("SIGHUP", "SIGTERM", "SIGINT"), id="one after the other"),
    ],
)
def test_signal_leaves_nothing_behind(signals: tuple[str, ...], tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, str(tmp_path / "deep" / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        for name in signals:
            process.stdout.readline()
            process.send_signal(signal.Signals[name])
        _, complaint = process.communicate(timeout=60)

    assert process.returncode == 130
    assert complaint == ""
    assert list(tmp_path.iterdir()) == []


def test_signal_that_is_ignored_stays_ignored() -> None:
    script = (
        "import os, signal\nfrom exporter.processes.interrupts import interrupt_on_signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\ninterrupt_on_signals()\n"
        "os.kill(os.getpid(), signal.SIGHUP)\nprint('alive')\n"
    )
    assert python(script).stdout == "alive\n"


def test_forked_process_ends_by_sigterm_without_a_word() -> None:
    script = (
        "import os, signal\nfrom exporter.processes.interrupts import interrupt_on_signals\ninterrupt_on_signals()\n"
        "ours, theirs = os.pipe()\nchild = os.fork()\n"
        "if not child:\n    os.write(theirs, b'.')\n    signal.pause()\n"
        "os.read(ours, 1)\nos.kill(child, signal.SIGTERM)\nprint(os.waitpid(child, 0)[1])\n"
    )
    done = python(script)

    assert (done.stdout, done.stderr) == (f"{signal.SIGTERM.value}\n", "")


def test_signal_that_meets_a_forked_process_at_its_birth_is_not_lost() -> None:
    """Of a process that lost it, this would wait for the end, as `Process.terminate(); join()` does."""
    script = (
        "import os, signal, time\nfrom exporter.processes.interrupts import interrupt_on_signals\n"
        "interrupt_on_signals()\n"
        "ends = set()\n"
        "for _ in range(20):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n        time.sleep(1)\n        os._exit(7)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    ends.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "print(ends)\n"
    )
    done = python(script)

    assert (done.stdout, done.stderr) == (f"{{{-signal.SIGTERM.value}}}\n", "")


MOMENTS = {
    "while click is imported": "sys.addaudithook(lambda event, given: press() if given[:1] == ('click',) else None)",
    "while the commands are imported": (
        "sys.addaudithook(lambda event, given: press() if given[:1] == ('exporter.cli.commands',) else None)"
    ),
    "when the command is done": (
        "import exporter.processes.interrupts as room\nhonest = room.ignore_signals\n"
        "room.ignore_signals = lambda: (press(), honest())"
    ),
    "at exit": "import atexit\natexit.register(lambda: press())",
    "in a destructor": (
        "class Dying:\n    def __del__(self):\n        press()\n"
        "import exporter.cli.app as room\nimport time\n"
        "def lose(*given, **options):\n    Dying()\n    while True:\n        time.sleep(0.02)\n"
        "room.app.main = lose"
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupt_at_any_moment_prints_no_traceback(moment: str) -> None:
    script = (
        "import os, signal, sys\npressed = []\n"
        "def press():\n    if not pressed:\n        pressed.append(1)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n        [0 for _ in range(100)]\n"
        f"{MOMENTS[moment]}\n"
        "sys.argv = ['exporter', '--version']\nfrom exporter.__main__ import run\nsys.exit(run())\n"
    )
    done = python(script)

    is_done = moment in ("when the command is done", "at exit")
    assert done.returncode == (0 if is_done else 130), done.stderr
    assert done.stderr.strip().partition(";")[0] == ("" if is_done else "error: interrupted")


def press_twice(done: list[str]) -> None:
    with interrupts_wait():
        for each in ("first", "second"):
            os.kill(os.getpid(), signal.SIGINT)
            done.append(each)


def test_interrupt_waits_for_the_end_of_a_block() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        press_twice(done)

    assert done == ["first", "second"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
