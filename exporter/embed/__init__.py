"""Embed a corpus: the vectors of many images by a bundle's engine, in shards of Parquet. A stopped run goes on.

In: a bundle, and images in a folder, a table or tar archives. Out: a folder with `plan.json`, a file per shard, and
`done.json`. The plan says what belongs to a shard and an executor gives shards to workers: a worker opens the bundle
once, and decodes, runs and writes one shard after another. Workers import no torch. Neither the list of images nor
their vectors are ever in memory at once, but for the names of one folder.
"""

from exporter.embed.run import Embedded, EmbedRequest, embed

__all__ = ["EmbedRequest", "Embedded", "embed"]
