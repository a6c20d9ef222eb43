"""How long a start takes."""

import hashlib
import sqlite3
import time
from pathlib import Path

from .. import http_client
from ..bench import Bench
from ..content import REPOSITORY, Item
from ..processes import wait_until
from ..results import Column, Group, decimals
from ..servers import nginx
from ..servers.nginx import CachingNginx
from ..servers.server import Server
from ..servers.tidegate import Tidegate
from .plan import Plan

COLUMNS = [Column("ready_ms", "ready after ms", decimals(0), ("nginx",))]

BLOBS = 100_000


class Start(Plan):
    """Each server in turn, empty; Tidegate also with many blobs."""

    def __init__(self, bench: Bench):
        super().__init__(bench)
        self.group = Group(
            "start", "Start to ready",
            "From the start of the program to its first answer (Tidegate: also to `/health/ready` saying 200), "
            f"asked for every millisecond. {BLOBS:,} blobs: small files, with their rows in the index.", COLUMNS)
        self.crowded: list[Tidegate] = []

    def groups(self) -> list[Group]:
        return [self.group]

    def run_round(self) -> None:
        with nginx.upstream(self.bench.directory / "upstream", self.bench.content) as upstream:
            if not self.crowded:
                self.crowded = [fill(server, upstream.port) for server in self.bench.servers_of(Tidegate)]
            for server in self.bench.servers:
                if not isinstance(server, CachingNginx):
                    server.clear()
                    self.group.record("empty", server.title, measures(server, upstream.port))
            for server in self.crowded:
                self.group.record(f"{BLOBS:,} blobs", server.title, measures(server, upstream.port))


def measures(server: Server, upstream_port: int) -> dict[str, float]:
    """Starts the server and ends it."""
    began = time.monotonic()
    running = server.spawn(upstream_port)
    with running.child:
        wait_until(f"{server.title} is ready", running.child, lambda: server.is_ready(running))
        return {"ready_ms": (time.monotonic() - began) * 1000}


def fill(original: Tidegate, upstream_port: int) -> Tidegate:
    """A Tidegate like another, with many blobs: files, and rows as it would write them itself."""
    server = original.like(original.directory.with_name(original.directory.name + "-crowded"))
    with server.started(upstream_port):
        pass  # It has made its index.
    blobs = [write_blob(server.cache / "content" / "sha256", number) for number in range(BLOBS)]
    write_rows(server.cache / "index.sqlite3", blobs)
    with server.started(upstream_port) as running:
        for item in (blobs[0], blobs[-1]):
            http_client.require_content(running.port, item)
    return server


def write_blob(directory: Path, number: int) -> Item:
    """Writes one small file under its digest."""
    body = f"blob {number}".encode()
    hex_digest = hashlib.sha256(body).hexdigest()
    shard = directory / hex_digest[:2]
    shard.mkdir(parents=True, exist_ok=True)
    (shard / hex_digest).write_bytes(body)
    digest = "sha256:" + hex_digest
    return Item(f"/v2/{REPOSITORY}/blobs/{digest}", digest, len(body))


def write_rows(index: Path, blobs: list[Item]) -> None:
    """Writes the rows of content and of the right to it."""
    now = int(time.time() * 1000)
    with sqlite3.connect(index) as database:
        database.execute("INSERT INTO repository (id, upstream, name) VALUES (1, ?, ?)",
                         (Tidegate.UPSTREAM, REPOSITORY))
        database.executemany("INSERT INTO content (digest, kind, size_bytes, stored_at, last_used_at, ordered_at, "
                             "segment, verified_at) VALUES (?, 'blob', ?, ?, ?, ?, 'probation', ?)",
                             ((blob.digest, blob.size_bytes, now, now, now, now) for blob in blobs))
        database.executemany("INSERT INTO proof (repository_id, digest, kind, size_bytes) VALUES (1, ?, 'blob', ?)",
                             ((blob.digest, blob.size_bytes) for blob in blobs))
        database.execute("INSERT OR REPLACE INTO rebuild VALUES (1, ?)", (now,))
    database.close()
