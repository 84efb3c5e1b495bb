"""A worker as a process: `python -m exporter.embed.worker_process`, asked over stdin; see `Requests`."""

from exporter.embed.worker import Requests
from exporter.processes.serving import serve

if __name__ == "__main__":
    serve(Requests())
