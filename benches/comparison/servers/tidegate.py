"""Tidegate, as a user runs it: its defaults, one upstream."""

import subprocess
from pathlib import Path

from .. import http_client
from ..options import Binary
from .server import Certificate, Content, Running, Server, free_port

CONFIGURATION = """
[server]
listen = ["127.0.0.1:{port}"]
admin_listen = "127.0.0.1:{admin_port}"
drain_timeout = "1s"
{tls}
[storage]
path = "{cache}"

[[upstream]]
name = "{upstream}"
default = true
endpoints = ["http://127.0.0.1:{upstream_port}"]
"""

TLS = """
[server.tls]
certificate = "{certificate}"
private_key = "{key}"
"""


class Tidegate(Server):
    """The program that this is all about."""

    setup = "defaults, access log on (to a file)"

    # The name of its one upstream.
    UPSTREAM = "upstream.test"

    def __init__(self, binary: Binary, directory: Path, content: Content, certificate: Certificate):
        """Runs `binary`."""
        super().__init__(directory, content, certificate)
        self.title = binary.name
        self.binary = binary
        self.admin_port = 0

    def like(self, directory: Path) -> "Tidegate":
        """The same program with a cache of its own."""
        return Tidegate(self.binary, directory, self.content, self.certificate)

    def command(self, port: int, upstream_port: int, tls: bool) -> list[str]:
        self.admin_port = free_port()
        text = CONFIGURATION.format(
            port=port, admin_port=self.admin_port, upstream=self.UPSTREAM, cache=self.cache, upstream_port=upstream_port,
            tls=TLS.format(certificate=self.certificate.certificate, key=self.certificate.key) if tls else "")
        file = self.directory / "tidegate.toml"
        file.write_text(text)
        return [str(self.binary.path), "serve", "--config", str(file)]

    def is_ready(self, running: Running) -> bool:
        """Whether it says that it is ready, and answers."""
        return (http_client.is_answered(self.admin_port, "/health/ready")
                and super().is_ready(running))

    def version(self) -> str:
        result = subprocess.run([str(self.binary.path), "--version"], capture_output=True, text=True, check=True)
        return result.stdout.split()[-1]
