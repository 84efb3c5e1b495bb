"""What a worker does, whichever executor started it: it opens the bundle once, and writes one shard after another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Any

from exporter.embed import attempts
from exporter.embed.encode import Encoder, opened
from exporter.embed.parquet import Footer, shard_bytes
from exporter.embed.plan import PLAN_FILE, Plan, Task
from exporter.embed.row import Row
from exporter.errors import ExportError, InternalError, UsageError, machine_failure, quoted
from exporter.records import message_from, read_file, to_tree, write_whole
from exporter.version import __version__


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every worker of a run has to know.

    Attributes:
        plan: of the run; its shards are left out, which may be thousands.
        key: of the whole plan.
        bundle: its folder.
        out: where shards go.
        threads: of an engine on the CPU.
    """

    plan: Plan
    key: str
    bundle: str
    out: str
    threads: int


def shard_file(out: Path, shard: int) -> Path:
    """Where a shard lies."""
    return out / f"shard-{shard:06}.parquet"


class Worker:
    """A bundle that is open, and where its vectors go."""

    def __init__(self, setup: Setup) -> None:
        """Open the bundle and load the engine.

        Raises:
            UsageError: the folder for the shards is not the one of the run.
            BundleError: the bundle is another one, or damaged.
            TargetUnavailableError: its engine does not run here.
        """
        plan = setup.plan
        self._setup, self._out = setup, Path(setup.out)
        _check_out(self._out, setup.key)
        bundle = opened(Path(setup.bundle), plan.digest)
        self._encode = Encoder(bundle, plan, threads=setup.threads)

    def embed(self, task: Task) -> Footer:
        """Write a shard, and return what its footer says.

        A shard that has ended several workers gets errors instead of vectors.
        """
        plan = self._setup.plan
        given_up = not attempts.begin(self._out, task.shard)
        if given_up:
            why = f"not embedded: {attempts.MOST} processes ended while they embedded shard {task.shard}"
            vectors = self._encode.nothing(len(task.rows), why)
        else:
            vectors = self._encode(task.rows)
        footer = self._footer(task, vectors.reasons, given_up)
        write_whole(shard_file(self._out, task.shard), shard_bytes(task.rows, plan.columns, vectors, footer))
        attempts.end(self._out, task.shard)
        return footer

    def _footer(self, task: Task, reasons: Sequence[str | None], given_up: bool) -> Footer:
        failed = [f"{quoted(row.name)}: {why}" for row, why in zip(task.rows, reasons, strict=True) if why]
        return Footer(
            plan=self._setup.key,
            bundle=self._setup.plan.digest,
            exporter=__version__,
            shard=task.shard,
            rows=len(task.rows),
            errors=len(failed),
            first_error=failed[0] if failed else None,
            given_up=given_up,
        )


class Requests:
    """A worker that is asked in JSON values, by a process or over a network."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def __call__(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Open the bundle, answered by nothing; or embed a shard, answered by its footer.

        Raises:
            UsageError: this is another version of the exporter than the one that planned.
            ExportError: as `Worker`; or this machine's disk or memory is full.
        """
        try:
            if self._worker is None:
                _check_version(request["setup"]["plan"]["exporter"])
                self._worker = Worker(message_from(Setup, request["setup"]))
                return {}
            rows = tuple(map(Row.from_json, request["rows"]))
            footer: dict[str, Any] = to_tree(self._worker.embed(Task(shard=request["shard"], rows=rows)))
            return footer
        except (ExportError, InternalError):
            raise
        except Exception as error:  # a full disk, or too little memory, is nothing to report
            raise machine_failure(error) or error from error


def _check_version(planned: str) -> None:
    if planned != __version__:
        raise UsageError(
            f"expected exporter {planned} on every worker, got {__version__} on {gethostname()}; install the "
            "same version"
        )


def _check_out(out: Path, key: str) -> None:
    file = out / PLAN_FILE
    if not file.is_file() or read_file(Plan, file, "repeat the command").key != key:
        raise UsageError(
            f"out: expected the {PLAN_FILE} of this run in {quoted(out)} on {gethostname()}; give an --out on storage "
            "that all workers share"
        )
