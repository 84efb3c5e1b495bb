"""The commands. Each turns its options into one call of the pipeline, and the result into text or JSON."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from exporter.cli.ladder_command import build_ladder, ladder_command
from exporter.cli.options import (
    Command,
    add_options,
    current_name,
    integers,
    measure_options,
    model_option,
    names,
    overrides,
    recipe_options,
)
from exporter.cli.output import Output, end_with, output_options
from exporter.cli.print_graphs import asks_for_graphs, print_options, printed_graphs
from exporter.cli.server_commands import pack_command, probe_command
from exporter.cli.sweep_options import sweep_axes, sweep_options

_WHERE = "Where the model is now, written like MODEL of an export; its weights are checked."
_RENAMED = {"token_normalize_func": current_name}
_OUT = click.option("--out", help="Folder of the bundle; by default artifacts/NAME.")
_FORCE = click.option("--force", is_flag=True, help="Replace a bundle that is already there.")
_WEIGHTS = click.option(
    "--weights", help="Weights file of the dense model, if the bundle was built from one."
)


def _timing_options(processes: int) -> Callable[[Command], Command]:
    """`--threads`, `--processes` and `--rounds` of what is timed."""
    return lambda command: add_options(
        command,
        (
            click.option(
                "--threads", type=click.IntRange(min=1), help="Of each engine; by default all cores."
            ),
            click.option(
                "--processes",
                "launches",
                type=int,
                default=processes,
                show_default=True,
                help="Processes that are started for each engine.",
            ),
            click.option(
                "--rounds", type=int, default=5, show_default=True, help="Timed rounds in each process."
            ),
        ),
    )


def _device(help: str) -> Callable[[Command], Command]:
    kind = click.Choice(["cpu", "cuda"])
    return click.option("--device", type=kind, default="cpu", show_default=True, help=help)


@click.command("export")
@click.argument("model")
@recipe_options
@_OUT
@_FORCE
@print_options
@output_options
def export_command(model: str, out: str | None, force: bool, output: Output, **given: Any) -> None:
    """Build a bundle from MODEL: an alias, SOURCE:NAME, or a .pt2 file."""
    recipe = _recipe(model, overrides(given))
    with printed_graphs(given):
        _build(recipe, out, output, force=force)


@click.command("run")
@click.argument("recipe_path", metavar="RECIPE")
@model_option("Where the model of the recipe is now, written like MODEL of an export.")
@recipe_options
@_OUT
@_FORCE
@print_options
@output_options
def run_command(recipe_path: str, out: str | None, force: bool, output: Output, **given: Any) -> None:
    """Build the bundle that a recipe describes; options override the recipe."""
    from exporter.pipeline.whereabouts import recipe_to_build

    recipe, expected = recipe_to_build(recipe_path, overrides(given))
    with printed_graphs(given):
        _build(recipe, out, output, force=force, weights_sha256=expected)


@click.command("inspect")
@click.argument("model")
@recipe_options
@print_options
@output_options
def inspect_command(model: str, output: Output, **given: Any) -> None:
    """Show a model's anatomy and schedule. Builds nothing; downloads weights only if --weights asks for them."""
    from exporter.cli import summary
    from exporter.models import without_download
    from exporter.pipeline import plan_export
    from exporter.pipeline.stage_options import rewrite_options
    from exporter.rewrite import rewrite

    recipe = _recipe(model, overrides(given))
    if given["weights"] is None:
        recipe = replace(recipe, model=without_download(recipe.model))
    with printed_graphs(given):
        planned = plan_export(recipe, output.observe, strict=False)
        if asks_for_graphs(given):
            rewrite(planned.program, planned.schedule, rewrite_options(planned))
    shown = replace(output, quiet=False)  # the table is all that the command is for
    shown.show(lambda: summary.planned_tree(planned), lambda at: summary.print_planned(at, planned))


@click.command("validate")
@click.argument("bundle")
@measure_options
@model_option(_WHERE)
@_WEIGHTS
@click.option("--workers", type=click.IntRange(min=0), help="Processes that decode images; 0 for none.")
@click.option("--save/--no-save", default=True, help="Write validation.json into the bundle.")
@output_options
def validate_command(bundle: str, workers: int | None, save: bool, output: Output, **given: Any) -> None:
    """Check a bundle's files, verify its engines on this machine, and measure them against the dense model."""
    from exporter.cli import summary
    from exporter.pipeline import validate

    validated = validate(bundle, overrides(given), workers=workers, save=save, observe=output.observe)
    output.show(lambda: summary.validated_tree(validated), lambda at: summary.print_validated(at, validated))
    end_with(validated.failures)


