"""Images that are pushed, also while others are pulled."""

import os
from dataclasses import dataclass

from ..bench import Bench
from ..content import GIB, MIB
from ..loads import push
from ..loads.push import Order, Pushed
from ..results import Column, Group, decimals
from ..servers import hosting
from ..servers.registry import DockerRegistry
from ..servers.tidegate import Tidegate
from .plan import Plan

PEER = (DockerRegistry.title,)

COLUMNS = [
    Column("images", "images/s", decimals(1), PEER),
    Column("throughput", "MiB/s", decimals(0), PEER),
    Column("p99_ms", "p99 ms", decimals(0), PEER),
    Column("server_cpu", "server CPU s/GiB", decimals(2), PEER),
    Column("pulls", "pulls/s", decimals(0), PEER),
]


@dataclass(frozen=True)
class Row:
    """What is pushed, by how many."""

    name: str
    clients: int
    images: int
    layers: int
    layer_bytes: int
    pullers: int = 0


ROWS = [
    Row("1 layer of 256 MiB, 1 client", 1, 2, 1, 256 * MIB),
    Row("1 layer of 64 MiB, 8 clients", 8, 2, 1, 64 * MIB),
    Row("4 layers of 64 KiB, 8 clients", 8, 40, 4, MIB // 16),
    Row("the same, while 8 clients pull", 8, 40, 4, MIB // 16, pullers=8),
]


class Push(Plan):
    """Each registry in turn, empty."""

    def __init__(self, bench: Bench):
        super().__init__(bench)
        self.group = Group(
            "push", "Images are pushed",
            "HEAD, POST and one PUT for each blob, then the manifest, as containerd pushes; all content is new. Tidegate "
            "flushes what it acknowledges, and asks for a login; docker-registry (file system storage) does neither. "
            "Load: `loads/push.py`, a process for each client, on the same cores.", COLUMNS)
        self.servers = [hosting.like(server) for server in bench.servers_of(Tidegate, DockerRegistry)]

    def groups(self) -> list[Group]:
        return [self.group]

    def run_round(self) -> None:
        for row in ROWS:
            for server in self.servers:
                server.clear()
                # What was written before must not be on its way to the disk now.
                os.sync()
                with server.started(hosting.NO_UPSTREAM) as running:
                    order = Order(running.port, f"{hosting.NAMESPACE}/app", server.prepare(running), row.clients,
                                  row.images, row.layers, row.layer_bytes, row.pullers)
                    before = running.child.cpu_seconds()
                    pushed = push.push(order)
                    cpu_seconds = running.child.cpu_seconds() - before
                self.group.record(row.name, server.title, measures(row, pushed, cpu_seconds))


def measures(row: Row, pushed: Pushed, cpu_seconds: float) -> dict[str, float]:
    """The columns of one row."""
    size_bytes = row.clients * row.images * row.layers * row.layer_bytes
    in_order = sorted(pushed.image_seconds)
    found = {
        "images": len(in_order) / pushed.seconds,
        "throughput": size_bytes / MIB / pushed.seconds,
        "p99_ms": in_order[min(len(in_order) - 1, len(in_order) * 99 // 100)] * 1000,
    }
    if row.pullers:
        found["pulls"] = pushed.pulls / pushed.seconds
    else:
        found["server_cpu"] = cpu_seconds / (size_bytes / GIB)
    return found
