"""The commands. Each turns its options into one call of the pipeline, and the result into text or JSON."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from exporter.cli.options import (
    current_name,
    integers,
    measure_options,
    model_option,
    output_options,
    overrides,
    recipe_options,
)
from exporter.cli.print_graphs import asks_for_graphs, print_options, printed_graphs
from exporter.cli.sweep_options import sweep_axes, sweep_options
from exporter.cli.terminal import console
from exporter.errors import ExportError

_WHERE = "Where the model is now, written like MODEL of an export; its weights are checked."
_RENAMED = {"token_normalize_func": current_name}
_WORKERS = "Processes that decode images; 0 decodes in this one."


@click.command("export")
@click.argument("model")
@recipe_options
@click.option("--out", help="Folder of the bundle; by default artifacts/NAME.")
@click.option("--force", is_flag=True, help="Replace a bundle that is already there.")
@print_options
@output_options
def export_command(
    model: str, out: str | None, force: bool, as_json: bool, quiet: bool, debug: bool, **given: Any
) -> None:
    """Build a bundle from MODEL: an alias, SOURCE:NAME, or a .pt2 file."""
    from exporter.recipe import override, recipe_from_mapping

    recipe = override(recipe_from_mapping({"schema_version": 1, "model": model}, "options"), overrides(given))
    with printed_graphs(given):
        _build(recipe, out, force=force, as_json=as_json, quiet=quiet)


@click.command("run")
@click.argument("recipe_path", metavar="RECIPE")
@model_option("Where the model of the recipe is now, written like MODEL of an export.")
@recipe_options
@click.option("--out", help="Folder of the bundle; by default artifacts/NAME.")
@click.option("--force", is_flag=True, help="Replace a bundle that is already there.")
@print_options
@output_options
def run_command(
    recipe_path: str, out: str | None, force: bool, as_json: bool, quiet: bool, debug: bool, **given: Any
) -> None:
    """Build the bundle that a recipe describes; options override the recipe."""
    from exporter.pipeline.whereabouts import recipe_to_build

    recipe, expected = recipe_to_build(recipe_path, overrides(given))
    with printed_graphs(given):
        _build(recipe, out, force=force, as_json=as_json, quiet=quiet, weights_sha256=expected)


@click.command("inspect")
@click.argument("model")
@recipe_options
@print_options
@output_options
def inspect_command(model: str, as_json: bool, quiet: bool, debug: bool, **given: Any) -> None:
    """Show a model's anatomy and schedule. Builds nothing; downloads weights only if --weights asks for them."""
    from exporter.cli import summary
    from exporter.cli.progress import observer
    from exporter.models import without_download
    from exporter.pipeline import plan_export
    from exporter.pipeline.stage_options import rewrite_options
    from exporter.recipe import override, recipe_from_mapping
    from exporter.rewrite import rewrite

    recipe = override(recipe_from_mapping({"schema_version": 1, "model": model}, "options"), overrides(given))
    if given["weights"] is None:
        recipe = replace(recipe, model=without_download(recipe.model))
    observe = observer(console(stderr=True), quiet=quiet or as_json)
    with printed_graphs(given):
        planned = plan_export(recipe, observe, strict=False)
        if asks_for_graphs(given):
            rewrite(planned.program, planned.schedule, rewrite_options(recipe, planned.model))
    if as_json:
        summary.print_json(summary.planned_tree(planned))
    else:
        summary.print_planned(console(), planned)


@click.command("validate")
@click.argument("bundle")
@measure_options
@model_option(_WHERE)
@click.option("--weights", help="Weights file of the dense model, if the bundle was built from one.")
@click.option("--workers", type=click.IntRange(min=0), help=_WORKERS)
@click.option("--save/--no-save", default=True, help="Write validation.json into the bundle.")
@output_options
def validate_command(
    bundle: str, workers: int | None, save: bool, as_json: bool, quiet: bool, debug: bool, **given: Any
) -> None:
    """Check a bundle's files, verify its engines on this machine, and measure them against the dense model."""
    from exporter.cli import summary
    from exporter.cli.progress import observer
    from exporter.pipeline import validate

    observe = observer(console(stderr=True), quiet=quiet or as_json)
    validated = validate(bundle, overrides(given), workers=workers, save=save, observe=observe)
    if as_json:
        summary.print_json(summary.validated_tree(validated))
    elif not quiet:
        summary.print_validated(console(), validated)
    _end_with(validated.failures)


@click.command("bench", context_settings=_RENAMED)
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@click.option("--batch", help="Images per call, such as 1,8; by default the bundle's own.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of each contender; by default all cores."
)
@click.option(
    "--processes", "launches", type=int, default=5, show_default=True, help="Processes started per contender."
)
@click.option("--rounds", type=int, default=5, show_default=True, help="Timed rounds in each process.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where PyTorch runs.",
)
@click.option(
    "--compile/--no-compile", "compiled", default=True, help="Also time torch.compile of the dense model."
)
@click.option("--eager/--no-eager", default=True, help="Also time the dense model in eager PyTorch.")
@model_option(_WHERE)
@click.option("--weights", help="Weights file of the dense model, if the bundle was built from one.")
@click.option(
    "--min-speedup", type=float, help="How many times faster than its dense engine each bundle must be."
)
@click.option(
    "--calibration", help="Images to calibrate the dense engine of an int8 bundle: a folder or a CSV."
)
@click.option("--save/--no-save", default=True, help="Write bench.json into the bundles.")
@output_options
def bench_command(
    bundles: tuple[str, ...],
    batch: str | None,
    place: str | None,
    weights: str | None,
    min_speedup: float | None,
    calibration: str | None,
    save: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,
    **given: Any,
) -> None:
    """Time the engines of one or more bundles of a model against their dense engine and eager PyTorch."""
    from exporter.cli import bench_summary
    from exporter.cli.progress import observer
    from exporter.cli.summary import print_json
    from exporter.pipeline import BenchOptions, bench

    options = BenchOptions(batches=tuple(integers(batch, "--batch")) if batch else (), **given)
    observe = observer(console(stderr=True), quiet=quiet or as_json)
    taken = {"place": place, "weights": weights, "min_speedup": min_speedup, "calibration": calibration}
    benched = bench(bundles, options, overrides(taken), save=save, observe=observe)
    if as_json:
        print_json(bench_summary.benched_tree(benched))
    elif not quiet:
        bench_summary.print_benched(console(), benched)


