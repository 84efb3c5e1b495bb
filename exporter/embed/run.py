"""A run from its plan to `done.json`; what is there already is not embedded again."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from exporter.bundle import Bundle, load_bundle, locked
from exporter.embed import attempts
from exporter.embed.encode import images_of_a_call, output_of, preprocess_of
from exporter.embed.error_limit import ErrorLimit
from exporter.embed.parquet import Footer, load_library, read_footer
from exporter.embed.places import Place, open_place
from exporter.embed.plan import PLAN_FILE, Dtype, Plan, check_same, over_all_rows, shard_size, tasks
from exporter.embed.row import Source
from exporter.embed.schedule import embed_with
from exporter.embed.source import open_source
from exporter.embed.table_columns import ERROR, PATH, RUNG
from exporter.embed.worker import Setup, shard_file
from exporter.errors import UsageError, quoted
from exporter.records import canonical_json, read_file, write_whole
from exporter.version import __version__

DONE_FILE = "done.json"

_WRITTEN = (PLAN_FILE, DONE_FILE, "shard-*.parquet")

Progress = Callable[[int, int], None]
"""Called with images done and images in all."""


@dataclass(frozen=True, kw_only=True)
class EmbedRequest:
    """What to embed, and how.

    Attributes:
        bundle: its folder.
        data: a folder of images, a `.csv` or `.parquet` table of them, or `.tar` archives.
        out: folder for the shards; the one of a run that was stopped goes on.
        target: whose engine; None for the only one, or `onnx`.
        output: of the engine; None for the first.
        dtype: of the vectors.
        shard: images in each file; None for about a 64th of them, from one call of the engine to 4096.
        workers: processes; None for one per core, or one on a GPU.
        carry: columns of the table that go into the output.
        max_errors: images that may fail, as a number or in percent.
        on: where workers run: `local`, `ray` or `ray=HOST:PORT`.
        gpus_per_worker: that Ray keeps for each worker.
    """

    bundle: str | Path
    data: str
    out: str | Path
    target: str | None = None
    output: str | None = None
    dtype: Dtype = "float32"
    shard: int | None = None
    workers: int | None = None
    carry: tuple[str, ...] = ()
    max_errors: str = "1%"
    on: str = "local"
    gpus_per_worker: float | None = None


@dataclass(frozen=True, kw_only=True)
class Done:
    """What `done.json` says.

    Attributes:
        plan: sha256 of the plan.
        rows: in all shards.
        embedded: that have a vector.
        errors: that have none.
        shards: how many.
        given_up: numbers of those that have no vector because they ended one worker after another.
    """

    plan: str
    rows: int
    embedded: int
    errors: int
    shards: int
    given_up: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A run that is done.

    Attributes:
        out: its folder.
        plan: of it.
        done: its counts.
        found: shards that were there already.
        images_per_s: of the others; None where there are none.
        notes: what was left out of the data, one sentence each.
    """

    out: Path
    plan: Plan
    done: Done
    found: int
    images_per_s: float | None
    notes: tuple[str, ...]


def embed(asked: EmbedRequest, progress: Progress = lambda done, total: None) -> Embedded:
    """Embed images, as far as their shards are not there yet.

    Args:
        asked: what, and how.
        progress: told after every shard.

    Raises:
        UsageError: something is asked that the bundle or the data cannot give, or the folder holds another run.
        GateError: more images failed than may; their shards stay.
        TargetUnavailableError: pyarrow or the engine is not here.
        BundleError: the bundle is damaged.
    """
    load_library()
    limit = ErrorLimit.parse(asked.max_errors)
    bundle, out = load_bundle(asked.bundle), Path(asked.out)
    preprocess_of(bundle)
    on_gpu = bundle.runner(bundle.target_of(asked.target)).device == "cuda"
    place = open_place(asked.on, asked.gpus_per_worker, on_gpu=on_gpu)
    source = open_source(asked.data, asked.carry)
    plan = over_all_rows(_first_plan(asked, bundle, source), source)
    with _held(out):
        _settle(out, plan)
        tally = _Tally(rows_in_all=plan.rows, limit=limit, progress=progress)
        for footer in _finished(out, plan):
            tally.add(footer)
        found, rows, started = len(tally.footers), tally.rows, time.monotonic()
        if rows < plan.rows:
            (out / DONE_FILE).unlink(missing_ok=True)
            with place as opened:
                _embed_the_rest(asked, bundle, plan, source, opened, tally)
        seconds = time.monotonic() - started
        done = _done(plan, tally)
        write_whole(out / DONE_FILE, canonical_json(done))
    rate = (tally.rows - rows) / seconds if tally.rows > rows else None
    return Embedded(out=out, plan=plan, done=done, found=found, images_per_s=rate, notes=source.notes())