@click.command("embed")
@click.argument("bundle")
@click.option(
    "--data",
    required=True,
    help="A folder of images, a .csv or .parquet table with a column image, or .tar archives ('shard-{000..099}.tar').",
)
@click.option("--out", required=True, help="Folder for the shards; a run that was stopped there goes on.")
@click.option("--target", help="Whose engine; by default the only one, or onnx.")
@click.option("--output", "column", metavar="NAME", help="Of the engine; by default its first output.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of the vectors.",
)
@click.option(
    "--shard",
    type=click.IntRange(min=1),
    help="Images in each file; by default about a 64th of them, from 32 to 4096.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes; by default one per core, or one on a GPU."
)
@click.option(
    "--on",
    default="local",
    show_default=True,
    help="Where workers run: local, ray, or ray=HOST:PORT of a cluster.",
)
@click.option("--gpus-per-worker", type=float, help="Of Ray; by default 1 if the engine runs on a GPU.")
@click.option(
    "--carry",
    metavar="COLUMNS",
    help="Comma list of columns that go into the output; of archives, endings of texts such as txt.",
)
@click.option(
    "--max-errors", default="1%", show_default=True, help="Images that may fail, as a number or in percent."
)
@output_options
def embed_command(output: Output, column: str | None, carry: str | None, **given: Any) -> None:
    """Embed a corpus with BUNDLE: the vector of every image, in Parquet files."""
    from exporter.cli import embed_summary
    from exporter.embed import EmbedRequest, embed

    request = EmbedRequest(output=column, carry=tuple(names([carry])) if carry else (), **given)
    with output.observe("embed") as note:
        embedded = embed(request, note.progress)
        note(embed_summary.outcome(embedded))
    output.show(
        lambda: embed_summary.embedded_tree(embedded), lambda at: embed_summary.print_embedded(at, embedded)
    )


@click.command("bench", context_settings=_RENAMED)
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@click.option("--batch", help="Images per call, such as 1,8; by default the bundle's own.")
@_timing_options(processes=5)
@_device("Where PyTorch runs.")
@click.option(
    "--compile/--no-compile", "compiled", default=True, help="Also time torch.compile of the dense model."
)
@click.option("--eager/--no-eager", default=True, help="Also time the dense model in eager PyTorch.")
@model_option(_WHERE)
@_WEIGHTS
@click.option(
    "--min-speedup", type=float, help="How many times faster than its dense engine each bundle must be."
)
@click.option(
    "--calibration", help="Images to calibrate the dense engine of an int8 bundle: a folder or a CSV."
)
@click.option("--data", help="Of a ladder: images to time it on; by default those that ship with the model.")
@click.option("--save/--no-save", default=True, help="Write bench.json into the bundles.")
@output_options
def bench_command(
    bundles: tuple[str, ...], batch: str | None, save: bool, output: Output, **given: Any
) -> None:
    """Time the engines of one or more bundles of a model against their dense engine and eager PyTorch."""
    from exporter.cli import bench_summary
    from exporter.pipeline import BenchOptions, bench

    taken = {name: given.pop(name) for name in ("place", "weights", "min_speedup", "calibration", "data")}
    options = BenchOptions(batches=tuple(integers(batch, "--batch")) if batch else (), **given)
    benched = bench(bundles, options, overrides(taken), save=save, observe=output.observe)
    output.show(
        lambda: bench_summary.benched_tree(benched), lambda at: bench_summary.print_benched(at, benched)
    )


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
@_timing_options(processes=3)
@output_options
def sweep_command(
    model: str, place: str | None, out: str | None, jobs: int | None, output: Output, **given: Any
) -> None:
    """Measure a grid of schedules, or find the schedule that meets a goal. Resumes an interrupted sweep."""
    from exporter.cli import sweep_summary
    from exporter.models import safe_name
    from exporter.pipeline import BenchOptions, SweepRequest, sweep

    timing = {name: given.pop(name) for name in ("launches", "rounds", "threads")}
    axes, goal, values = sweep_axes(given)
    options = BenchOptions(**timing, eager=False, compiled=False)
    request = SweepRequest(
        recipe=_recipe(model, values), place=place, axes=axes, goal=goal, options=options, jobs=jobs
    )
    folder = Path(out) if out else Path("artifacts") / f"sweep-{safe_name(model)}"
    record = sweep(request, folder, output.observe)
    output.show(
        lambda: sweep_summary.record_tree(folder, record),
        lambda at: sweep_summary.print_record(at, model, folder, record),
    )
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
def report_command(path: str, image: str | None, show: bool, output: Output, **given: Any) -> None:
    """Write report.html and report.md into a bundle or a sweep folder."""
    from exporter.pipeline import report

    html, markdown = report(path, overrides(given), image=image, observe=output.observe)
    output.show(
        lambda: {"html": str(html), "markdown": str(markdown)},
        lambda at: at.print(f"{html}\n{markdown}", soft_wrap=True),
    )
    if show:
        click.launch(html.absolute().as_uri())


