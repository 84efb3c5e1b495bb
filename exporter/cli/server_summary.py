"""The results of `pack` and `probe`: lines for people, one JSON document for scripts."""

from typing import Any

from rich.console import Console

from exporter.cli.terminal import say
from exporter.records import to_tree
from exporter.servers import Packed, Probed


def packed_tree(packed: Packed) -> dict[str, Any]:
    """What was written."""
    return {**to_tree(packed), "folder": str(packed.folder)}


def print_packed(console: Console, packed: Packed) -> None:
    """Where it is, and how it is served."""
    say(
        console,
        f"{packed.folder}: target {packed.target}, {packed.backend} backend, batches of up to {packed.max_batch}",
    )
    if packed.needs:
        say(console, f"the server's Python needs {', '.join(packed.needs)}")
    command = ("tritonserver", "--model-repository", str(packed.folder.parent), *packed.server_options)
    say(console, f"start it:   {' '.join(command)}")


def probed_tree(probed: Probed) -> dict[str, Any]:
    """What the server said, and how far it is from the bundle."""
    failures = {name: str(failure) for name, failure in probed.failures.items()}
    return {**to_tree({**vars(probed), "failures": failures}), "same": not failures}


def print_probed(console: Console, probed: Probed) -> None:
    """Who answered what, and how fast."""
    runs = f", {probed.platform}" if probed.platform else ""
    say(console, f"{probed.url}: {probed.server}, model {probed.model} is ready{runs}")
    engine = {None: "says nothing of its engine", True: "runs its engine", False: "runs another engine"}
    say(console, f"bundle {probed.bundle}: the server {engine[probed.same_engine]}")
    for name, error in probed.max_abs_error.items():
        verdict = "not the bundle's" if name in probed.failures else "the bundle's within its tolerances"
        shown = "" if error is None else f" (largest difference {error:.2g})"
        say(console, f"{name}: {verdict}{shown}", "red" if name in probed.failures else "green")
    for each in probed.latency:
        rows = "1 row" if each.rows == 1 else f"{each.rows} rows"
        say(console, f"latency of {rows}: {each.median_ms:.1f} ms, median of {each.requests} requests")
