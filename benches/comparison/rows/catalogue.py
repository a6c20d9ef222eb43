"""A repository with very many manifests and tags."""

import hashlib
import json
import random
import sqlite3
import time
from pathlib import Path

from ..bench import Bench
from ..content import Item
from ..loads import wrk
from ..loads.push import MANIFEST, Order, push
from ..processes import Stopped
from ..results import Column, Group, decimals
from ..servers import hosting
from ..servers.hosting import NAMESPACE, HostingTidegate
from ..servers.tidegate import Tidegate
from .plan import Plan

COLUMNS = [
    Column("requests_per_second", "requests/s", decimals(0)),
    Column("p50_ms", "p50 ms", decimals(2)),
    Column("p99_ms", "p99 ms", decimals(2)),
]

MANIFESTS, TAGS = 1_000_000, 100_000

# The same with `--quick`: does it work?
FEW_MANIFESTS, FEW_TAGS = 10_000, 1_000

REPOSITORY = f"{NAMESPACE}/large"

CONNECTIONS = 16

# How many different paths are asked for in a row.
PATHS = 2000


class Catalogue(Plan):
    """Tidegate alone: what is asked of it, and not of its peers, is how large a repository may be."""

    def __init__(self, bench: Bench):
        super().__init__(bench)
        quick = bench.options.quick
        self.manifests, self.tags = (FEW_MANIFESTS, FEW_TAGS) if quick else (MANIFESTS, TAGS)
        self.group = Group(
            "catalogue", f"A hosted repository with {self.manifests:,} manifests and {self.tags:,} tags",
            f"SQLite. Load: wrk, {CONNECTIONS} connections unless said otherwise, {PATHS:,} different paths in no order.", COLUMNS)

    @property
    def rounds(self) -> int:
        return 1

    def groups(self) -> list[Group]:
        return [self.group]

    def run_round(self) -> None:
        for original in self.bench.servers_of(Tidegate):
            server = hosting.like(original.like(Path(f"{original.directory}-catalogue")))
            digests = fill(server, self.manifests, self.tags)
            with server.started(hosting.NO_UPSTREAM) as running:
                for row, connections, paths in rows(digests, self.tags):
                    script = write_script(server.directory / "paths.lua", paths)
                    item = Item(paths[0], "", 0)
                    requests = wrk.run(running, item, connections, self.bench.options.seconds * 5,
                                       min(self.bench.threads, connections), script)
                    self.group.record(row, server.title, {
                        "requests_per_second": requests.count / requests.seconds,
                        "p50_ms": requests.p50_ms,
                        "p99_ms": requests.p99_ms,
                    })


def rows(digests: list[str], tags: int) -> list[tuple[str, int, list[str]]]:
    """What is asked for, by row and number of connections."""
    source = random.Random(7)
    root = f"/v2/{REPOSITORY}"
    some_tags = [tag_of(source.randrange(tags)) for _ in range(PATHS)]
    return [
        ("100 tags from anywhere", CONNECTIONS, [f"{root}/tags/list?n=100&last={tag}" for tag in some_tags]),
        ("1,000 tags from anywhere", CONNECTIONS, [f"{root}/tags/list?n=1000&last={tag}" for tag in some_tags]),
        ("manifest by tag", CONNECTIONS, [f"{root}/manifests/{tag}" for tag in some_tags]),
        ("manifest by digest", CONNECTIONS, [f"{root}/manifests/{source.choice(digests)}" for _ in range(PATHS)]),
        ("referrers, 1 connection", 1, [f"{root}/referrers/{source.choice(digests)}" for _ in range(PATHS)]),
    ]


def tag_of(number: int) -> str:
    """The name of a tag; they are in no order."""
    return f"v{(number * 7919) % 1_000_003}"


def fill(server: HostingTidegate, manifests: int, tags: int) -> list[str]:
    """Pushes one image, and writes the others' rows as pushes would. Gives the digests."""
    with server.started(hosting.NO_UPSTREAM) as running:
        headers = server.prepare(running)
        push(Order(running.port, REPOSITORY, headers, 1, 1, 1, 1024, 0))
    file = server.cache / "catalogue.sqlite3"
    with sqlite3.connect(file) as database:
        (repository,), = database.execute("SELECT id FROM repository WHERE name = ?", (REPOSITORY,))
        (config,), = database.execute("SELECT digest FROM blob_link WHERE repository_id = ? LIMIT 1", (repository,))
        digests = write_manifests(database, repository, config, manifests)
        write_tags(database, repository, digests[:tags])
    database.close()
    return digests


def write_manifests(database: sqlite3.Connection, repository: int, config: str, count: int) -> list[str]:
    """The rows of manifests that differ in an annotation."""
    now = int(time.time() * 1000)
    digests = []

    def payloads():
        for number in range(count):
            payload = json.dumps({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
                "layers": [], "annotations": {"org.opencontainers.image.version": str(number)},
            }).encode()
            digests.append("sha256:" + hashlib.sha256(payload).hexdigest())
            yield payload

    database.executemany(
        "INSERT INTO manifest (digest, media_type, annotations, size_bytes, recorded_at, payload) "
        "VALUES (?, ?, '{}', ?, ?, ?)",
        ((digests[-1], MANIFEST, len(payload), now, payload) for payload in payloads()))
    database.executemany("INSERT INTO manifest_link (repository_id, digest, pushed_at, pushed_by) VALUES (?, ?, ?, 'admin')",
                         ((repository, digest, now) for digest in digests))
    database.executemany("INSERT INTO manifest_edge (parent, kind, child) VALUES (?, 'blob', ?)",
                         ((digest, config) for digest in digests))
    return digests


def write_tags(database: sqlite3.Connection, repository: int, digests: list[str]) -> None:
    """The rows of tags, each with a history of one."""
    now = int(time.time() * 1000)
    (first,), = database.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM tag_history")
    database.executemany(
        "INSERT INTO tag_history (id, repository_id, tag, digest, changed_at, changed_by) VALUES (?, ?, ?, ?, ?, 'admin')",
        ((first + number, repository, tag_of(number), digest, now) for number, digest in enumerate(digests)))
    database.executemany("INSERT INTO tag (repository_id, tag, digest, history_id) VALUES (?, ?, ?, ?)",
                         ((repository, tag_of(number), digest, first + number) for number, digest in enumerate(digests)))


def write_script(file: Path, paths: list[str]) -> Path:
    """A script that has wrk ask for these paths in no order."""
    if any("'" in path for path in paths):
        raise Stopped("a path cannot be written into a script")
    listed = ",\n".join(f"'{path}'" for path in paths)
    file.write_text(f"local paths = {{\n{listed}\n}}\n"
                    "request = function() return wrk.format('GET', paths[math.random(#paths)]) end\n")
    return file
