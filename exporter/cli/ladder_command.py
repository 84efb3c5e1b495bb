"""The command `ladder`, and its options: several r instead of one, the agreement, and what counts as one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter.cli.options import OPTION_KEYS, Command, add_options, integers, overrides, recipe_option
from exporter.cli.output import Output, output_options
from exporter.errors import UsageError, quoted

if TYPE_CHECKING:
    from exporter.pipeline import LadderRequest

_LEFT_OUT = ("tower", "length", "protect_end", "prepare", "latent_size")
_OF_SCHEDULES = ("schedule.kind", "schedule.align", "schedule.drop_share")
_SHARED = tuple(
    key
    for key in OPTION_KEYS
    if key.name not in _LEFT_OUT
    and (key.path[0] != "schedule" or key.name in _OF_SCHEDULES)
    and (key.path[0] != "validate" or key.name == "validate.data")
)
"""What all engines of a ladder share."""

_OWN = (
    click.option(
        "--r", required=True, metavar="LIST", help="Tokens that leave a block, of each engine: 0,8,16."
    ),
    click.option(
        "--agreement",
        default="99%",
        show_default=True,
        help="Share of images on which the answer is the dense model's, with 95 % confidence.",
    ),
    click.option(
        "--cosine",
        type=float,
        help="Least cosine of a vector to the dense model's, to count as its answer; 0.99 where none is given.",
    ),
    click.option("--out", help="Folder of the ladder; by default artifacts/MODEL-ladder."),
    click.option("--force", is_flag=True, help="Replace a bundle that is already there."),
)


def _ladder_options(command: Command) -> Command:
    return add_options(command, (*_OWN, *map(recipe_option, _SHARED)))


@click.command("ladder")
@click.argument("model")
@_ladder_options
@output_options
def ladder_command(model: str, out: str | None, force: bool, output: Output, **given: Any) -> None:
    """Build several engines of MODEL, and certify when the answer of a cheaper one is kept."""
    build_ladder(_request(model, given), out, output, force=force)


def build_ladder(asked: "LadderRequest", out: str | None, output: Output, *, force: bool) -> None:
    """Build a ladder and show what it is."""
    from exporter.cli import ladder_summary
    from exporter.pipeline import ladder

    laddered = ladder(asked, Path(out) if out else None, force=force, observe=output.observe)
    output.show(
        lambda: ladder_summary.laddered_tree(laddered), lambda at: ladder_summary.print_laddered(at, laddered)
    )


def _request(model: str, given: Mapping[str, Any]) -> "LadderRequest":
    from exporter.pipeline import LadderGoal, LadderRequest
    from exporter.recipe import override, recipe_from_mapping

    shared = overrides({name: value for name, value in given.items() if name != "r"})
    recipe = override(recipe_from_mapping({"schema_version": 1, "model": model}, "options"), shared)
    schedules = tuple(replace(recipe.schedule, r=r) for r in integers(given["r"], "--r"))
    goal = LadderGoal(agreement=_share(given["agreement"]), cosine=given["cosine"])
    return LadderRequest(recipe=recipe, schedules=schedules, goal=goal)


def _share(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError:
        raise UsageError(f"--agreement: expected a percent such as 99%, got {quoted(text)}") from None