@dataclass(kw_only=True)
class _Tally:
    """The footers of the shards that are written, by number."""

    rows_in_all: int
    limit: ErrorLimit
    progress: Progress
    footers: dict[int, Footer] = field(default_factory=dict)
    rows: int = 0
    errors: int = 0

    def add(self, footer: Footer) -> None:
        """Count a shard; GateError where it has one error too many."""
        self.footers[footer.shard] = footer
        self.rows += footer.rows
        self.errors += footer.errors
        self.progress(self.rows, self.rows_in_all)
        self.limit.check(self.errors, self.rows_in_all, footer)


def _first_plan(asked: EmbedRequest, bundle: Bundle, source: Source) -> Plan:
    """The plan without its rows."""
    output = output_of(bundle, asked.output)
    own = (PATH, ERROR, output.name, *(() if bundle.ladder() is None else (RUNG,)))
    if taken := [column.name for column in source.columns if column.name in own]:
        raise UsageError(f"carry: {taken[0]} is a column of every output ({', '.join(own)}); rename yours")
    return Plan(
        exporter=__version__,
        bundle=bundle.manifest.name,
        digest=bundle.manifest.digest,
        target=bundle.target_of(asked.target),
        output=output.name,
        length=int(output.shape[1]),
        dtype=asked.dtype,
        columns=source.columns,
        shard=asked.shard or shard_size(source, images_of_a_call(bundle)),
    )


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Make the folder, and keep other commands out of it; nothing unfinished is in it before and after."""
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(out))
        except BlockingIOError:
            raise UsageError(
                f"{quoted(out)}: another process is embedding into it; wait for it, or stop it"
            ) from None
        except OSError:
            pass  # a file system without locks
        _remove_unfinished(out)
        try:
            yield
        finally:
            _remove_unfinished(out)


def _remove_unfinished(out: Path) -> None:
    """Remove what workers that were killed have left, and marks of shards, which count within one run."""
    attempts.forget(out)
    for name in _WRITTEN:
        for unfinished in out.glob(f".{name}.partial-*"):
            unfinished.unlink(missing_ok=True)


def _settle(out: Path, plan: Plan) -> None:
    """Write the plan, or find the same one."""
    file = out / PLAN_FILE
    if file.exists():
        check_same(read_file(Plan, file, "remove it, or give another --out"), plan, out)
        return
    if other := next(out.iterdir(), None):
        raise UsageError(
            f"{quoted(out)}: expected an empty folder or one with a {PLAN_FILE}, got {quoted(other.name)}; "
            "give another --out"
        )
    write_whole(file, canonical_json(plan))


def _finished(out: Path, plan: Plan) -> Iterator[Footer]:
    """The footers of the shards that are there and belong to the plan."""
    for shard in range(len(plan.shards)):
        file = shard_file(out, shard)
        footer = read_footer(file) if file.exists() else None
        if footer is not None and (footer.plan, footer.shard) == (plan.key, shard):
            yield footer


def _embed_the_rest(
    asked: EmbedRequest, bundle: Bundle, plan: Plan, source: Source, place: Place, tally: _Tally
) -> None:
    """Embed the shards that are not there."""
    workers = min(asked.workers or place.workers, len(plan.shards) - len(tally.footers))
    setup = Setup(
        plan=replace(plan, shards=()),
        key=plan.key,
        bundle=str(bundle.path.absolute()),
        out=str(Path(asked.out).absolute()),
        threads=min(place.together, max(1, place.cores // workers)),
    )
    left = tasks(plan, source, tuple(tally.footers))
    with closing(embed_with(place.executor(setup), left, workers)) as shards:
        for footer in shards:
            tally.add(footer)


def _done(plan: Plan, tally: _Tally) -> Done:
    return Done(
        plan=plan.key,
        rows=tally.rows,
        embedded=tally.rows - tally.errors,
        errors=tally.errors,
        shards=len(tally.footers),
        given_up=tuple(sorted(number for number, footer in tally.footers.items() if footer.given_up)),
    )
