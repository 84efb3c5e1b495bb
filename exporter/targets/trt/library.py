"""TensorRT's Python package: is it here, which version is it, and what does it say.

The only module that imports it. TensorRT reports reasons to a logger and returns nothing or False; `Log` keeps them,
so that a failure can quote them in its one line.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from exporter.errors import TargetUnavailableError


@dataclass(frozen=True, kw_only=True)
class Product:
    """TensorRT, or TensorRT for RTX: one Python API in two packages.

    Attributes:
        target: that builds for it; also the extra that installs it.
        title: its name.
        module: of its Python package.
        oldest: version that is supported.
        first_unknown: the next version that is not.
        remedy: what to try where it builds no engine.
        onnx: name of the file that an engine is built from.
    """

    target: str
    title: str
    module: str
    oldest: tuple[int, ...]
    first_unknown: tuple[int, ...]
    remedy: str
    onnx: str

    @property
    def rebuild(self) -> str:
        """What to do about an engine that does not run here."""
        return f"build it again on this machine, from the recipe or from {self.onnx}"

    def load(self) -> Any:
        """The package.

        Raises:
            TargetUnavailableError: it is not installed, its libraries cannot be loaded, or its version is not
                supported.
        """
        try:
            library: Any = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name != self.module:
                raise self._unavailable(f"{self.title} cannot be loaded: {error}") from error
            raise self._unavailable(f"{self.title} is not installed") from error
        except (ImportError, OSError) as error:
            raise self._unavailable(f"{self.title} cannot be loaded: {error}") from error
        if not self.oldest <= version_numbers(library.__version__) < self.first_unknown:
            raise self._unavailable(
                f"expected {self.title} {'.'.join(map(str, self.oldest))} or later and below "
                f"{self.first_unknown[0]}, got {library.__version__}"
            )
        return library

    def _unavailable(self, what: str) -> TargetUnavailableError:
        return TargetUnavailableError(f'target {self.target}: {what}; pip install "exporter[{self.target}]"')


TENSORRT = Product(
    target="trt",
    title="TensorRT",
    module="tensorrt",
    oldest=(10, 14),
    first_unknown=(12,),
    remedy="a larger workspace_mb or another lowering may help",
    onnx="model_trt.onnx",
)


def tensorrt() -> Any:
    """TensorRT's package; raises as `Product.load` does."""
    return TENSORRT.load()


def version_numbers(text: str) -> tuple[int, ...]:
    """`10.16.1.11` as numbers that compare; letters after a number do not count."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in text.split("."))


def start(kind: Any, log: "Log", product: Product = TENSORRT) -> Any:
    """Make a `Builder` or a `Runtime`, which is where TensorRT first asks for the GPU.

    Raises:
        TargetUnavailableError: it gets none; a driver that is too old, most of the time.
    """
    try:
        return kind(log.logger)
    except (TypeError, RuntimeError) as error:  # the bindings' words for a null pointer
        raise TargetUnavailableError(
            f"target {product.target}: {product.title} cannot start: {log.reason(str(error))}; check that the NVIDIA "
            "driver is new enough for the CUDA that this TensorRT was built with"
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
