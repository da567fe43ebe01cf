# One image for every service: `docker build --build-arg SERVICE=budget .`; `all` hosts the whole suite in one process.
FROM python:3.11-slim AS build
RUN pip install --quiet --no-cache-dir uv
WORKDIR /src
COPY requirements/runtime.txt requirements/runtime.txt
RUN uv venv /opt/farthing && uv pip install --python /opt/farthing/bin/python --no-deps --require-hashes -r requirements/runtime.txt
COPY libs libs
COPY services services
RUN uv pip install --python /opt/farthing/bin/python hatchling editables \
 && uv pip install --python /opt/farthing/bin/python --no-deps --no-build-isolation libs/* services/* \
 && uv pip uninstall --python /opt/farthing/bin/python hatchling editables

FROM python:3.11-slim
ARG SERVICE=all
ENV PATH=/opt/farthing/bin:$PATH \
    FARTHING_SERVICE=${SERVICE} \
    FARTHING_GRPC_HOST=0.0.0.0 \
    FARTHING_GATEWAY_HTTP_HOST=0.0.0.0 \
    FARTHING_DATA_DIR=/var/lib/farthing \
    FARTHING_LOG_FORMAT=json \
    PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --home-dir /var/lib/farthing --create-home farthing
COPY --from=build /opt/farthing /opt/farthing
USER farthing
EXPOSE 50051 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["farthing", "health"]
CMD ["sh", "-c", "[ \"$FARTHING_SERVICE\" = all ] && exec farthing serve || exec farthing serve \"$FARTHING_SERVICE\""]
