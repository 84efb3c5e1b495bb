"""The facts about this machine: instruction sets and the memory of a container, from files of known content."""

from pathlib import Path

import pytest

from exporter import machine

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
flags\t\t: fpu vme sse sse2 ht nx avx avx2 fma f16c bmi1 hypervisor avx512f
bugs\t\t: spectre_v1
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd aes sve bf16\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(X86, {"sse", "sse2", "avx", "avx2", "fma", "f16c", "bmi1", "avx512f"}, id="x86"),
        pytest.param(ARM, {"fp", "asimd", "aes", "sve", "bf16"}, id="arm"),
        pytest.param("", set(), id="silent"),
    ],
)
def test_instructions_are_told_from_other_features(tmp_path: Path, said: str, expected: set[str]) -> None:
    (tmp_path / "cpuinfo").write_text(said)

    assert machine.cpu_instructions(tmp_path / "cpuinfo") == expected


def test_machine_without_a_list_of_features_names_none(tmp_path: Path) -> None:
    assert machine.cpu_instructions(tmp_path / "absent") == frozenset()


def test_container_s_limit_counts_and_no_limit_does_not(tmp_path: Path) -> None:
    for name, text in {"max": "1000", "now": "300", "none": "max"}.items():
        (tmp_path / name).write_text(text)
    limit, now, none = (str(tmp_path / name) for name in ("max", "now", "none"))

    assert machine.available_memory_bytes([(limit, now)]) == 700
    assert machine.available_memory_bytes([(none, now), (str(tmp_path / "absent"), now)]) > 1000
