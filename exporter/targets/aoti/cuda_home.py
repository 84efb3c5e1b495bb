"""Where CUDA's headers are: the code of a package around its kernels is compiled with them.

PyTorch looks for an installed CUDA toolkit. Its own wheels bring most of the headers, and two small packages the rest,
which is enough.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from exporter.errors import TargetUnavailableError

_LAST = ("include/cuda.h", "include/crt/host_defines.h", "include/nv/target")
"""A header of each package that is needed."""


def find_cuda_home() -> str:
    """The toolkit that PyTorch found, or the folder of its wheels.

    Raises:
        TargetUnavailableError: neither has all headers.
    """
    from torch.utils import cpp_extension  # which logs a warning where there is a toolkit and no GPU

    if cpp_extension.CUDA_HOME is not None:
        return str(cpp_extension.CUDA_HOME)
    major = str(torch.version.cuda).split(".")[0]
    brought = Path(torch.__file__).parents[1] / "nvidia" / f"cu{major}"
    if not all((brought / header).exists() for header in _LAST):
        raise TargetUnavailableError(
            "target aoti: a package for a GPU is compiled with CUDA's headers, and there are none here; "
            'pip install "cuda-toolkit[cccl,crt]", or install the CUDA toolkit and set CUDA_HOME'
        )
    return str(brought)


@contextmanager
def cuda_home() -> Iterator[None]:
    """Let PyTorch's compiler find the headers."""
    from torch.utils import cpp_extension

    before = cpp_extension.CUDA_HOME
    cpp_extension.CUDA_HOME = find_cuda_home()
    try:
        yield
    finally:
        cpp_extension.CUDA_HOME = before
