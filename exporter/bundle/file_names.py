"""Names of files inside a bundle."""

from pathlib import PurePosixPath

MANIFEST_FILE = "manifest.json"


def is_file_name(name: str) -> bool:
    """Whether a name is a plain relative path inside the bundle: `model.onnx`, `openvino/model.bin`."""
    path = PurePosixPath(name)
    return (
        name == str(path)
        and not path.is_absolute()
        and bool(path.parts)
        and ".." not in path.parts
        and not any(letter in '\\:*?"<>|' or ord(letter) < 32 for letter in name)
        and name != MANIFEST_FILE
    )
