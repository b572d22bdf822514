# Two stages: what is needed to install stays behind. Built from the repository's root:
#
#   docker build -t ladder .

FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.lock /build/requirements.lock
RUN python -m venv /opt/ladder/python && /opt/ladder/python/bin/pip install --require-hashes -r /build/requirements.lock
COPY service /opt/ladder/service
COPY lua /opt/ladder/lua
COPY scripts /opt/ladder/scripts
RUN /opt/ladder/python/bin/python -m compileall -q /opt/ladder/service

FROM python:3.13-slim
# A number, so that an orchestrator can see that it is not root. Nothing of it is writable by that user; what is
# written at run time goes to /tmp, which may be a tmpfs.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ladder
COPY --from=build /opt/ladder /opt/ladder
WORKDIR /opt/ladder
ENV PATH=/opt/ladder/python/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 PORT=8080
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health/live', timeout=2)"]
CMD ["python", "-m", "service"]