@click.command("lint")
@click.argument("file", metavar="FILE.onnx")
@click.option(
    "--for",
    "engine",
    type=click.Choice(["trt", "trt-rtx", "ort", "openvino"]),
    required=True,
    help="Engine that the model is for.",
)
@_device("Device that it runs on; ONNX Runtime's providers accept different models.")
@output_options
def lint_command(file: str, engine: Any, device: Any, output: Output) -> None:
    """List what an engine refuses in an ONNX model, runs slowly, or does not fuse."""
    from exporter.cli import lint_summary
    from exporter.errors import UnsupportedGraphError
    from exporter.lint import lint

    report = lint(Path(file), engine, device=device)
    output.show(
        lambda: lint_summary.linted_tree(file, report),
        lambda at: lint_summary.print_linted(at, file, report),
    )
    if report.errors:
        click.echo(f"error: {file}: {lint_summary.verdict(report)}", err=True)
        click.get_current_context().exit(UnsupportedGraphError.exit_status)


@click.command("recipe-schema")
@output_options
def recipe_schema_command(output: Output) -> None:
    """Print the JSON Schema of recipes, for editors."""
    from exporter.cli.summary import print_json
    from exporter.recipe import recipe_schema

    print_json(recipe_schema())


@click.command("models")
@output_options
def models_command(output: Output) -> None:
    """List aliases, sources and pinned weight tags."""
    from exporter.cli import listing

    listing.print_models(as_json=output.as_json)


@click.command("methods")
@output_options
def methods_command(output: Output) -> None:
    """List the methods: what each drops or merges, where, what it needs, its source and its options."""
    from exporter.cli import listing

    listing.print_methods(as_json=output.as_json)


@click.command("doctor")
@output_options
def doctor_command(output: Output) -> None:
    """Show versions, engines and devices: what works on this machine, and why the rest does not."""
    from exporter.cli import listing

    listing.print_doctor(as_json=output.as_json)


COMMANDS = (
    export_command,
    run_command,
    inspect_command,
    validate_command,
    embed_command,
    pack_command,
    probe_command,
    bench_command,
    sweep_command,
    ladder_command,
    report_command,
    lint_command,
    doctor_command,
    models_command,
    methods_command,
    recipe_schema_command,
)


def _recipe(model: str, values: Mapping[str, object]) -> Any:
    """The recipe of a model's name and options."""
    from exporter.recipe import override, recipe_from_mapping

    return override(recipe_from_mapping({"schema_version": 1, "model": model}, "options"), values)


def _build(
    recipe: Any, out: str | None, output: Output, *, force: bool, weights_sha256: str | None = None
) -> None:
    from exporter.cli import summary
    from exporter.pipeline import adaptive_request, build

    if recipe.adaptive:
        build_ladder(adaptive_request(recipe), out, output, force=force)
        return
    folder = Path(out) if out else None
    exported = build(recipe, folder, force=force, observe=output.observe, weights_sha256=weights_sha256)
    if output.quiet and not output.as_json:
        print(exported.bundle.path)
    output.show(lambda: summary.exported_tree(exported), lambda at: summary.print_exported(at, exported))
    end_with(exported.failures)
