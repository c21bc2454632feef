# The image of zerosource: `docker build -t zero-source-mongodb .`
#
# `docker run IMAGE` serves; `docker run IMAGE runwatcher`, or any other command of manage.py, does that.

FROM debian:bookworm-slim AS build
# ca-certificates before Python's own, since pip asks by https.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-venv
RUN python3 -m venv /opt/zerosource/venv
COPY requirements.txt /tmp/requirements.txt
COPY requirements-tracing.txt /tmp/requirements-tracing.txt
# Wheels alone, so that no compiler is wanted; each by its hash. What installs is left out of the image.
RUN /opt/zerosource/venv/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary=:all: \
        --require-hashes -r /tmp/requirements.txt -r /tmp/requirements-tracing.txt \
    && /opt/zerosource/venv/bin/pip uninstall --yes --quiet --disable-pip-version-check pip setuptools
COPY LICENSE /opt/zerosource/app/LICENSE
COPY manage.py /opt/zerosource/app/manage.py
COPY changesource /opt/zerosource/app/changesource
COPY zerosource_project /opt/zerosource/app/zerosource_project
COPY templates /opt/zerosource/app/templates
# Nobody can write there later, so each start would compile it anew.
RUN python3 -m compileall -q /opt/zerosource/app

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 zerosource \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin zerosource \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/zerosource /opt/zerosource
WORKDIR /opt/zerosource/app
# All that is written goes to /data: the root file system may be read-only.
ENV PATH=/opt/zerosource/venv/bin:/usr/local/bin:/usr/bin:/bin \
    DATA_DIR=/data \
    TMPDIR=/data \
    PYTHONUNBUFFERED=1
# By number, which is what Kubernetes can tell not to be root.
USER 10001:10001
VOLUME /data
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 3000), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "manage.py"]
CMD ["serve"]
