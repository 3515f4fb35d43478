# biodedup with one model pack inside. It asks who calls, but speaks no TLS: publish the port to this machine only, and put a
# proxy before it. The first start prints the key of its first client: docker logs NAME; delete that log when you have the key.
#   docker build -t biodedup .
#   docker run -p 127.0.0.1:8000:8000 -v biodedup:/var/lib/biodedup biodedup

FROM python:3.11.14-slim-bookworm AS build
ARG PACK=opencv-zoo
ARG BIODEDUP_ACCEPTED_LICENCES=
COPY . /source
RUN /source/deploy/image/build.sh /source /opt/biodedup "$PACK"

FROM python:3.11.14-slim-bookworm
ARG PACK=opencv-zoo
ARG BIODEDUP_ACCEPTED_LICENCES=
COPY --from=build /opt/biodedup /opt/biodedup
COPY deploy/image/runtime.sh /opt/biodedup/runtime.sh
RUN /opt/biodedup/runtime.sh /var/lib/biodedup 10001
ENV PATH=/opt/biodedup/venv/bin:$PATH \
    HOME=/var/lib/biodedup \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    BIODEDUP_HOST=0.0.0.0 \
    BIODEDUP_PORT=8000 \
    BIODEDUP_VAR_DIR=/var/lib/biodedup \
    BIODEDUP_PACK=$PACK \
    BIODEDUP_ACCEPTED_LICENCES=$BIODEDUP_ACCEPTED_LICENCES
USER 10001:10001
WORKDIR /var/lib/biodedup
VOLUME /var/lib/biodedup
EXPOSE 8000
# liveness, not readiness: a long rebuild of the index must not make an orchestrator kill the service
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['BIODEDUP_PORT'] + '/healthz', timeout=4)"]
CMD ["biodedup", "serve"]
