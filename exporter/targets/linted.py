"""The lint before the build: what an engine refuses is said by node and rule, and nothing is built."""

from pathlib import Path

from exporter.errors import UnsupportedGraphError
from exporter.lint import Device, Engine, lint
from exporter.targets.target import Details


def require_supported(target: str, path: Path, engine: Engine, device: Device = "cpu") -> Details:
    """The lint's counts, for the manifest, of a model that breaks no rule that forbids a build.

    Args:
        target: that is to be built, for the message.
        path: of the ONNX model.
        engine: whose rules count.
        device: where ONNX Runtime is to run it.

    Raises:
        UnsupportedGraphError: the engine would refuse the model, or compute something else; naming the first place.
    """
    report = lint(path, engine, device=device)
    if report.errors:
        more = f" (and {len(report.errors) - 1} more)" if len(report.errors) > 1 else ""
        raise UnsupportedGraphError(f"target {target}: {report.errors[0]}{more}")
    return {"lint": {"engine": engine, "device": device, **report.counts}}
