"""Which machines a package runs on. PyTorch itself only warns, and then loads code that ends the process.

On x86 AOTInductor compiles with `-march=native`: one instruction that another processor lacks is a SIGILL, which no
program can catch (pytorch/pytorch#121516). So what was in use is written into the package and compared before its code
is loaded. Torch-free: reading a package's demands loads nothing.
"""

import platform
import sys
from collections.abc import Mapping

from exporter.errors import TargetUnavailableError
from exporter.machine import cpu_instructions

TORCH, INSTRUCTIONS = "exporter_torch", "exporter_cpu_instructions"
"""What this package adds to AOTInductor's own metadata."""

AVX2 = frozenset({"avx", "avx2", "fma", "f16c"})
"""What Inductor compiles for if 256 bits are set and no architecture."""


def demands(instructions: str, torch_version: str) -> dict[str, str]:
    """The metadata that says which machines a package compiled here runs on.

    Args:
        instructions: `native` or `avx2`.
        torch_version: of the PyTorch that compiles it.
    """
    used = AVX2 if instructions == "avx2" else cpu_instructions()
    return {TORCH: torch_version, INSTRUCTIONS: " ".join(sorted(used))}


def check_fits(metadata: Mapping[str, str], name: str, torch_version: str) -> None:
    """Refuse a package that was compiled for another kind of machine or another PyTorch.

    Args:
        metadata: of the package.
        name: of its file.
        torch_version: of the PyTorch that is to load it.

    Raises:
        TargetUnavailableError: saying what it was compiled for and what is here.
    """
    made_for = (metadata.get("AOTI_PLATFORM", ""), metadata.get("AOTI_MACHINE", ""))
    here = (sys.platform, platform.machine())
    if made_for != here:
        raise _misfit(name, "/".join(made_for), "/".join(here))
    made_with = metadata.get(TORCH, "an unknown version")
    if _release(made_with) != _release(torch_version):
        raise _misfit(name, f"PyTorch {made_with}", f"PyTorch {torch_version}")
    lacking = sorted(set(metadata.get(INSTRUCTIONS, "").split()) - cpu_instructions())
    if lacking:
        raise _misfit(
            name, f"a CPU with {', '.join(lacking)}", "one without", "--engine-option aoti.instructions=avx2"
        )


def check_gpu_fits(metadata: Mapping[str, str], name: str, capability: str) -> None:
    """Refuse a package whose kernels are for another generation of GPUs.

    Args:
        metadata: of the package.
        name: of its file.
        capability: compute capability of the GPU here, such as "90".

    Raises:
        TargetUnavailableError: saying both.
    """
    made_for = metadata.get("AOTI_COMPUTE_CAPABILITY", "")
    if made_for != capability:
        raise _misfit(name, f"compute capability {made_for}", f"compute capability {capability}")


def _release(version: str) -> list[str]:
    return version.split("+")[0].split(".")[:2]


def _misfit(name: str, made_for: str, here: str, otherwise: str = "") -> TargetUnavailableError:
    portable = f", or compile it there with {otherwise}" if otherwise else ""
    return TargetUnavailableError(
        f"target aoti: {name} was compiled for {made_for}, and this is {here}; export again on this machine{portable}"
    )
