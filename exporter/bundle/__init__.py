"""Bundles: folders with engines and the measurements of them, written in one step and verified on opening."""

from exporter.bundle.amend import amend, check_amendable
from exporter.bundle.file_names import MANIFEST_FILE
from exporter.bundle.leftovers import BENCH, PARTIAL, clear_leftovers, scratch_beside
from exporter.bundle.load import (
    CHEAPER_FOLDER,
    RECIPE_FILE,
    SHORTER_FOLDER,
    TEXT_FOLDER,
    Bundle,
    load_bundle,
    read_manifest,
    recorded_weights_sha256,
    written_bundle,
)
from exporter.bundle.locks import locked
from exporter.bundle.manifest import (
    ArtifactRecord,
    GmacsRecord,
    Manifest,
    ModelRecord,
    ParityRecord,
    ScheduleRecord,
    TokensRead,
    WeightsRecord,
)
from exporter.bundle.write import (
    SAMPLE_FILE,
    check_out_dir,
    place_of,
    seal,
    sha256_of,
    stage_bundle,
    write_sample,
)

__all__ = [
    "BENCH",
    "CHEAPER_FOLDER",
    "MANIFEST_FILE",
    "PARTIAL",
    "RECIPE_FILE",
    "SAMPLE_FILE",
    "SHORTER_FOLDER",
    "TEXT_FOLDER",
    "ArtifactRecord",
    "Bundle",
    "GmacsRecord",
    "Manifest",
    "ModelRecord",
    "ParityRecord",
    "ScheduleRecord",
    "TokensRead",
    "WeightsRecord",
    "amend",
    "check_amendable",
    "check_out_dir",
    "clear_leftovers",
    "load_bundle",
    "locked",
    "place_of",
    "read_manifest",
    "recorded_weights_sha256",
    "scratch_beside",
    "seal",
    "sha256_of",
    "stage_bundle",
    "write_sample",
    "written_bundle",
]
