# An image for workers, for runs that they start, and for Prefect's server. It holds the package and no model but MiniLM, which the preset
# mini depends on; others come from the hub or a volume.
#
#   docker build -t deita-tasks .                                                                     # CPU
#   docker build -t deita-tasks:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 . # CUDA
#
# pip takes torch from the index if that has the pinned version, since its builds ("+cpu") rank above PyPI's.

ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=dask,hub
WORKDIR /source
RUN python -m venv /opt/deita
ENV PATH=/opt/deita/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
# First what changes least: its layer is kept when only the package changes.
RUN pip install --constraint constraints.txt --extra-index-url "${TORCH_INDEX}" torch
COPY pyproject.toml README.md LICENSE ./
COPY deita_tasks deita_tasks
COPY flows flows
COPY deployments deployments
RUN pip install --constraint constraints.txt --extra-index-url "${TORCH_INDEX}" ".[${EXTRAS}]" \
    && pip uninstall --yes pip

FROM python:${PYTHON}
RUN useradd --uid 1000 --create-home deita && install --directory --owner deita /data
COPY --from=build /opt/deita /opt/deita
ENV PATH=/opt/deita/bin:$PATH \
    PREFECT_HOME=/home/deita/.prefect \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1
USER 1000
WORKDIR /data
# No entrypoint: Prefect's workers start a container with a command of their own.
CMD ["deita", "--help"]
