"""The command line: compose, parse and print."""

from exporter.cli.app import main

__all__ = ["main"]
