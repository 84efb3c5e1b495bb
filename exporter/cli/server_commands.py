"""The commands about inference servers: `pack` and `probe`."""

from typing import Any

import click

from exporter.cli.output import Output, end_with, output_options


@click.command("pack")
@click.argument("bundle")
@click.option(
    "--for", "server", type=click.Choice(["triton"]), required=True, help="Server that it is packed for."
)
@click.option("--out", required=True, help="Model repository; other models in it stay.")
@click.option("--target", help="Whose engine; by default the only one, or onnx.")
@click.option("--name", help="Of the model; by default the bundle's.")
@click.option(
    "--accept",
    type=click.Choice(["tensor", "jpeg"]),
    default="tensor",
    show_default=True,
    help="What requests hold: the model's inputs, or JPEG and PNG files.",
)
@click.option(
    "--queue",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Requests that wait at most; more are answered with 503.",
)
@click.option(
    "--delay-ms",
    type=click.FloatRange(min=0),
    default=20,
    show_default=True,
    help="That a batch waits for more requests.",
)
@click.option(
    "--instances", type=click.IntRange(min=1), default=1, show_default=True, help="Engines side by side."
)
@click.option("--max-batch", type=click.IntRange(min=1), help="Of a bundle with a free batch; by default 32.")
@click.option("--labels", metavar="FILE", help="Names of the classes, one a line.")
@output_options
def pack_command(server: str, output: Output, **given: Any) -> None:
    """Make BUNDLE a model in the repository of an inference server."""
    from exporter.cli import server_summary
    from exporter.servers import PackRequest, pack

    packed = pack(PackRequest(**given))
    output.show(
        lambda: server_summary.packed_tree(packed), lambda at: server_summary.print_packed(at, packed)
    )


@click.command("probe")
@click.argument("url", metavar="http://HOST:PORT")
@click.option("--bundle", required=True, help="Whose answers are expected.")
@click.option("--model", help="Name on the server; by default the bundle's.")
@click.option("--target", help="Whose engine is served; by default the only one, or onnx.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=30,
    show_default=True,
    help="Seconds for every answer.",
)
@output_options
def probe_command(output: Output, **given: Any) -> None:
    """Send a bundle's sample to a server (Open Inference Protocol), compare the answers, and time them."""
    from exporter.cli import server_summary
    from exporter.servers import ProbeRequest, probe

    probed = probe(ProbeRequest(**given))
    output.show(
        lambda: server_summary.probed_tree(probed), lambda at: server_summary.print_probed(at, probed)
    )
    end_with(probed.failures)
