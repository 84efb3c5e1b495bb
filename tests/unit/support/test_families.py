"""Families import the optional libraries that are theirs, and no others."""

import subprocess
import sys

_BLOCKED = """
import sys
for name in ("open_clip", "transformers"):
    sys.modules[name] = None
import torch
from tests.support.compiled import captured_family
from tests.support.families import family
assert family("timm_vit").model()(family("timm_vit").images()).shape == (2, 10)
"""


def test_families_of_core_libraries_need_no_optional_one() -> None:
    done = subprocess.run([sys.executable, "-c", _BLOCKED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
