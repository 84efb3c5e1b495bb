"""Texts with ratings become texts with labels, and a classifier of some embeddings judges others."""

import numpy as np
import torch

from tools.measure_minilm import classifier, embeddings, read_snippets


def test_snippets_are_labelled_by_the_sign_of_their_rating_and_neutral_ones_are_left_out() -> None:
    lines = b"1\t2.27\tA splash.\r\n2\t-0.5\t Dull, and long. \r\n3\t0.0\tA film.\r\n4\t1\tBr\xe9f.\r\n"

    texts, labels = read_snippets(lines)

    assert texts == ["A splash.", "Dull, and long.", "Br\ufffdf."]
    assert labels == [1, 0, 1]


def test_embeddings_of_a_short_last_batch_are_those_of_its_texts() -> None:
    ids = torch.arange(22).reshape(11, 2)

    found = embeddings(lambda batch: (2.0 * batch,), [ids])

    np.testing.assert_array_equal(found, 2.0 * ids.numpy())


def test_a_classifier_gives_two_logits_that_separate_what_it_was_fitted_to() -> None:
    features, labels = np.array([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.1]]), np.array([0, 0, 1, 1])

    logits = classifier(features, labels)(features)

    assert logits.shape == (4, 2)
    np.testing.assert_array_equal(logits.argmax(axis=1), labels)
