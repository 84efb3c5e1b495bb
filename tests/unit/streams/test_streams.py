"""Standard output and error that are closed, full, or read by nobody end a command in a stated way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

VERSION, NONSENSE = "--version", "lint nothing.onnx --for nobody"


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `exporter` is the command."""
    return subprocess.run(
        ["bash", "-c", line.replace("exporter", f"{sys.executable} -m exporter")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        pytest.param(f"exporter {VERSION} >&-", 0, "", id="closed output"),
        pytest.param(f"exporter {VERSION} 2>&- >/dev/null", 0, "", id="closed error"),
        pytest.param(f"exporter {VERSION} <&- >&- 2>&-", 0, "", id="all closed"),
        pytest.param(
            f"exporter {VERSION} >/dev/full",
            2,
            "error: stdout: cannot be written: No space left on device; free some space, or send it elsewhere\n",
            id="full output",
        ),
        pytest.param(f"exporter {NONSENSE} 2>/dev/full", 2, "", id="full error"),
        pytest.param(f"exporter {NONSENSE} 2>&-", 2, "", id="closed error of a failure"),
        pytest.param(
            f"exporter {VERSION} > >(exec <&-; sleep 1) && wait",
            None,
            "",
            id="a reader that has gone",
        ),
    ],
)
def test_stream_that_cannot_be_written(line: str, status: int | None, said: str) -> None:
    done = shell(line)

    assert done.returncode in ((0, 141) if status is None else (status,))
    assert done.stderr == said
    assert done.stdout == ""


def test_reader_that_has_gone_is_status_141_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "exporter", VERSION],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (141, b"")


def test_text_that_a_stream_cannot_encode_is_escaped() -> None:
    done = shell(
        "exporter lint nothing.onnx --for $'n\\xff\\u2713'", PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8"
    )

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "\\\\udcff" in done.stderr or "\\udcff" in done.stderr


def test_file_is_not_printed_into_where_output_is_closed(tmp_path: Path) -> None:
    script = (
        "from exporter.streams import guard_streams\nguard_streams()\n"
        "import os\nfile = open('mine', 'wb')\nos.write(1, b'noise')\nprint('more')\n"
    )
    line = f'cd {tmp_path}; {sys.executable} -c "$SCRIPT" >&-'

    done = shell(line, SCRIPT=script)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine").read_bytes() == b""
