"""Plain values as text."""

from exporter.report.number_text import flat


def test_environment_is_flattened_to_names_and_texts() -> None:
    rows = flat({"cpu": "x", "cores": {"used": [0, 1], "n": 2}, "governor": None, "ok": True, "none": []})

    assert rows == {
        "cpu": "x",
        "cores used": "0, 1",
        "cores n": "2",
        "governor": "none",
        "ok": "true",
        "none": "none",
    }
