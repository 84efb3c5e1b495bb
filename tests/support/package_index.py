"""Packages that a few tests take from the package index, once, into a folder of their own."""

import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"


def installed(*requirements: str) -> Path:
    """The folder that holds these packages and nothing that they need; skips the test where that is not possible.

    Args:
        requirements: `name==version`, the one that names the folder first.
    """
    tag = f"{requirements[0].replace('==', '-')}-py{sys.version_info.major}{sys.version_info.minor}"
    site = CACHE / tag
    if site.is_dir():
        return site
    CACHE.mkdir(exist_ok=True)
    partial = CACHE / f".{tag}.partial-{secrets.token_hex(4)}"
    command = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    wanted = ["--only-binary=:all:", "--target", str(partial), *requirements]
    done = subprocess.run([sys.executable, *command, *wanted], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        pytest.skip(f"{requirements[0]} cannot be installed here: {done.stderr.strip()[-200:]}")
    try:
        partial.rename(site)
    except OSError:  # another process was faster
        shutil.rmtree(partial, ignore_errors=True)
    return site
