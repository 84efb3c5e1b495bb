"""TensorRT's Python package: is it here, which version is it, and what does it say.

The only module that imports it. TensorRT reports reasons to a logger and returns nothing or False; `Log` keeps them,
so that a failure can quote them in its one line.
"""

import importlib
from typing import Any

from exporter.errors import TargetUnavailableError

OLDEST = (10, 14)
FIRST_UNKNOWN = (12,)

_INSTALL = 'pip install "exporter[trt]"'


def tensorrt() -> Any:
    """The package.

    Raises:
        TargetUnavailableError: it is not installed, its libraries cannot be loaded, or its version is not supported.
    """
    try:
        library: Any = importlib.import_module("tensorrt")
    except ModuleNotFoundError as error:
        if error.name != "tensorrt":
            raise _broken(error) from error
        raise TargetUnavailableError(f"target trt: TensorRT is not installed; {_INSTALL}") from error
    except (ImportError, OSError) as error:
        raise _broken(error) from error
    version = version_numbers(library.__version__)
    if not OLDEST <= version < FIRST_UNKNOWN:
        raise TargetUnavailableError(
            f"target trt: expected TensorRT {'.'.join(map(str, OLDEST))} or later and below "
            f"{FIRST_UNKNOWN[0]}, got {library.__version__}; {_INSTALL}"
        )
    return library


def _broken(error: Exception) -> TargetUnavailableError:
    return TargetUnavailableError(f"target trt: TensorRT cannot be loaded: {error}; {_INSTALL}")


def version_numbers(text: str) -> tuple[int, ...]:
    """`10.16.1.11` as numbers that compare; letters after a number do not count."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in text.split("."))


def start(kind: Any, log: "Log") -> Any:
    """Make a `Builder` or a `Runtime`, which is where TensorRT first asks for the GPU.

    Raises:
        TargetUnavailableError: it gets none; a driver that is too old, most of the time.
    """
    try:
        return kind(log.logger)
    except (TypeError, RuntimeError) as error:  # the bindings' words for a null pointer
        raise TargetUnavailableError(
            f"target trt: TensorRT cannot start: {log.reason(str(error))}; check that the NVIDIA driver is new enough "
            "for the CUDA that this TensorRT was built with"
        ) from error


class Log:
    """What TensorRT said.

    Attributes:
        errors: in order.
        warnings: in order.
        logger: to hand to TensorRT; has to live as long as whatever was made with it.
    """

    def __init__(self, trt: Any) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.logger = _logger(trt, self)

    def reason(self, otherwise: str) -> str:
        """All errors in one line, or another text where there is none."""
        return "; ".join(self.errors) or otherwise


def _logger(trt: Any, log: Log) -> Any:
    grave = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in grave:
                log.errors.append(" ".join(msg.split()))
            elif severity == trt.ILogger.Severity.WARNING:
                log.warnings.append(" ".join(msg.split()))

    return Logger()
