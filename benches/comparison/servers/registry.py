"""docker-registry (distribution) as a pull-through cache."""

import subprocess

from ..content import Item
from .server import Server

PROGRAM = "docker-registry"

CONFIGURATION = """
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
{tls}
proxy:
  remoteurl: http://127.0.0.1:{upstream_port}
"""

TLS = """
  tls:
    certificate: {certificate}
    key: {key}
    minimumtls: tls1.2
"""


class DockerRegistry(Server):
    """docker-registry in proxy mode."""

    title = "docker-registry"
    setup = "proxy mode, file system storage, access log on (to a file); it asks upstream for every tag"

    def command(self, port: int, upstream_port: int, tls: bool) -> list[str]:
        text = CONFIGURATION.format(
            port=port, upstream_port=upstream_port, cache=self.cache,
            tls=TLS.format(certificate=self.certificate.certificate, key=self.certificate.key) if tls else "")
        file = self.directory / "registry.yml"
        file.write_text(text)
        return [PROGRAM, "serve", str(file)]

    def is_warm(self) -> bool:
        return all(self.holds(item) for item in self.content.items())

    def holds(self, item: Item) -> bool:
        """Whether an item is whole on disk: it is written beside the first answer, and may end later."""
        digest = item.digest.removeprefix("sha256:")
        return (self.cache / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data").exists()

    def version(self) -> str:
        result = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
        return result.stdout.split()[2]
