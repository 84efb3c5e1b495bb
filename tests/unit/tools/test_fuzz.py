"""The fuzzing tool: the same seed gives the same cases, each wrong answer is told, made smaller, and kept."""

from pathlib import Path
from random import Random

import pytest

from tools.fuzz import Case, campaign, main, save, smallest, tried
from tools.fuzzing.kinds import Kind
from tools.fuzzing.mutations import mutate, mutate_text
from tools.fuzzing.oracle import CASE, Answer, ask, complaint

RECIPE = b'{"schema_version": 1, "model": "vit_digits", "schedule": {"r": 4}}'


@pytest.mark.parametrize("name", ["a.yaml", "a.json", "a.npz", "a.npy", "a.safetensors", "a.png", "a"])
@pytest.mark.parametrize("data", [RECIPE, b"", b"\xff" * 300], ids=["text", "nothing", "bytes"])
def test_same_seed_damages_in_the_same_way(name: str, data: bytes) -> None:
    made = [[mutate(name, data, Random(seed)) for seed in range(30)] for _ in range(2)]

    assert made[0] == made[1]
    assert len(set(made[0])) > 1


def test_argument_holds_no_byte_that_none_can_hold() -> None:
    assert all("\0" not in mutate_text("vit_digits", Random(seed)) for seed in range(50))


def answer(status: int = 0, err: str = "", **changes: object) -> Answer:
    values = {"status": status, "err": err, "grown_kib": 0, "strays": ()} | changes
    return Answer(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        pytest.param(answer(), None, id="done"),
        pytest.param(answer(3, "error: no such model\n"), None, id="refused"),
        pytest.param(answer(70, "error: internal error: KeyError\n"), "status 70", id="internal"),
        pytest.param(answer(1, "error: no\n"), "status 1", id="undocumented"),
        pytest.param(
            answer(2, "Traceback (most recent call last)\nerror: no\n"), "traceback", id="traceback"
        ),
        pytest.param(answer(2), "no line that says what is wrong", id="silent"),
        pytest.param(answer(2, f"error: {'x' * 5000}\n"), "a line without end", id="endless"),
        pytest.param(answer(2, "error: \x1b[2J\n"), "a line that cannot be printed", id="control characters"),
        pytest.param(answer(grown_kib=4 << 20), "too much memory", id="memory"),
        pytest.param(answer(strays=("home/x",)), "something written elsewhere", id="elsewhere"),
        pytest.param(answer(slow=True), "too slow", id="slow"),
    ],
)
def test_wrong_answer_is_told(given: Answer, what: str | None) -> None:
    assert complaint(given) == what


def test_command_is_asked_in_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(words: list[str]) -> int:
        assert Path(words[1]).read_bytes() == b"content"
        (Path.home() / "cache").touch()
        Path("here").touch()
        return 0

    monkeypatch.setattr("exporter.cli.main", write)

    assert set(ask({"a": b"content"}, ["run", f"{CASE}/a"]).strays) == {"home/cache", "cwd/here"}


FRAGILE = Kind(
    name="fragile",
    files=lambda whole: whole,
    commands=(f"run {CASE}/a.yaml",),
    damaged=(".yaml",),
)


def breaking(words: list[str]) -> int:
    """Fail where a value is no longer what it was."""
    import sys

    if b"vit_digits" in Path(words[1]).read_bytes():
        return 0
    sys.stderr.write('  File "/x/exporter/cli/app.py", line 3, in main\n')
    return 70


def test_failure_is_found_once_made_smaller_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.cli.main", breaking)
    found = []
    for number, failure in enumerate(campaign([FRAGILE], {"a.yaml": RECIPE}, seed=0, seconds=60)):
        found += [failure] if failure is not None else []
        if number == 60:
            break

    (failure,) = found
    assert failure.place == "status 70 in exporter/cli/app.py:main"
    save(failure, {"a.yaml": RECIPE}, tmp_path)
    assert b"vit_digits" not in (tmp_path / "CASE/a.yaml").read_bytes()
    assert "status 70" in (tmp_path / "failure.txt").read_text("utf-8")


def test_mutations_that_do_not_matter_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.cli.main", breaking)
    whole = {"a.yaml": RECIPE}
    harmful = [seed for seed in range(60) if tried(Case(kind=FRAGILE, command=0, steps=(seed,)), whole)]
    twice = (tried(Case(kind=FRAGILE, command=0, steps=(harmful[0], seed)), whole) for seed in harmful[1:])
    failure = next(failure for failure in twice if failure is not None)

    assert len(failure.case.steps) == 2
    assert smallest(failure, whole).case.steps in {(seed,) for seed in harmful}


def test_unknown_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "nonsense"]) == 2
    assert "recipe,bundle" in capsys.readouterr().err
