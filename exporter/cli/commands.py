"""The commands. Each one turns options into one call of the pipeline, and its result into text or JSON."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from exporter.cli.options import output_options, overrides, recipe_options
from exporter.cli.terminal import console


@click.command("export")
@click.argument("model")
@recipe_options
@click.option("--out", help="The bundle's folder; default artifacts/NAME.")
@click.option("--force", is_flag=True, help="Replace the bundle that is there.")
@output_options
def export_command(
    model: str, out: str | None, force: bool, as_json: bool, quiet: bool, debug: bool, **given: Any
) -> None:
    """Build a bundle from MODEL: an alias, SOURCE:NAME, or a .pt2 file."""
    from exporter.recipe import override, recipe_from_mapping

    recipe = override(recipe_from_mapping({"schema_version": 1, "model": model}, "options"), overrides(given))
    _build(recipe, out, force=force, as_json=as_json, quiet=quiet)


@click.command("run")
@click.argument("recipe_path", metavar="RECIPE")
@recipe_options
@click.option("--out", help="The bundle's folder; default artifacts/NAME.")
@click.option("--force", is_flag=True, help="Replace the bundle that is there.")
@output_options
def run_command(
    recipe_path: str, out: str | None, force: bool, as_json: bool, quiet: bool, debug: bool, **given: Any
) -> None:
    """Build what a recipe says; options override it."""
    from exporter.bundle import recorded_weights_sha256
    from exporter.recipe import load_recipe, override

    recipe = override(load_recipe(recipe_path), overrides(given))
    expected = None if given["weights"] is not None else recorded_weights_sha256(recipe_path)
    _build(recipe, out, force=force, as_json=as_json, quiet=quiet, weights_sha256=expected)


@click.command("inspect")
@click.argument("model")
@recipe_options
@output_options
def inspect_command(model: str, as_json: bool, quiet: bool, debug: bool, **given: Any) -> None:
    """Show a model's anatomy and schedule; builds nothing, and downloads no weights unless --weights asks for them."""
    from exporter.cli import summary
    from exporter.cli.progress import observer
    from exporter.models import without_download
    from exporter.pipeline import plan_export
    from exporter.recipe import override, recipe_from_mapping

    recipe = override(recipe_from_mapping({"schema_version": 1, "model": model}, "options"), overrides(given))
    if given["weights"] is None:
        recipe = replace(recipe, model=without_download(recipe.model))
    planned = plan_export(recipe, observer(console(stderr=True), quiet=quiet or as_json), strict=False)
    if as_json:
        summary.print_json(summary.planned_tree(planned))
    else:
        summary.print_planned(console(), planned)


@click.command("validate")
@click.argument("bundle")
@click.option("--data", help="Labelled image folder to measure accuracy on.")
@click.option("--weights", help="The weights file of the dense model, where the bundle was built from one.")
@output_options
def validate_command(
    bundle: str, data: str | None, weights: str | None, as_json: bool, quiet: bool, debug: bool
) -> None:
    """Check a bundle's files, and prove its engines again on this machine."""
    from exporter.cli import summary
    from exporter.cli.progress import observer
    from exporter.pipeline import validate

    observe = observer(console(stderr=True), quiet=quiet or as_json)
    validated = validate(bundle, data=data, weights=weights, observe=observe)
    if as_json:
        summary.print_json(summary.validated_tree(validated))
    elif not quiet:
        summary.print_validated(console(), validated)


@click.command("recipe-schema")
@output_options
def recipe_schema_command(as_json: bool, quiet: bool, debug: bool) -> None:
    """Print the JSON Schema of recipes, for editors."""
    from exporter.cli.summary import print_json
    from exporter.recipe import recipe_schema

    print_json(recipe_schema())


@click.command("models")
@output_options
def models_command(as_json: bool, quiet: bool, debug: bool) -> None:
    """List aliases, sources and pinned weight tags."""
    from exporter.cli import listing

    listing.print_models(as_json=as_json)


@click.command("doctor")
@output_options
def doctor_command(as_json: bool, quiet: bool, debug: bool) -> None:
    """Show versions, engines and devices: what works here, and why the rest does not."""
    from exporter.cli import listing

    listing.print_doctor(as_json=as_json)


COMMANDS = (
    export_command,
    run_command,
    inspect_command,
    validate_command,
    doctor_command,
    models_command,
    recipe_schema_command,
)


def _build(
    recipe: Any,
    out: str | None,
    *,
    force: bool,
    as_json: bool,
    quiet: bool,
    weights_sha256: str | None = None,
) -> None:
    from exporter.cli import summary
    from exporter.cli.progress import observer
    from exporter.pipeline import build

    observe = observer(console(stderr=True), quiet=quiet or as_json)
    exported = build(
        recipe, Path(out) if out else None, force=force, observe=observe, weights_sha256=weights_sha256
    )
    if as_json:
        summary.print_json(summary.exported_tree(exported))
    elif quiet:
        print(exported.bundle.path)
    else:
        summary.print_exported(console(), exported)
