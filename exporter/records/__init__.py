"""What is written as JSON: the records that stages, files and the report share, and the one reader and writer of them.

A record is a frozen dataclass. `canonical_json` writes it; `record_from` and `read_file` read it back and refuse
what does not fit. No torch; pydantic is imported when something is read.
"""

from exporter.records.benchmark import (
    BENCH_FILE,
    BenchRecord,
    BlockTime,
    ContenderRecord,
    EfficiencyRecord,
    LaunchRecord,
    RatioRecord,
    UnavailableRecord,
)
from exporter.records.calibrated import Calibrated, OptionSearch, Trial
from exporter.records.intervals import Interval, Ratio
from exporter.records.json_text import OMIT, canonical_json, parse_json, to_tree, write_whole
from exporter.records.ladder import (
    LADDER_FILE,
    Certificate,
    LadderRecord,
    LadderTiming,
    RoutedBySize,
    Router,
    RungRecord,
)
from exporter.records.reading import LENIENT, STRICT, message_from, read_file, record_from
from exporter.records.validation import (
    VALIDATION_FILE,
    Accuracy,
    BlockError,
    ClassLabel,
    DataRecord,
    Difference,
    Fidelity,
    PatchFidelity,
    Recall,
    RecallDifference,
    Retrieval,
    RetrievalDifference,
    Similarity,
    SimilarityDifference,
    SlotNeed,
    Unreadable,
    ValidationRecord,
)

__all__ = [
    "BENCH_FILE",
    "LADDER_FILE",
    "LENIENT",
    "OMIT",
    "STRICT",
    "VALIDATION_FILE",
    "Accuracy",
    "BenchRecord",
    "BlockError",
    "BlockTime",
    "Calibrated",
    "Certificate",
    "ClassLabel",
    "ContenderRecord",
    "DataRecord",
    "Difference",
    "EfficiencyRecord",
    "Fidelity",
    "Interval",
    "LadderRecord",
    "LadderTiming",
    "LaunchRecord",
    "OptionSearch",
    "PatchFidelity",
    "Ratio",
    "RatioRecord",
    "Recall",
    "RecallDifference",
    "Retrieval",
    "RetrievalDifference",
    "RoutedBySize",
    "Router",
    "RungRecord",
    "Similarity",
    "SimilarityDifference",
    "SlotNeed",
    "Trial",
    "UnavailableRecord",
    "Unreadable",
    "ValidationRecord",
    "canonical_json",
    "message_from",
    "parse_json",
    "read_file",
    "record_from",
    "to_tree",
    "write_whole",
]
