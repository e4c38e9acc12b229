# A robot's side: the client without PyTorch, about 200 MB. From the repository's root:
#   docker build -f docker/client.Dockerfile -t pilot-client .
#   docker run --network host -v $PWD/examples:/robot pilot-client /robot/my_robot.py --host 192.168.0.10 --prompt "put the pen in the cup"
# Your robot's driver goes on top: begin your own file with `FROM pilot-client`, and install it there.
FROM python:3.11-slim

RUN useradd --create-home pilot
WORKDIR /opt/pilot
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN pip install --no-cache-dir '.[client]'

USER pilot
WORKDIR /robot
ENTRYPOINT ["python"]
CMD ["-c", "import pilot.serve.client; print('pilot client', pilot.__version__)"]
