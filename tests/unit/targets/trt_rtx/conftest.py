"""The pretended GPU and the recording stand-in of `trt`, which this target's runner runs over as well."""

from tests.unit.targets.trt.conftest import here, world

__all__ = ["here", "world"]
