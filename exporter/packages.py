"""The packages that decide what is built and how fast it runs: one list for manifests, benchmarks and `doctor`.

In: the cards of the targets, which name what each engine needs. Out: installed versions by distribution name.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from exporter.targets import cards
from exporter.version import __version__


@dataclass(frozen=True, kw_only=True)
class Package:
    """A distribution.

    Attributes:
        name: on the package index.
        extra: of this package that installs it; None where it always comes along.
        target: the only target whose artifacts it decides; None where it may decide the bytes of any export.
    """

    name: str
    extra: str | None = None
    target: str | None = None


_COMPILER = (
    Package(name="torch", extra="compiler"),
    Package(name="torchvision", extra="compiler"),
    Package(name="timm", extra="compiler"),
    Package(name="transformers", extra="hf"),
    Package(name="diffusers", extra="diffusers"),
    Package(name="open_clip_torch", extra="open-clip"),
    Package(name="numpy"),
    Package(name="onnx", extra="compiler"),
    Package(name="onnx-ir", extra="compiler"),
    Package(name="onnxscript", extra="compiler"),
)
"""What models and the compiler are made of."""

PACKAGES = (
    *_COMPILER,
    *(
        Package(name=name, extra=card.extra, target=card.name if card.extra else None)
        for card in cards()
        for name in card.distributions
    ),
)


def toolchain(targets: Iterable[str]) -> dict[str, str]:
    """Versions of the installed packages that decide the bytes of an export for these targets."""
    wanted = {None, *targets}
    return _versions(package for package in PACKAGES if package.target in wanted)


def installed() -> dict[str, str]:
    """Versions of all of them that are installed."""
    return _versions(PACKAGES)


def version_of(package: Package) -> str | None:
    """The installed version; None where it is not installed."""
    try:
        return version(package.name)
    except PackageNotFoundError:
        return None


def _versions(packages: Iterable[Package]) -> dict[str, str]:
    found = {package.name: version_of(package) for package in packages}
    return {"exporter": __version__, **{name: text for name, text in found.items() if text is not None}}
