"""Texts are embedded by a target's own text engine if there is one, and by eager PyTorch otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.models import ModelRequest
from exporter.pipeline.texts import TextTower
from exporter.targets import Array
from tests.support.fake_runner import FakeRunner
from tests.unit.pipeline.conftest import ClipDigits

REQUEST = ModelRequest(model="clip_digits")


def lengths(ids: Array) -> dict[str, Array]:
    """In place of a text engine: the length of each text, (N, 1) doubles."""
    return {"embedding": (ids != 0).sum(axis=1, keepdims=True).astype(np.float64)}


TEXTS = ("a scan of the digit seven", "the handwritten digit two", "a thin narrow scan of the digit one")


def test_a_target_with_a_text_engine_embeds_by_it(clip: ClipDigits) -> None:
    spy = FakeRunner(compute=lengths)

    embeddings = TextTower(REQUEST, {"onnx": spy}).embed_with("onnx")(TEXTS)

    (ids,) = spy.seen
    assert (ids == clip.ids(TEXTS)).all()
    assert ids.dtype == np.int64
    assert embeddings.dtype == np.float32
    assert (embeddings[:, 0] == (ids != 0).sum(axis=1)).all()


@pytest.mark.parametrize("contender", ["dense", "openvino"])
def test_others_embed_by_eager_pytorch(clip: ClipDigits, contender: str) -> None:
    spy = FakeRunner(compute=lengths)

    embeddings = TextTower(REQUEST, {"onnx": spy}).embed_with(contender)(TEXTS)

    assert spy.seen == []
    np.testing.assert_allclose(embeddings, clip.embed_eagerly(TEXTS), atol=1e-5)


def test_long_lists_come_back_whole_and_in_order(clip: ClipDigits) -> None:
    captions = clip.shipped.captions
    assert captions is not None
    texts = captions[:150]

    embeddings = TextTower(REQUEST).embed_with("dense")(texts)

    np.testing.assert_allclose(embeddings, clip.embed_eagerly(texts), atol=1e-5)


def test_the_text_engine_of_a_bundle_is_close_to_eager_pytorch(clip: ClipDigits) -> None:
    text = clip.bundle.text()
    assert text is not None
    tower = TextTower(REQUEST, {"onnx": text.runner("onnx")})

    dense, onnx = (tower.embed_with(name)(TEXTS) for name in ("dense", "onnx"))

    np.testing.assert_allclose(onnx, dense, atol=1e-4)
    assert np.abs(dense - dense[0])[1:].max() > 0.1, "different texts are embedded differently"


def test_nothing_is_loaded_before_the_first_text(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[ModelRequest] = []

    def refuse(request: ModelRequest) -> None:
        loaded.append(request)
        raise UsageError("loaded")

    monkeypatch.setattr("exporter.pipeline.texts.load", refuse)
    embed = TextTower(ModelRequest(model="clip_digits", image_size=64)).embed_with("dense")
    assert loaded == []

    with pytest.raises(UsageError, match="loaded"):
        embed(TEXTS)
    assert [(each.tower, each.image_size) for each in loaded] == [("text", None)]


def test_a_tower_without_a_tokenizer_is_refused(clip: ClipDigits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "exporter.pipeline.texts.load", lambda request: replace(clip.text, tokenize=None, name="mute")
    )

    with pytest.raises(UsageError, match="mute: its source has no tokenizer"):
        TextTower(REQUEST).embed_with("dense")(TEXTS)
