# A policy server on a GPU. From the repository's root:
#   docker build -f docker/server.Dockerfile -t pilot-server .
#   docker run --gpus all -p 8000:8000 -v $PWD/checkpoints:/checkpoints -e PILOT_API_KEY=$(openssl rand -hex 16) pilot-server /checkpoints/nano
# The PyTorch wheel of PyPI brings its own CUDA libraries: the host needs only the driver and the container toolkit.
FROM python:3.11-slim

RUN useradd --create-home pilot
WORKDIR /opt/pilot
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN pip install --no-cache-dir '.[serve,hub]'

USER pilot
# What comes from a hub is kept here: mount a volume to keep it between containers.
ENV PILOT_CACHE=/home/pilot/.cache/pilot
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["pilot", "serve", "--host", "0.0.0.0", "--log", "json"]
CMD ["--help"]
