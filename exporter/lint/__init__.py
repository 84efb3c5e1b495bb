"""Whether an engine will take an ONNX model, and run it well, before anybody builds that engine.

In: an ONNX file, or a model in memory; weights are not read. Out: a `LintReport`. `targets` asks before each build,
`cli` on its own. Each engine's rules are one literal list; each rule names its source. Needs `onnx` and no engine.
"""

from exporter.lint.lint import lint
from exporter.lint.report import (
    DEVICES,
    ENGINES,
    Device,
    Engine,
    Finding,
    LintReport,
    RuleCard,
    Severity,
    Source,
)

__all__ = [
    "DEVICES",
    "ENGINES",
    "Device",
    "Engine",
    "Finding",
    "LintReport",
    "RuleCard",
    "Severity",
    "Source",
    "lint",
]
