"""Parent side of a child process, against children that misbehave."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from exporter.processes.child import Child, ChildFailure
from tests.support.processes import still_running

Start = Callable[[str], Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a worker that runs some Python."""
    started: list[Child] = []

    def begin(code: str) -> Child:
        command = (sys.executable, "-S", "-E", "-c", code)
        started.append(Child(command, os.environ, tmp_path / "log"))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


def test_answers_come_in_order(start: Start) -> None:
    echo = start(
        "import sys, json\nfor line in sys.stdin: print(json.dumps({'got': json.loads(line)}), flush=True)"
    )

    assert [echo.ask({"ask": name}, timeout_s=30) for name in "ab"] == [
        {"got": {"ask": "a"}},
        {"got": {"ask": "b"}},
    ]


def test_answer_in_pieces_is_put_together(start: Start) -> None:
    slow = start(
        "import sys, time\nsys.stdin.readline()\n"
        "for part in ('{\"a\"', ': 1', '}', '\\n'):\n print(part, end='', flush=True); time.sleep(0.02)"
    )

    assert slow.ask({"ask": "x"}, timeout_s=30) == {"a": 1}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param(
            "import sys; sys.stdin.readline(); print('oh no', file=sys.stderr); sys.exit(3)",
            "ended with status 3: oh no",
            id="ends",
        ),
        pytest.param(
            "import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)",
            r"killed by SIGKILL \(out of memory\?\)",
            id="killed",
        ),
        pytest.param("raise SystemExit('never began')", "never began", id="dead before it is asked"),
        pytest.param("import time; time.sleep(60)", '"prepare" within 0.3 s', id="hangs"),
        pytest.param(
            "import sys, time; sys.stdin.readline(); print('{', end='', flush=True); time.sleep(60)",
            "within 0.3 s",
            id="stops in the middle",
        ),
        pytest.param(
            "import sys; sys.stdin.readline(); print('Downloading ...', flush=True)",
            "expected one JSON object per line, got b'Downloading ...'",
            id="babbles",
        ),
        pytest.param("import sys; sys.stdin.readline(); print('[1]', flush=True)", "one JSON", id="a list"),
        pytest.param(
            'import sys; sys.stdin.readline(); print(\'{"error": "no compiler"}\', flush=True)',
            "^no compiler$",
            id="refuses",
        ),
    ],
)
def test_failure_says_what_happened(code: str, words: str, start: Start) -> None:
    with pytest.raises(ChildFailure, match=words):
        start(code).ask({"ask": "prepare"}, timeout_s=0.3 if "60" in code else 30)


SERVER = """
import os, sys
from exporter.errors import UsageError
from exporter.processes.serving import serve

def answer(request):
    print("noise of a library")
    os.write(1, b"noise of native code")
    if request["ask"] == "fail":
        raise UsageError("sweep: no room")
    return {"got": request["ask"], "value": float(request["ask"])}

serve(answer)
"""


@pytest.mark.parametrize(
    ("ask", "message", "status"),
    [
        pytest.param("fail", "sweep: no room", 2, id="error of the user"),
        pytest.param("one", "ValueError: could not convert string to float: 'one'", 70, id="bug"),
        pytest.param("nan", "ValueError: Out of range float values are not JSON compliant", 70, id="no JSON"),
    ],
)
def test_served_errors_have_their_status_and_traceback(
    ask: str, message: str, status: int, tmp_path: Path
) -> None:
    served = Child((sys.executable, "-c", SERVER), os.environ, tmp_path / "log")
    try:
        assert served.ask({"ask": "1"}, timeout_s=60) == {"got": "1", "value": 1.0}
        with pytest.raises(ChildFailure, match=message) as failed:
            served.ask({"ask": ask}, timeout_s=60)
    finally:
        served.kill()

    assert failed.value.exit_status == status
    assert "Traceback" in failed.value.details
    assert (tmp_path / "log").read_text(encoding="utf-8").count("noise of native code") == 2


def test_kill_takes_the_children_along(start: Start) -> None:
    """As a compiler that the worker started would be."""
    process = start(
        "import sys, subprocess, json\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "sys.stdin.readline(); print(json.dumps({'child': child.pid}), flush=True); sys.stdin.readline()"
    )
    child = process.ask({"ask": "x"}, timeout_s=30)["child"]
    assert psutil.pid_exists(child)

    process.kill()

    assert still_running([child]) == []


def test_kill_of_the_dead_does_nothing(start: Start) -> None:
    process = start("pass")

    process.kill()
    process.kill()


def test_worker_leads_a_group_of_its_own(start: Start) -> None:
    """Ctrl-C in a terminal goes to the race's group."""
    process = start(
        "import os, sys; sys.stdin.readline(); print('{\"group\": %d}' % os.getpgrp(), flush=True); sys.stdin.read()"
    )

    assert process.ask({"ask": "x"}, timeout_s=30)["group"] != os.getpgrp()
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
