"""The cascade: whose answer is kept, in which order, and in how many calls."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from exporter.ladder import Cascade, margins
from exporter.signature import Array, Signature, TensorSpec
from tests.support.fake_runner import FakeRunner

SIGNATURE = Signature(
    inputs=(TensorSpec(name="images", dtype="float32", shape=("batch", 3)),),
    outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 3)),),
)


def engine(gain: float) -> FakeRunner:
    """Gives its input times a gain as logits; the larger the gain, the surer its answers."""
    return FakeRunner(compute=lambda images: {"logits": images * np.float32(gain)}, signature=SIGNATURE)


def images(*second: float) -> Array:
    """Images whose first class has the logit 1."""
    return np.array([[1, each, -9] for each in second], dtype=np.float32)


def test_image_is_answered_by_the_first_engine_that_is_sure_and_outputs_keep_their_order() -> None:
    runners = [engine(1), engine(3), engine(0)]
    given = images(-5, 0.9, 0, -4)

    routed = Cascade(runners=runners, threshold=0.8).routed(given)

    assert routed.rung_n.tolist() == [0, 2, 1, 0]
    np.testing.assert_array_equal(routed.outputs["logits"], given * np.array([[1], [0], [3], [1]]))
    assert [len(each.seen[0]) for each in runners] == [4, 2, 1]  # one call of each, over all that need it


def test_engine_that_no_image_needs_is_not_called() -> None:
    runners = [engine(9), engine(1)]

    assert Cascade(runners=runners, threshold=0.8)({"images": images(-5)})["logits"].shape == (1, 3)
    assert not runners[1].seen


def test_redundancy_routes_vectors_and_is_no_output_of_the_ladder() -> None:
    vectors = replace(SIGNATURE, outputs=(replace(SIGNATURE.outputs[0], name="vector"),))

    def of_cheaper(images: Array) -> dict[str, Array]:
        return {"vector": images, "redundancy": images[:, 1:2]}

    cheap = FakeRunner(compute=of_cheaper, signature=vectors)
    last = FakeRunner(compute=lambda images: {"vector": -images}, signature=vectors)
    given = images(0.4, 0.5, 0.6, np.nan)
    given[2, 0] = np.inf

    routed = Cascade(runners=[cheap, last], threshold=0.5, router="redundancy").routed(given)

    assert routed.rung_n.tolist() == [1, 0, 1, 1]  # below, at, not finite itself, of a vector that is not
    assert list(routed.outputs) == ["vector"]
    np.testing.assert_array_equal(routed.outputs["vector"], given * np.array([[-1], [1], [-1], [-1]]))


def test_answer_that_is_not_finite_goes_on_to_the_last_engine() -> None:
    runners = [engine(np.nan), engine(1)]

    assert Cascade(runners=runners, threshold=-1.0).routed(images(-5)).rung_n.tolist() == [1]


@given(arrays(np.float32, (4, 5), elements=st.floats(-50, 50, width=32)))
def test_margin_is_the_difference_of_the_two_largest_probabilities(logits: Array) -> None:
    ordered = np.sort(softmax(logits.astype(np.float64), axis=1), axis=1)

    assert margins(logits) == pytest.approx(ordered[:, -1] - ordered[:, -2], abs=1e-12)


def test_margin_of_a_single_class_or_of_what_is_not_finite_is_kept_by_no_threshold() -> None:
    assert margins(np.array([[3.0]])).tolist() == [-np.inf]
    assert margins(np.array([[1.0, np.nan], [np.inf, 0.0], [0.0, 0.0]])).tolist() == [-np.inf, -np.inf, 0.0]