@click.command("sweep", context_settings=_RENAMED)
@click.argument("model")
@model_option("Where MODEL is now; results for the same weights are kept.")
@sweep_options
@click.option("--out", help="Folder of the sweep; by default artifacts/sweep-MODEL.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Builds at the same time; by default as memory and cores allow.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of each timed engine; by default all cores."
)
@click.option(
    "--processes",
    "launches",
    type=int,
    default=3,
    show_default=True,
    help="Processes started per timed engine.",
)
@click.option("--rounds", type=int, default=5, show_default=True, help="Timed rounds in each process.")
@output_options
def sweep_command(
    model: str,
    place: str | None,
    out: str | None,
    jobs: int | None,
    threads: int | None,
    launches: int,
    rounds: int,
    as_json: bool,
    quiet: bool,
    debug: bool,
    **given: Any,
) -> None:
    """Measure a grid of schedules, or find the schedule that meets a goal. Resumes an interrupted sweep."""
    from exporter.cli import sweep_summary
    from exporter.cli.progress import observer
    from exporter.models import safe_name
    from exporter.pipeline import BenchOptions, SweepRequest, sweep
    from exporter.recipe import override, recipe_from_mapping

    axes, goal, values = sweep_axes(given)
    recipe = override(recipe_from_mapping({"schema_version": 1, "model": model}, "options"), values)
    options = BenchOptions(launches=launches, rounds=rounds, threads=threads, eager=False, compiled=False)
    request = SweepRequest(recipe=recipe, place=place, axes=axes, goal=goal, options=options, jobs=jobs)
    folder = Path(out) if out else Path("artifacts") / f"sweep-{safe_name(model)}"
    observe = observer(console(stderr=True), quiet=quiet or as_json)
    record = sweep(request, folder, observe)
    if as_json:
        sweep_summary.print_record_json(folder, record)
    elif not quiet:
        sweep_summary.print_record(console(), model, folder, record)
    if status := sweep_summary.failed_status(record):
        click.echo(sweep_summary.failed_line(record), err=True)
        click.get_current_context().exit(status)


@click.command("report")
@click.argument("path", metavar="BUNDLE_OR_SWEEP")
@click.option("--image", help="Show the merged tokens of this image instead of the bundle's sample.")
@model_option(f"For --image: {_WHERE[0].lower()}{_WHERE[1:]}")
@click.option("--weights", help="For --image: weights file of the model, if the bundle was built from one.")
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
@output_options
def report_command(
    path: str, image: str | None, show: bool, as_json: bool, quiet: bool, debug: bool, **given: Any
) -> None:
    """Write report.html and report.md into a bundle or a sweep folder."""
    from exporter.cli.progress import observer
    from exporter.cli.summary import print_json
    from exporter.pipeline import report

    observe = observer(console(stderr=True), quiet=quiet or as_json)
    html, markdown = report(path, overrides(given), image=image, observe=observe)
    if as_json:
        print_json({"html": str(html), "markdown": str(markdown)})
    elif not quiet:
        console().print(f"{html}\n{markdown}", soft_wrap=True)
    if show:
        click.launch(html.absolute().as_uri())


@click.command("lint")
@click.argument("file", metavar="FILE.onnx")
@click.option(
    "--for",
    "engine",
    type=click.Choice(["trt", "ort", "openvino"]),
    required=True,
    help="Engine that the model is for.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Device that it runs on; ONNX Runtime's providers accept different models.",
)
@output_options
def lint_command(file: str, engine: Any, device: Any, as_json: bool, quiet: bool, debug: bool) -> None:
    """List what an engine refuses in an ONNX model, runs slowly, or does not fuse."""
    from exporter.cli import lint_summary
    from exporter.cli.summary import print_json
    from exporter.errors import UnsupportedGraphError
    from exporter.lint import lint

    report = lint(Path(file), engine, device=device)
    if as_json:
        print_json(lint_summary.linted_tree(file, report))
    elif not quiet:
        lint_summary.print_linted(console(), file, report)
    if report.errors:
        click.echo(f"error: {file}: {lint_summary.verdict(report)}", err=True)
        click.get_current_context().exit(UnsupportedGraphError.exit_status)


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
    """Show versions, engines and devices: what works on this machine, and why the rest does not."""
    from exporter.cli import listing

    listing.print_doctor(as_json=as_json)


COMMANDS = (
    export_command,
    run_command,
    inspect_command,
    validate_command,
    bench_command,
    sweep_command,
    report_command,
    lint_command,
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
    _end_with(exported.failures)


def _end_with(failures: Mapping[str, ExportError]) -> None:
    """Prints a line for every target that failed, and exits with the highest of their statuses."""
    for failure in failures.values():
        click.echo(f"error: {failure}", err=True)
    if failures:
        click.get_current_context().exit(max(failure.exit_status for failure in failures.values()))
