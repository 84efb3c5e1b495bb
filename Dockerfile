# Build:  docker build -t exporter .
# Run:    docker run --rm --user "$(id -u)" -e HOME=/tmp -v "$PWD:/data" exporter vit_digits --r 4
# The bundle is then in ./artifacts. With a GPU, add --gpus all.
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04

RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 exporter \
    && install --directory --owner=exporter /opt/build /opt/venv /data

USER exporter
ENV PATH=/opt/venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

# The large libraries first: this layer stays while the package changes.
COPY --chown=exporter constraints.txt /opt/build/
RUN python3 -m venv /opt/venv \
    && pip install -c /opt/build/constraints.txt torch torchvision

COPY --chown=exporter . /opt/build/
RUN pip install -c /opt/build/constraints.txt "/opt/build[hf,open-clip]"

WORKDIR /data
# -P: a folder that is mounted here and holds an `exporter` of its own is not taken for the installed one.
ENTRYPOINT ["python", "-P", "-m", "exporter"]
CMD ["--help"]
