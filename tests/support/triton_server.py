"""NVIDIA's Triton itself, from the wheel that carries one (CPU, python backend): on loopback, with a deadline each.

The wheel's stub of the python backend was made for numpy 1, so that the server's Python is an environment of its own:
numpy 1 in front of the packages that the tests run with. It looks for `python3` in PATH, and ignores PYTHONPATH.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from socket import socket
from sysconfig import get_config_var, get_path
from typing import Any

import psutil
import pytest

from tests.support.package_index import installed

WHEEL, NUMPY = "nvidia-pytriton==0.7.0", "numpy==1.26.4"
DEADLINE_S = 30.0

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, kw_only=True)
class Triton:
    """A server that is installed.

    Attributes:
        home: of the wheel's packages.
        environment: of the server's Python.
    """

    home: Path
    environment: Path

    def start(self, repository: Path, log: Path) -> tuple["subprocess.Popen[bytes]", int]:
        """Start it; the process and its port."""
        with socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = self.home / "pytriton" / "tritonserver"
        options = {
            "model-repository": repository,
            "backend-directory": server / "backends",
            "http-address": "127.0.0.1",
            "http-port": port,
            "allow-grpc": "false",
            "allow-metrics": "false",
            "exit-timeout-secs": 10,
            "backend-config": f"python,shm-region-prefix-name={_shared_memory(port)}",
        }
        command = [
            str(server / "bin" / "tritonserver"),
            *(f"--{name}={value}" for name, value in options.items()),
        ]
        libraries = (str(self.home / "nvidia_pytriton.libs"), str(get_config_var("LIBDIR") or ""))
        paths = {
            "PATH": f"{self.environment / 'bin'}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": ":".join(libraries),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=os.environ | paths, start_new_session=True
            )
        return process, port

    @contextmanager
    def running(self, repository: Path, log: Path) -> Iterator["Running"]:
        """A server that is ready; nothing of it is left after the block."""
        process, port = self.start(repository, log)
        running = Running(process=process, port=port)
        try:
            deadline = time.monotonic() + DEADLINE_S
            while running.status("/v2/health/ready") != 200:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.05)
            yield running
        finally:
            end(process, port)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that runs."""

    process: "subprocess.Popen[bytes]"
    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def stub(self, model: str) -> psutil.Process:
        """The process that runs a model's Python."""
        (found,) = (
            child
            for child in psutil.Process(self.process.pid).children()
            if any(part.endswith(f"/{model}/1/model.py") for part in child.cmdline())
        )
        return found

    def status(self, path: str) -> int | None:
        """Status of an answer; None where nobody answers."""
        with suppress(OSError):
            return self.ask(path)[0]
        return None

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Status of an answer and its JSON, in plain HTTP."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
            connection.request(method, path, content)
            answer = connection.getresponse()
            given = answer.read()
            return answer.status, json.loads(given) if given else None
        finally:
            connection.close()


def end(process: "subprocess.Popen[bytes]", port: int) -> None:
    """End a server and what it started, and remove the memory that it shared, which stays where it was killed."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(DEADLINE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for region in Path("/dev/shm").glob(f"{_shared_memory(port)}*"):
        region.unlink()


def _shared_memory(port: int) -> str:
    return f"exporter_tests_{port}_"


def installed_triton(folder: Path) -> Triton:
    """Triton, installed with pip once; skips the test where that is not possible.

    Args:
        folder: for the server's environment.
    """
    home = installed(WHEEL, NUMPY)
    library = str(get_config_var("INSTSONAME"))
    if not library.startswith(f"libpython{_PYTHON}.so"):
        library = f"libpython{_PYTHON}.so.1.0"
    try:
        ctypes.CDLL(library)
    except OSError:
        pytest.skip(f"Triton's python backend needs {library}, which is not here")
    backends = home / "pytriton" / "tritonserver"
    with suppress(FileExistsError):
        (backends / "backends" / "python" / "triton_python_backend_stub").symlink_to(
            backends / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
        )
    packages = folder / "lib" / f"python{_PYTHON}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "of_the_tests.pth").write_text(f"{home}\n{get_path('purelib')}\n", encoding="utf-8")
    real = Path(sys.executable).resolve()
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(real)
    (folder / "pyvenv.cfg").write_text(f"home = {real.parent}\n", encoding="utf-8")
    return Triton(home=home, environment=folder)
