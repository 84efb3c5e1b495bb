"""Ways to damage a file that know its structure: a value of a JSON tree, a member of an archive, a header, a byte.

In: the bytes of a file that is read without complaint. Out: others. Each is a function of a random generator alone, so
that a seed is all that a failure has to remember.
"""

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]

HOSTILE_TEXT: tuple[str, ...] = (
    "",
    "x" * 5000,
    "a b " * 1250,
    "\udcff",
    "a\x00b",
    "\x1b[2J",
    "../../../etc/passwd",
    "/",
    "\u202e",
    "{{7*7}}<script>",
    "NaN",
    "1e999",
    "-1",
    "null",
)
HOSTILE_VALUES: tuple[Any, ...] = (
    *HOSTILE_TEXT,
    None,
    True,
    0,
    -1,
    0.5,
    2**31,
    2**70,
    10**400,
    -(10**400),
    float("inf"),
    float("nan"),
    [],
    {},
    [[[[]]]],
    {"": {"": 0}},
    [0] * 3000,
)


def mutate(name: str, data: bytes, random: Random) -> bytes:
    """One mutation of a file, as its name says what it is; now and then one that knows no structure."""
    ways = _BY_SUFFIX.get(name.rpartition(".")[2].lower(), ())
    known = bool(ways) and random.random() < 0.8
    return random.choice(ways if known else _BYTES)(data, random)


def mutate_text(text: str, random: Random) -> str:
    """An argument of a command: another one, or this one with something in it."""
    if random.random() < 0.5:
        return random.choice(HOSTILE_TEXT).replace("\x00", "")
    place = random.randrange(len(text) + 1)
    return (
        text[:place] + random.choice(HOSTILE_TEXT).replace("\x00", "") + text[place + random.randrange(3) :]
    )


# Bytes ------------------------------------------------------------------------------------------------


def flip(data: bytes, random: Random) -> bytes:
    """Some bits, in some places."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 4, 32))):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def truncate(data: bytes, random: Random) -> bytes:
    """The start only, or nothing."""
    return data[: random.choice((0, 1, 8, random.randrange(len(data) + 1), max(len(data) - 1, 0)))]


def insert(data: bytes, random: Random) -> bytes:
    """A few bytes more."""
    place = random.randrange(len(data) + 1)
    return data[:place] + random.choice((b"\x00", b"\xff" * 8, b"\n", random.randbytes(16))) + data[place:]


def repeat(data: bytes, random: Random) -> bytes:
    """A piece again and again."""
    place = random.randrange(len(data) + 1)
    piece = data[place : place + random.choice((1, 16, 200))]
    return data[:place] + piece * random.choice((2, 100)) + data[place:]


def noise(data: bytes, random: Random) -> bytes:
    """Something else altogether."""
    return random.choice((b"", b"\x00" * 100, b"PK\x03\x04", b"{", random.randbytes(200), b"[" * 100_000))


# Trees ------------------------------------------------------------------------------------------------


def tree_value(tree: Any, random: Random) -> Any:
    """A JSON tree with one value replaced, left out, or put under another name."""
    places = list(_places(tree))
    if not places:
        return random.choice(HOSTILE_VALUES)
    holder, key = random.choice(places)
    way = random.random()
    if way < 0.65:
        holder[key] = random.choice(HOSTILE_VALUES)
    elif way < 0.8:
        del holder[key]
    elif isinstance(holder, dict):
        holder[random.choice((f"{key}x", "", "\udcff", "__class__"))] = holder[key]
    else:
        holder.extend(holder[:50])
    return tree


def json_value(data: bytes, random: Random) -> bytes:
    """The JSON or YAML text of a mutated tree; what is no JSON is mutated as bytes."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return line(data, random)
    return json.dumps(tree_value(tree, random), indent=2, sort_keys=True).encode("ascii")


def nest(data: bytes, random: Random) -> bytes:
    """A value of a great depth, or of great width, in the place of one line."""
    deep = random.choice((b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 5000 + b"0" + b"}" * 5000, b"9" * 5000))
    lines = data.split(b"\n")
    place = random.randrange(len(lines))
    key = lines[place].partition(b":")[0]
    lines[place] = key + b": " + deep
    return b"\n".join(lines)


def line(data: bytes, random: Random) -> bytes:
    """A text with a line doubled, left out, or with something else behind its colon."""
    lines = data.split(b"\n")
    place = random.randrange(len(lines))
    head, colon, _ = lines[place].partition(b":")
    value = json.dumps(random.choice(HOSTILE_VALUES)).encode()
    lines[place : place + 1] = random.choice(
        ([], [lines[place]] * 2, [head + colon + b" " + value], [b"\t- &a *a"])
    )
    return b"\n".join(lines)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


# Containers -------------------------------------------------------------------------------------------


def member(data: bytes, random: Random) -> bytes:
    """A zip archive with one member mutated, left out, doubled, or declared to be something else."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except (zipfile.BadZipFile, ValueError, OSError):
        return flip(data, random)
    place = random.randrange(len(members))
    name, content = members[place]
    way = random.random()
    if way < 0.7:
        members[place] = (name, mutate(name, content, random))
    elif way < 0.8:
        del members[place]
    elif way < 0.9:
        members.append((name, content))
    else:
        members[place] = (random.choice(("../x", "/x", name.upper(), "x" * 300)), content)
    made = io.BytesIO()
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(made, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive,
    ):
        warnings.simplefilter("ignore")  # of names that are there twice
        for each, content in members:
            archive.writestr(each, content)
    return made.getvalue()


def npy_header(data: bytes, random: Random) -> bytes:
    """An array whose header claims another type or shape than its bytes have."""
    shape = random.choice((b"(8589934592,)", b"(-1,)", b"()", b"(0, 3)", b"(2**40,)", b"'x'", b"(1e3,)"))
    kind = random.choice((b"'<f4'", b"'|O'", b"'<U8'", b"'<c16'", b"'|S1'", b"'<M8[s]'", b"[('a', '<f4')]"))
    header = b"{'descr': " + kind + b", 'fortran_order': False, 'shape': " + shape + b", }"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + data[128:]


def tensors_header(data: bytes, random: Random) -> bytes:
    """A safetensors file with a mutated header over the same bytes."""
    (length,) = struct.unpack("<Q", data[:8].ljust(8, b"\0"))
    try:
        tree = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return flip(data, random)
    header = json.dumps(tree_value(tree, random)).encode()
    size = random.choice((len(header), len(header), len(header), 2**40, 0))
    return struct.pack("<Q", size) + header + data[8 + length :]


_BYTES: tuple[Mutation, ...] = (flip, truncate, insert, repeat, noise)
_TREES: tuple[Mutation, ...] = (json_value, json_value, json_value, nest, line)
_BY_SUFFIX: dict[str, tuple[Mutation, ...]] = {
    "json": _TREES,
    "yaml": _TREES,
    "csv": (line, insert),
    "npz": (member,),
    "pt2": (member,),
    "pth": (member,),
    "npy": (npy_header, npy_header, flip),
    "safetensors": (tensors_header,),
}
