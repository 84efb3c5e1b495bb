"""Measures what `embed` costs beside a plain loop: CPU time per image, on this machine and on Ray, on one core and two.

    python -m tools.measure_embed artifacts/vit_digits-tome-r4 --repeats 1 --out measured.json

The images are the two photos of scikit-learn, listed many times; each is decoded every time. The plain loop opens,
preprocesses and runs 32 images at a time with one thread; on two cores, two of them share the images. Every way runs
in processes of its own, once with few images and once with many, one way after the other: the difference is what
images cost, and the rest is the start. CPU time is that of all processes, Ray's included. Each call adds repetitions
to the file.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]

from exporter.bundle import load_bundle
from exporter.machine import usable_cores
from exporter.models import preprocess_image
from tools.train_vit_digits import write_atomically

FEW, MANY = 700, 1900
WAYS = {"plain": [], "local": ["--on", "local"], "one worker": ["--workers", "1"], "ray": ["--on", "ray"]}
_BECOME_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: processes whose parent ends become children of this one
_EVERY_S = 0.05


def measure(asked: argparse.Namespace) -> None:
    """Run the repetitions, and print medians and ranges of all that the file has."""
    found = json.loads(asked.out.read_text()) if asked.out.exists() else heading(asked.bundle)
    ctypes.CDLL(None).prctl(_BECOME_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory() as folder:
        lists = {count: listed(Path(folder), count) for count in (FEW, MANY)}
        for _ in range(asked.repeats):
            row = {
                f"{way}, {cores} cores": {
                    count: seconds(asked.bundle, lists[count], way, cores) for count in lists
                }
                for cores in (1, 2)
                for way in WAYS
                if (way, cores) != ("one worker", 1)
            }
            found["cpu_s"].append(row)
            write_atomically(asked.out, json.dumps(found).encode())
    for name, values in per_image(json.loads(asked.out.read_text())["cpu_s"]).items():
        print(f"{name:20} {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")


def seconds(bundle: str, table: Path, way: str, cores: int) -> float:
    """CPU time of embedding a list."""
    command = [sys.executable, "-m", "exporter", "embed", bundle, "--data", str(table), "--out"]
    with tempfile.TemporaryDirectory() as out, on_cores(cores):
        if way == "plain":
            loop = [sys.executable, "-m", "tools.measure_embed", bundle, "--loop", str(table)]
            processes = [subprocess.Popen([*loop, f"{part}/{cores}"]) for part in range(cores)]
        else:
            words = [*command, f"{out}/vectors", "--json", *WAYS[way]]
            processes = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
        used = watched_s()
        for process in processes:
            if process.wait():
                raise SystemExit(f"{way}: status {process.returncode}")
        with suppress(ChildProcessError):
            while True:
                os.wait()  # what has become ours
    return used


def watched_s() -> float:
    """CPU time of all processes that this one has started, as last seen, once they have ended.

    Ray's main process takes no note of how its children end, so the system forgets their time.
    """
    last = dict[psutil.Process, float]()
    running = True
    while running:
        time.sleep(_EVERY_S)
        running = False
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                last[process] = sum(process.cpu_times()[:2])
                running |= process.status() != psutil.STATUS_ZOMBIE
    return sum(last.values())


def loop(bundle_path: str, table: Path, part: str) -> None:
    """The plain loop over a part of a list, such as 0/2."""
    first, parts = map(int, part.split("/"))
    bundle = load_bundle(bundle_path)
    preprocess, run = bundle.preprocess(), bundle.runner("onnx")
    assert preprocess is not None
    run.threads, run.spinning = 1, False
    names = islice(table.read_text().splitlines(), 1 + first, None, parts)
    while names_B := list(islice(names, 32)):
        run(np.stack([preprocess_image(Image.open(name), preprocess) for name in names_B]))


def per_image(rows: Sequence[dict[str, dict[str, float]]]) -> dict[str, list[float]]:
    """By way, for every repetition: ms per image; beside the plain loop; and the seconds of the start."""
    found = dict[str, list[float]]()
    for row in rows:
        slopes = {name: (cpu[str(MANY)] - cpu[str(FEW)]) / (MANY - FEW) for name, cpu in row.items()}
        for name, slope in slopes.items():
            plain = slopes[f"plain,{name.partition(',')[2]}"]
            found.setdefault(f"{name}, ms", []).append(1000 * slope)
            found.setdefault(f"{name}, ratio", []).append(slope / plain)
            found.setdefault(f"{name}, start s", []).append(row[name][str(FEW)] - FEW * slope)
    return found


def listed(folder: Path, count: int) -> Path:
    """A table that lists the photos so many times in all."""
    names = [folder / "0.jpg", folder / "1.jpg"]
    for name, pixels in zip(names, load_sample_images().images, strict=True):
        Image.fromarray(pixels).save(name, quality=90)
    table = folder / f"{count}.csv"
    table.write_text("\n".join(["image", *(str(names[number % 2]) for number in range(count))]))
    return table


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Have processes run on the first cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def heading(bundle: str) -> dict[str, Any]:
    """What was run."""
    return {
        "what": f"CPU seconds of all processes for {FEW} and for {MANY} images (JPEG, 640 x 427, decoded each time)",
        "command": "python -m tools.measure_embed",
        "bundle": load_bundle(bundle).manifest.name,
        "cores": len(usable_cores()),
        "date": datetime.now(UTC).date().isoformat(),
        "cpu_s": [],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--loop", nargs=2, metavar=("TABLE", "PART"), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.loop:
        loop(asked.bundle, Path(asked.loop[0]), asked.loop[1])
    elif asked.out is None:
        parser.error("--out is missing")
    else:
        measure(asked)
    return 0


if __name__ == "__main__":
    sys.exit(main())
