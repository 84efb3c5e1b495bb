"""Triton's interpreter multiplies the bits of bf16 as integers (3.8); here it multiplies the numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import triton.language as tl
from triton.runtime import interpreter


@pytest.fixture(autouse=True, scope="session")
def products_of_bf16() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        multiply = interpreter.InterpreterBuilder.create_dot

        def widened(value: Any) -> Any:
            if value.dtype.scalar != tl.bfloat16:
                return value
            wide = interpreter._convert_float(value.data, tl.bfloat16, tl.float32, None)
            return interpreter.TensorHandle(wide.view(np.float32), tl.float32)

        def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
            return multiply(self, widened(a), widened(b), *rest)

        patch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
        yield
