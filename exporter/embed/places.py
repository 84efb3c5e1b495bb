"""Where workers run: this machine, or a Ray cluster."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from exporter.embed.local import LocalExecutor
from exporter.embed.ray_cluster import RayExecutor, connected
from exporter.embed.schedule import Executor
from exporter.embed.worker import Setup
from exporter.errors import UsageError, quoted
from exporter.machine import usable_cores


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where workers run.

    Attributes:
        cores: of processors, shared by all workers.
        together: cores of one machine, the most that a worker can have.
        workers: how many by default: one per core, or per GPU.
        executor: starts them.
    """

    cores: int
    together: int
    workers: int
    executor: Callable[[Setup], Executor[Any]]


def open_place(on: str, gpus_per_worker: float | None, *, on_gpu: bool) -> AbstractContextManager[Place]:
    """The place that `--on` names: `local`, `ray` for Ray on this machine, or `ray=HOST:PORT` for a cluster.

    Args:
        on: its name.
        gpus_per_worker: that Ray keeps for each worker; None for 1 if the engine runs on a GPU, and none otherwise.
        on_gpu: whether the engine runs on a GPU.

    Raises:
        UsageError: there is no such place; or on entry, no cluster answers there, or it has no such GPUs.
        TargetUnavailableError: on entry, Ray is not installed.
    """
    name, _, address = on.partition("=")
    if name == "ray" and (address or on == "ray"):
        return _ray(address or None, float(on_gpu) if gpus_per_worker is None else gpus_per_worker)
    if on != "local":
        raise UsageError(f"on: expected local, ray or ray=HOST:PORT, got {quoted(on)}")
    if gpus_per_worker is not None:
        raise UsageError("gpus-per-worker: expected --on ray, which gives GPUs to workers, got --on local")
    return _local(on_gpu)


@contextmanager
def _local(on_gpu: bool) -> Iterator[Place]:
    cores = len(usable_cores())
    yield Place(
        cores=cores,
        together=cores,
        workers=1 if on_gpu else cores,
        executor=lambda setup: LocalExecutor(setup=setup),
    )


@contextmanager
def _ray(address: str | None, gpus: float) -> Iterator[Place]:
    with connected(address) as ray:
        machines = [each["Resources"] for each in ray.nodes() if each["Alive"]]
        cores, there = ([int(each.get(kind, 0)) for each in machines] for kind in ("CPU", "GPU"))
        if max(cores) < 1 or max(there) < gpus:
            raise UsageError(
                f"on: expected a machine of Ray with a core and {gpus:g} GPUs, got at most {max(cores)} cores and "
                f"{max(there)} GPUs on one"
            )
        yield Place(
            cores=sum(cores),
            together=max(cores),
            workers=sum(int(each / gpus) for each in there) if gpus else sum(cores),
            executor=lambda setup: RayExecutor(ray, setup, gpus, elsewhere=address is not None),
        )
