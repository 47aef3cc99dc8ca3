# syntax=docker/dockerfile:1
# Naka as an image: one program for every role (serve, worker, migrate). Nothing here depends on the architecture: each
# locked package has wheels for amd64 and arm64, so no stage needs a compiler.
#   docker buildx build --platform linux/amd64,linux/arm64 --tag naka .
# The tag follows Python 3.13's security releases. Who must rebuild the very same image pins its digest:
#   --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements.runtime.lock ./
RUN python -m venv /opt/naka && \
    /opt/naka/bin/pip install --require-hashes --only-binary :all: --requirement requirements.runtime.lock
# The builder of the package, by its hash out of the full lock; it stays in this stage.
COPY requirements.lock ./
RUN awk '/^[^ ]/ {wanted = /^setuptools==/} wanted' requirements.lock > build.lock && \
    pip install --require-hashes --only-binary :all: --requirement build.lock
COPY pyproject.toml README.md LICENSE ./
COPY core ./core
COPY metering ./metering
COPY billing ./billing
COPY migrations ./migrations
COPY sandbox ./sandbox
COPY api ./api
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . && \
    /opt/naka/bin/pip install --no-deps --no-index /wheels/*.whl && \
    /opt/naka/bin/pip uninstall --yes pip && \
    /opt/naka/bin/python -m compileall -q /opt/naka/lib

FROM ${PYTHON_IMAGE} AS runtime
# A fixed number, so that a volume's owner is the same on every host.
RUN groupadd --gid 10001 naka && \
    useradd --uid 10001 --gid naka --no-create-home --home-dir /var/lib/naka --shell /usr/sbin/nologin naka && \
    install --directory --owner naka --group naka --mode 0700 /var/lib/naka /var/lib/naka/spool
COPY --from=builder /opt/naka /opt/naka
ENV PATH=/opt/naka/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NAKA_ENV=production \
    SPOOL_DIR=/var/lib/naka/spool
WORKDIR /var/lib/naka
USER 10001:10001
# Settlements that Postgres could not take yet. Losing it loses them.
VOLUME ["/var/lib/naka/spool"]
EXPOSE 8000
STOPSIGNAL SIGTERM
# /healthz, not /readyz: Postgres being away is no reason to replace a process that is spooling.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["naka"]
CMD ["serve", "--host", "0.0.0.0"]
