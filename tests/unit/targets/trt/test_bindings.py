"""TensorRT's real Python bindings against what the package calls, and against what the stand-in has.

Three ways: the stand-in's classes have the bindings' names and signatures; every name that the sources take from the
package exists; and the sources run, unchanged, through the bindings' own dispatch.
"""

import ast
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.package_index import ROOT
from tests.unit.targets.trt import stand_in
from tests.unit.targets.trt.real_bindings import VERSIONS, Bindings, bindings
from tests.unit.targets.trt.signatures import Facts, differences, library_classes, used_members

SOURCES = ROOT / "exporter" / "targets" / "trt"


@pytest.fixture(scope="module", params=VERSIONS)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bindings:
    return bindings(request.param, tmp_path_factory.mktemp("natives"))


@pytest.fixture(scope="module")
def facts(real: Bindings) -> Facts:
    return real.facts()


def names_taken(tree: ast.AST) -> set[str]:
    """`A.B` for every `trt.A.B` in a source."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts: list[str] = []
            inner: ast.expr = node
            while isinstance(inner, ast.Attribute):
                parts.insert(0, inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id in ("trt", "library") and parts[0][0].isupper():
                found.add(".".join(parts))
    return found


def missing_names(taken: set[str], facts: Facts) -> list[str]:
    return sorted(name for name in taken if not _is_there(name, facts))


def _is_there(name: str, facts: Facts) -> bool:
    owner, _, member = name.rpartition(".")
    return name in facts or (owner in facts and member in facts[owner])


def sources() -> list[Path]:
    return sorted(SOURCES.glob("*.py"))


def test_stand_in_has_the_real_names_and_signatures(facts: Facts) -> None:
    assert differences(library_classes(stand_in), facts) == []


def test_every_name_in_the_sources_is_there(facts: Facts) -> None:
    taken = set().union(*(names_taken(ast.parse(path.read_text(encoding="utf-8"))) for path in sources()))

    assert {"BuilderFlag.STRIP_PLAN", "OnnxParserRefitter", "ILogger.Severity.ERROR"} <= taken
    assert missing_names(taken, facts) == []


TAKEN_AWAY = ("BuilderFlag.REFIT_IDENTICAL", "IBuilderConfig.set_timing_cache", "OnnxParserRefitter")


@pytest.fixture(scope="module")
def dispatched(real: Bindings) -> Any:
    """What `dispatch` found: once with everything there, once without each of these."""
    done = real.run("dispatch.py", *TAKEN_AWAY)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_sources_run_through_the_real_dispatch(dispatched: Any) -> None:
    assert used_members(stand_in) - set(dispatched["reached"]) == set()


@pytest.mark.parametrize("name", TAKEN_AWAY)
def test_name_that_is_gone_fails_in_the_real_dispatch(dispatched: Any, name: str) -> None:
    assert dispatched["without"][name].startswith("AttributeError: ")
    assert f"has no attribute '{name.rpartition('.')[2]}'" in dispatched["without"][name]


def renamed(facts: Facts, owner: str, member: str) -> Facts:
    changed = copy.deepcopy(facts)
    changed[owner][f"{member}_v2"] = changed[owner].pop(member)
    return changed


@pytest.mark.parametrize(
    ("owner", "member"),
    [
        ("BuilderFlag", "STRIP_PLAN"),
        ("ILogger.Severity", "ERROR"),
        ("IBuilderConfig", "builder_optimization_level"),
        ("IExecutionContext", "execute_async_v3"),
        ("OnnxParser", "parse_from_file"),
        ("Builder", "__init__"),
    ],
)
def test_renamed_member_is_a_difference(facts: Facts, owner: str, member: str) -> None:
    found = differences(library_classes(stand_in), renamed(facts, owner, member))

    assert [text.split(":")[0] for text in found] == [f"{owner}.{member}"]


@pytest.mark.parametrize(
    ("owner", "member", "change"),
    [
        pytest.param(
            "IBuilderConfig", "set_timing_cache", ("ignore_mismatch", "strict"), id="renamed argument"
        ),
        pytest.param(
            "IExecutionContext",
            "execute_async_v3",
            ("stream_handle: ", "stream_handle: tuple["),
            id="other type",
        ),
        pytest.param("Builder", "create_network", (" = 0", ""), id="no default any more"),
        pytest.param(
            "Builder", "build_serialized_network", ("config:", "extra: int, config:"), id="one argument more"
        ),
    ],
)
def test_changed_signature_is_a_difference(
    facts: Facts, owner: str, member: str, change: tuple[str, str]
) -> None:
    changed = copy.deepcopy(facts)
    signatures: list[Any] = changed[owner][member]["signatures"]
    changed[owner][member]["signatures"] = [
        [parameters.replace(*change), returns] for parameters, returns in signatures
    ]

    found = differences(library_classes(stand_in), changed)

    assert [text.split(":")[0] for text in found] == [f"{owner}.{member}"]


def test_flag_that_is_gone_is_missing_from_the_sources_names(facts: Facts) -> None:
    taken = names_taken(ast.parse("def f(trt):\n    return trt.BuilderFlag.STRIP_PLAN, trt.Runtime"))

    assert missing_names(taken, renamed(facts, "BuilderFlag", "STRIP_PLAN")) == ["BuilderFlag.STRIP_PLAN"]


def test_weak_typing_is_gone_in_11_and_nothing_here_uses_it(facts: Facts, real: Bindings) -> None:
    assert ("FP16" in facts["BuilderFlag"]) == real.version.startswith("10.")
    assert "BuilderFlag.FP16" not in {
        name for path in sources() for name in names_taken(ast.parse(path.read_text(encoding="utf-8")))
    }
