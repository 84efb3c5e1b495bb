"""Image files: which they are, opening them, and the pixels that a model takes. No torch.

Read by `validation`, which measures on images, and by `embed`, whose workers have no compiler.
"""

from exporter.images.kinds import (
    SUFFIXES,
    Listing,
    is_stray,
    join_listings,
    kinds_text,
    list_images,
    listing_notes,
    listings_of,
    names_text,
    sort_files,
)
from exporter.images.opening import image_size, open_image, open_part
from exporter.images.pixels import pixels_or_reason

__all__ = [
    "SUFFIXES",
    "Listing",
    "image_size",
    "is_stray",
    "join_listings",
    "kinds_text",
    "list_images",
    "listing_notes",
    "listings_of",
    "names_text",
    "open_image",
    "open_part",
    "pixels_or_reason",
    "sort_files",
]
