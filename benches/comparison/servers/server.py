"""What every server has in common: a directory, a configuration, a way to start."""

import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import http_client
from ..content import Content
from ..processes import Child, wait_until


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate and its key: PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Running:
    """A started server."""

    child: Child
    port: int
    tls: bool


class Server(ABC):
    """A server under test. What it caches stays in its directory from start to start."""

    # The name in tables.
    title: str
    # How it is set up, for the description of the results.
    setup: str
    # Whether it starts with an empty cache, whatever it kept before.
    forgets_at_end = False
    # What is asked to learn whether it is ready.
    ready_path = "/v2/"

    def __init__(self, directory: Path, content: Content, certificate: Certificate):
        """Uses `directory`, which it makes."""
        self.directory = directory
        self.content = content
        self.certificate = certificate
        directory.mkdir(parents=True)

    @property
    def cache(self) -> Path:
        """Where content is kept."""
        return self.directory / "cache"

    @abstractmethod
    def command(self, port: int, upstream_port: int, tls: bool) -> list[str]:
        """Writes the configuration; the command that serves it on `port`."""

    @abstractmethod
    def version(self) -> str:
        """The program's version."""

    def is_warm(self) -> bool:
        """Whether what was pulled is stored by now."""
        return True

    def is_ready(self, running: Running) -> bool:
        """Whether a started server serves by now."""
        return http_client.is_answered(running.port, self.ready_path, running.tls)

    def clear(self) -> None:
        """Empties the cache of a server that does not run."""
        shutil.rmtree(self.cache, ignore_errors=True)

    def spawn(self, upstream_port: int, tls: bool = False) -> Running:
        """Starts it without waiting for anything."""
        self.cache.mkdir(exist_ok=True)
        port = free_port()
        command = self.command(port, upstream_port, tls)
        return Running(Child(command, self.directory / "log", self.directory), port, tls)

    @contextmanager
    def started(self, upstream_port: int, tls: bool = False) -> Iterator[Running]:
        """Starts it, waits until it answers, and ends it in the end."""
        running = self.spawn(upstream_port, tls)
        with running.child:
            wait_until(f"{self.title} is ready", running.child, lambda: self.is_ready(running))
            yield running


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
