"""Servers that images are pushed to: each empty, with one account or none."""

import base64
import http.client
import json
from pathlib import Path

from .. import http_client
from ..processes import Stopped
from .registry import PROGRAM, DockerRegistry
from .server import Running
from .tidegate import Tidegate

# The repositories of the benchmark are below this.
NAMESPACE = "bench"

# Nothing is pulled through, so that nobody listens there.
NO_UPSTREAM = 9

PASSWORD = "a password of the benchmark"

ACCOUNT = f"""
[auth]
administrator_password = "{PASSWORD}"
"""

REGISTRY = """
version: 0.1
log:
  level: info
  accesslog:
    disabled: false
storage:
  filesystem:
    rootdirectory: {cache}
http:
  addr: 127.0.0.1:{port}
  secret: benchmark
"""


class HostingTidegate(Tidegate):
    """Tidegate with a namespace. What it acknowledges is durable."""

    def command(self, port: int, upstream_port: int, tls: bool) -> list[str]:
        command = super().command(port, upstream_port, tls)
        with (self.directory / "tidegate.toml").open("a") as file:
            file.write(ACCOUNT)
        return command

    def is_ready(self, running: Running) -> bool:
        """Whether it says so: with a namespace, it asks who wants to know more."""
        return http_client.is_answered(self.admin_port, "/health/ready")

    def prepare(self, _running: Running) -> dict[str, str]:
        """Creates the namespace; the headers of who may push there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=30)
        body = json.dumps({"name": NAMESPACE, "anonymous_pull": True})
        connection.request("POST", "/api/v1/namespaces", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status not in (201, 409):
            raise Stopped(f"the namespace was not created: {answer.status} {answer.read()!r}")
        connection.close()
        shown = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        return {"Authorization": f"Basic {shown}"}


class HostingRegistry(DockerRegistry):
    """docker-registry with files, for anybody. What it acknowledges may be lost."""

    def command(self, port: int, upstream_port: int, tls: bool) -> list[str]:
        file = self.directory / "registry.yml"
        file.write_text(REGISTRY.format(port=port, cache=self.cache))
        return [PROGRAM, "serve", str(file)]

    def prepare(self, _running: Running) -> dict[str, str]:
        """Anybody may push."""
        return {}


def like(original: Tidegate | DockerRegistry) -> HostingTidegate | HostingRegistry:
    """The same program as a registry that is pushed to."""
    directory = Path(f"{original.directory}-hosting")
    if isinstance(original, Tidegate):
        return HostingTidegate(original.binary, directory, original.content, original.certificate)
    return HostingRegistry(directory, original.content, original.certificate)
