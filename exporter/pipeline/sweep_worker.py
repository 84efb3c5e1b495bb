"""The process that builds points of a sweep: `python -m exporter.pipeline.sweep_worker`, asked over stdin."""

from collections.abc import Mapping
from typing import Any

from exporter.pipeline.sweep_point import BuildPoint
from exporter.sweep import Built, Point
from exporter.sweep.workers import serve_builds


def main() -> None:
    """Run the process."""
    serve_builds(_build)


def _build(setup: Mapping[str, Any], point: Point) -> Built:
    return BuildPoint.from_json(setup)(point)


if __name__ == "__main__":
    main()
