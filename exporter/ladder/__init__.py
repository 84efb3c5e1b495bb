"""Ladders: several engines over the same weights, of which each image gets the cheapest whose answer is good enough.

In: the engines of a bundle that holds a ladder, and images. Out: outputs, and whose they are. `router` says what that
is told by, and `certificate` from where on. No torch.
"""

from exporter.ladder.cascade import Cascade, Routed, images_at_once
from exporter.ladder.certificate import (
    CONFIDENCE,
    Certified,
    certify,
    certify_by_size,
    fit_cost,
    needed_images,
    rung_of,
    upper_bound,
)
from exporter.ladder.router import margins, values

__all__ = [
    "CONFIDENCE",
    "Cascade",
    "Certified",
    "Routed",
    "certify",
    "certify_by_size",
    "fit_cost",
    "images_at_once",
    "margins",
    "needed_images",
    "rung_of",
    "upper_bound",
    "values",
]
