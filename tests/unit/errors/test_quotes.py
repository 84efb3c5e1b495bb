"""What a user gave is repeated in print, at 80 characters at most; failures of libraries and machines have words."""

import errno
import os

import pytest

from exporter.errors import (
    BundleError,
    ExportError,
    InternalError,
    WeightsError,
    library_failures,
    machine_failure,
    one_line,
    quoted,
)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        pytest.param("vit_b16", "vit_b16", id="as it is"),
        pytest.param("é 猫 ✓", "é 猫 ✓", id="letters of any language"),
        pytest.param("x" * 80, "x" * 80, id="80 characters"),
        pytest.param("x" * 81, f"{'x' * 38}...{'x' * 39}", id="81 characters"),
        pytest.param(f"/{'a' * 5000}/last.pt2", f"/{'a' * 37}...{'a' * 30}/last.pt2", id="the end of a path"),
        pytest.param("a\udcffb", "a\\udcffb", id="a byte that is no UTF-8"),
        pytest.param("a\x1b[31mb\x00", "a\\x1b[31mb\\x00", id="control characters"),
        pytest.param("a\u202eb", "a\\u202eb", id="turned text"),
        pytest.param(b"raw", "b'raw'", id="bytes"),
        pytest.param(None, "None", id="nothing"),
    ],
)
def test_quote_is_printable_and_short(given: object, shown: str) -> None:
    assert quoted(given) == shown


@pytest.mark.parametrize("character", ["x", "\udcff", "\x00", "\u202e", "é"])
def test_quote_is_short_however_it_is_escaped(character: str) -> None:
    assert len(quoted(character * 5000)) == 80
    assert quoted(character * 5000).isprintable()


def test_message_has_no_unbroken_text_longer_than_a_quote() -> None:
    message = str(ExportError(f"model: no such file {'y' * 5000}.pt2;\n\n give another\tone"))

    assert message == f"model: no such file {'y' * 38}...{'y' * 34}.pt2; give another one"


def test_one_line_keeps_what_fits() -> None:
    assert one_line("a: expected 3,\n got 4") == "a: expected 3, got 4"


def os_error(number: int, path: str | bytes | None = None) -> OSError:
    return (
        OSError(number, os.strerror(number), path)
        if path is not None
        else OSError(number, os.strerror(number))
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(MemoryError(), "not enough memory", id="memory"),
        pytest.param(RuntimeError("std::bad_alloc"), "not enough memory", id="memory of native code"),
        pytest.param(
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            "not enough memory",
            id="memory of PyTorch",
        ),
        pytest.param(
            RuntimeError("CUDA out of memory. Tried 2 GiB"), "not enough memory", id="memory of a GPU"
        ),
        pytest.param(os_error(errno.ENOMEM), "not enough memory", id="memory of the system"),
        pytest.param(os_error(errno.ENOSPC), "No space left on device; free some space", id="full"),
        pytest.param(os_error(errno.EDQUOT), "free some of your quota", id="quota"),
        pytest.param(
            os_error(errno.EFBIG, "big"), "big: File too large; files may not grow", id="file size limit"
        ),
        pytest.param(
            os_error(errno.EROFS, "r/o"), "r/o: Read-only file system; give another place", id="read-only"
        ),
        pytest.param(os_error(errno.EACCES, "mine"), "mine: Permission denied; check", id="permissions"),
        pytest.param(os_error(errno.EMFILE), "ulimit -n", id="descriptors"),
        pytest.param(
            os_error(errno.ENOENT, b"\xff/gone"), "\\udcff/gone: No such file", id="a path in bytes"
        ),
        pytest.param(
            os_error(errno.ENAMETOOLONG, "z" * 5000), f"{'z' * 38}...{'z' * 38}: File name", id="a long path"
        ),
        pytest.param(
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "set TMPDIR",
            id="no temporary folder",
        ),
    ],
)
def test_failure_of_the_machine_is_one_line_with_status_2(error: Exception, words: str) -> None:
    failure = machine_failure(error)

    assert failure is not None
    assert failure.exit_status == 2
    assert words in str(failure)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ValueError("wrong"), id="a value"),
        pytest.param(OSError("nothing known"), id="no number"),
        pytest.param(os_error(errno.ECONNREFUSED), id="neither a disk nor a path"),
    ],
)
def test_other_failures_are_not_of_the_machine(error: Exception) -> None:
    assert machine_failure(error) is None


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(KeyError("lost"), id="key"),
        pytest.param(IndexError("list index out of range"), id="index"),
        pytest.param(RecursionError("maximum recursion depth exceeded"), id="depth"),
        pytest.param(OSError("Error no file named model.safetensors"), id="a library's OSError"),
        pytest.param(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), id="text"),
        pytest.param(
            type("SpecViolationError", (Exception,), {})("graph is malformed"), id="a library's own"
        ),
    ],
)
def test_failure_of_a_library_becomes_the_error_of_its_room(error: Exception) -> None:
    with (
        pytest.raises(
            WeightsError, match=f"weights w.pt: cannot be read .*{type(error).__name__}|no file named"
        ),
        library_failures(WeightsError, "weights w.pt: cannot be read", "save them again"),
    ):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(BundleError("damaged"), id="an error of the tree"),
        pytest.param(InternalError("broken"), id="an internal error"),
        pytest.param(MemoryError(), id="memory"),
        pytest.param(os_error(errno.ENOSPC), id="a full disk"),
        pytest.param(KeyboardInterrupt(), id="Ctrl-C"),
    ],
)
def test_what_is_no_fault_of_what_was_given_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, library_failures(WeightsError, "weights", "save them again"):
        raise error

    assert caught.value is error
