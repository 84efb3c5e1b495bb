"""TensorRT's real Python bindings, installed into a cache folder, over stand-ins for its libraries.

Two versions of one package cannot share an environment, so each has a folder of its own and is imported by a process
of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.package_index import ROOT, installed

PACKAGE = "tensorrt-cu13-bindings"

VERSIONS = ("10.14.1.48.post1", "10.16.1.11", "11.4.0.106")
"""The oldest that is supported, and the newest of each major version."""

HERE = Path(__file__).parent

_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_TIMEOUT_S = 300


@dataclass(frozen=True, kw_only=True)
class Bindings:
    """One version, ready to be imported.

    Attributes:
        version: of TensorRT.
        site: folder that holds the package.
        libraries: folder that holds the stand-ins.
    """

    version: str
    site: Path
    libraries: Path

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A script of this folder, in a process that imports these bindings."""
        return subprocess.run(
            [sys.executable, str(HERE / script), *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (self.site, ROOT))),
                "LD_LIBRARY_PATH": str(self.libraries),
                "OMP_NUM_THREADS": "1",
            },
        )

    def facts(self) -> dict[str, Any]:
        """Every class with its members, by `bindings_facts`."""
        done = self.run("bindings_facts.py")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def bindings(version: str, folder: Path) -> Bindings:
    """Install, once, and compile; skips the test where that is not possible.

    Args:
        version: of the bindings.
        folder: for the compiled stand-ins.
    """
    return Bindings(
        version=version, site=installed(f"{PACKAGE}=={version}"), libraries=_compile(version, folder)
    )


def _compile(version: str, folder: Path) -> Path:
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no C compiler, which the stand-ins for TensorRT's libraries need")
    major = version.partition(".")[0]
    for library in _LIBRARIES:
        source = HERE / "natives.c" if library == "nvinfer" else Path(os.devnull)
        target = folder / f"lib{library}.so.{major}"
        subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", str(source), "-o", str(target)], check=True)
    return folder
