"""Two faults of Triton's interpreter (3.8) are mended here.

It multiplies the bits of bf16 as integers, and when it rounds to e4m3, a carry does not reach the exponent.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter


@pytest.fixture(autouse=True, scope="session")
def interpreter_as_the_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        multiply = interpreter.InterpreterBuilder.create_dot

        def widened(value: Any) -> Any:
            if value.dtype.scalar != tl.bfloat16:
                return value
            wide = interpreter._convert_float(value.data, tl.bfloat16, tl.float32, None)
            return interpreter.TensorHandle(wide.view(np.float32), tl.float32)

        def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
            return multiply(self, widened(a), widened(b), *rest)

        convert = interpreter.InterpreterBuilder.create_fp_to_fp

        def create_fp_to_fp(self: Any, source: Any, kind: Any, rounding: Any) -> Any:
            if (source.dtype.scalar, kind.scalar) != (tl.float32, tl.float8e4nv):
                return convert(self, source, kind, rounding)
            narrow = torch.from_numpy(source.data.copy()).to(torch.float8_e4m3fn)
            return interpreter.TensorHandle(narrow.view(torch.uint8).numpy(), tl.float8e4nv)

        patch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
        patch.setattr(interpreter.InterpreterBuilder, "create_fp_to_fp", create_fp_to_fp)
        yield
