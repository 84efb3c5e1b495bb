"""The lint before the build: what an engine refuses is said by node and rule, and nothing is built."""

from pathlib import Path

from exporter.errors import InternalError, UnsupportedGraphError
from exporter.lint import Device, lint
from exporter.targets.target import Details, Target


def require_supported(target: Target, path: Path, device: Device = "cpu") -> Details:
    """The lint's counts, for the manifest, of a model that breaks no rule that forbids a build.

    Args:
        target: that is to be built, with rules.
        path: of the ONNX model.
        device: where ONNX Runtime is to run it.

    Raises:
        UnsupportedGraphError: the engine would refuse the model, or compute something else; naming the first place.
    """
    if target.lint is None:
        raise InternalError(f"target {target.name} has no lint")
    report = lint(path, target.lint, device=device)
    if report.errors:
        more = f" (and {len(report.errors) - 1} more)" if len(report.errors) > 1 else ""
        raise UnsupportedGraphError(f"target {target.name}: {report.errors[0]}{more}")
    return {"lint": {"engine": target.lint, "device": device, **report.counts}}
