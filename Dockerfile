# The image of Memvault: docker build -t memvault .
# It holds the service, the embedding model and PostgreSQL's programs; at run time it needs no network, no shell, no name for its
# user and no writable root. docs/operate/air-gapped.md says how to build it behind a wall.

# What images are called: REGISTRY is where they come from, BASE_IMAGE a name with a tag or, better, a digest
# (python@sha256:…). Both stages use the same one, since a Python environment knows its interpreter by path.
ARG REGISTRY=docker.io/library
ARG BASE_IMAGE=python:3.13-slim-bookworm

# ---- Everything that needs a package index, a compiler of bytecode or room to work happens here.
FROM ${REGISTRY}/${BASE_IMAGE} AS build
# Wheels only, each with its hash; nothing is built and no package's code runs while it is installed. An index of your own comes as
# the secret `pip-conf`, a pip.conf which stays out of the image: docker build --secret id=pip-conf,src=pip.conf .
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
WORKDIR /build
# The installer has an environment of its own, so that the image has none.
RUN ["python", "-m", "venv", "/opt/installer"]
RUN ["python", "-m", "venv", "--without-pip", "/opt/memvault"]
COPY config/requirements/runtime.txt runtime.txt
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf ["/opt/installer/bin/python", "-m", "pip", "--python", "/opt/memvault/bin/python", "install", "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", "runtime.txt"]
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN ["/opt/installer/bin/python", "-m", "pip", "--python", "/opt/memvault/bin/python", "install", "--no-deps", "--no-build-isolation", "--no-index", "."]
# What a first start would write into the data folder: the model's graph, and an empty database cluster to copy.
RUN ["/opt/memvault/bin/memvault", "model", "/opt/memvault/share/model"]
RUN ["/opt/memvault/bin/memvault", "postgres-template", "/opt/memvault/share/postgres"]

# ---- docker build --target sbom --output dist . writes the list of what is in the environment, as CycloneDX.
FROM build AS inventory
COPY config/requirements/sbom.txt sbom.txt
RUN ["python", "-m", "venv", "--without-pip", "/opt/inventory"]
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf ["/opt/installer/bin/python", "-m", "pip", "--python", "/opt/inventory/bin/python", "install", "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", "sbom.txt"]
RUN ["/opt/inventory/bin/cyclonedx-py", "environment", "/opt/memvault/bin/python", "--pyproject", "pyproject.toml", "--output-reproducible", "--output-format", "JSON", "--output-file", "/build/memvault.cdx.json"]

FROM scratch AS sbom
COPY --from=inventory /build/memvault.cdx.json /memvault.cdx.json

# ---- The image.
FROM ${REGISTRY}/${BASE_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Memvault" \
      org.opencontainers.image.description="A self-hosted memory service for AI agents" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/memvault /opt/memvault
# The places to write to belong to the user of the image, and so do volumes that Docker makes there: data, keys, checkpoints, secrets.
# Group 0 may do there what the user may: it is the group of whom a platform chooses itself. What is mounted below /run/memvault is
# reached by any user.
RUN ["python", "-c", "import os; [(os.makedirs(path), os.chown(path, 10001, 0), os.chmod(path, mode)) for path, mode in (('/var/lib/memvault', 0o770), ('/var/lib/memvault-keys', 0o770), ('/var/lib/memvault-checkpoints', 0o770), ('/run/memvault', 0o755), ('/run/memvault/secrets', 0o770))]"]
ENV PATH=/opt/memvault/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MEMVAULT_DATA_DIR=/var/lib/memvault \
    MEMVAULT_SERVER__HOST=0.0.0.0 \
    MEMVAULT_EMBEDDINGS__FOLDER=/opt/memvault/share/model \
    MEMVAULT_DATABASE__EMBEDDED_TEMPLATE=/opt/memvault/share/postgres
USER 10001:10001
WORKDIR /var/lib/memvault
VOLUME ["/var/lib/memvault"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# Alive and able to serve. A container that works and does not listen (`worker`, `migrate`) turns it off.
HEALTHCHECK --interval=10s --timeout=8s --start-period=90s --retries=3 CMD ["memvault", "health"]
ENTRYPOINT ["memvault"]
CMD ["serve"]
