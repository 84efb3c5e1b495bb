"""A worker as a process: `python -m exporter.embed.worker_process`, asked over stdin."""

from collections.abc import Mapping
from typing import Any

from exporter.embed.plan import Task
from exporter.embed.row import Row
from exporter.embed.worker import Setup, Worker
from exporter.errors import InternalError, machine_failure
from exporter.processes.serving import serve
from exporter.records import message_from, to_tree


def main() -> None:
    """Run the process. The first request opens the bundle; each further one is a shard, answered by its footer."""
    workers: list[Worker] = []

    def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            if request["ask"] == "open":
                workers[:] = [Worker(message_from(Setup, request["setup"]))]
                return {}
            rows = tuple(map(Row.from_json, request["rows"]))
            footer: Mapping[str, Any] = to_tree(workers[0].embed(Task(shard=request["shard"], rows=rows)))
            return footer
        except InternalError:
            raise
        except Exception as error:  # a full disk, or too little memory, is nothing to report
            raise machine_failure(error) or error from error

    serve(answer)


if __name__ == "__main__":
    main()
