# attunet serve, from the clone's root:
#
#   docker build --file launch/container/serve.Dockerfile --tag attunet-serve .
#   docker run --rm --read-only --tmpfs /tmp:size=4g --publish 127.0.0.1:8000:8000 --volume "$PWD/models:/models:ro" \
#     --volume "$PWD/token:/run/secrets/attunet_token:ro" attunet-serve /models/liver.onnx --token-file /run/secrets/attunet_token
#
# With --gpus all, --provider cuda and the extra `cuda` of onnxruntime-gpu for a GPU. serve.compose.yaml says the same for Compose.
# The root file system may be read-only: uploads go to /tmp, which must be writable, and better lies in memory.
FROM python:3.12-slim-bookworm

WORKDIR /opt/attunet
COPY setup.py pyproject.toml constraints.txt README.md LICENSE ./
COPY toolkit toolkit
COPY export export
COPY benchmarks benchmarks
COPY launch launch
# Without torch: the base install, the server, and the formats of scans.
RUN pip install --no-cache-dir --constraint constraints.txt '.[serve,dicom-seg,images]' && rm -rf build

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
# SIGTERM lets running requests finish: it is process 1.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=3)"]
ENTRYPOINT ["attunet", "serve", "--host", "0.0.0.0", "--port", "8000", "--temp", "/tmp", "--log-json"]
CMD ["--help"]
