"""Ladders: several engines over the same weights, of which each image gets the cheapest that is sure of its answer.

In: the engines of a bundle that holds a ladder, and images. Out: outputs, and whose they are. `certificate` says how
sure is sure enough. No torch.
"""

from exporter.ladder.cascade import Cascade, Routed, images_at_once, margins
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
]
