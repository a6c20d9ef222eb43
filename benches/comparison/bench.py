"""What all measurements share: files, servers, load generators."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import content as registry_content
from .content import Content
from .loads.drain import Drain
from .options import Binary, Options
from .servers.nginx import CachingNginx, StaticNginx
from .servers.registry import DockerRegistry
from .servers.server import Certificate, Server
from .servers.tidegate import Tidegate
from .servers.varnish import Varnish

PEERS = {"nginx": StaticNginx, "nginx-cache": CachingNginx, "docker-registry": DockerRegistry, "varnish": Varnish}


@dataclass(frozen=True)
class Bench:
    """Everything that a measurement needs."""

    options: Options
    directory: Path
    content: Content
    drain: Drain
    servers: list[Server]

    @property
    def threads(self) -> int:
        """Threads of load generators that need more than one core."""
        return os.cpu_count() or 1

    def servers_of(self, *kinds: type[Server]) -> list[Server]:
        """Those of the chosen servers that are of these kinds."""
        return [server for server in self.servers if isinstance(server, kinds)]


def prepare(options: Options, binaries: list[Binary], directory: Path) -> Bench:
    """Makes the files and the servers in a directory that is there and empty."""
    content = registry_content.write(directory / "content")
    certificate = make_certificate(directory)
    servers: list[Server] = []
    for number, binary in enumerate(binaries):
        servers.append(Tidegate(binary, directory / f"tidegate-{number}", content, certificate))
    for peer in options.peers:
        servers.append(PEERS[peer](directory / peer, content, certificate))
    return Bench(options, directory, content, Drain(directory), servers)


def make_certificate(directory: Path) -> Certificate:
    """Makes a self-signed certificate: an ECDSA key, as most servers have today."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-out", str(certificate), "-keyout", str(key)],
        check=True, capture_output=True)
    return Certificate(certificate, key)
