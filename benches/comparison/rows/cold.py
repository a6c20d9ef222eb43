"""Misses: one client asks for a blob that the cache has to fetch first."""

import os
from dataclasses import dataclass

from ..bench import Bench
from ..content import GIB, Item
from ..loads.drain import Drained
from ..results import Column, Group, decimals
from ..servers import nginx
from ..servers.nginx import CachingNginx, StaticNginx, Upstream
from ..servers.server import Server
from .plan import Plan

COLUMNS = [
    Column("seconds", "s", decimals(2), ("direct", CachingNginx.title)),
    Column("first_byte_ms", "first byte ms", decimals(1)),
    Column("server_cpu", "server CPU s/GiB", decimals(2), (CachingNginx.title,)),
    Column("transfers", "upstream transfers", decimals(0)),
]

# Who stands for no cache at all.
DIRECT = "direct"


@dataclass(frozen=True)
class Pulled:
    """One pull through an empty cache, and what it cost."""

    drained: Drained
    server_cpu_seconds: float
    transfers: float


class Cold(Plan):
    """Each cache in turn, empty, against asking upstream directly."""

    def __init__(self, bench: Bench):
        super().__init__(bench)
        self.group = Group("cold", "One client, a blob that is not cached",
                           "The manifest was pulled before. \"Limited\": upstream sends 32 MiB/s on each connection. "
                           "Upstream transfers are counted in its access log, as bytes sent divided by the "
                           "blob's size. Load: `drain`, one connection.", COLUMNS)
        content = bench.content
        self.rows = [("1 GiB", content.huge, False), ("128 MiB, limited", content.large, True)]

    def groups(self) -> list[Group]:
        return [self.group]

    def run_round(self) -> None:
        for name, item, limited in self.rows:
            self.group.record(name, DIRECT, self.measures(item, pull_directly(self.bench, item, limited)))
            for server in caches(self.bench):
                pulled = pull(self.bench, server, item, 1, limited)
                self.group.record(name, server.title, self.measures(item, pulled))

    def measures(self, item: Item, pulled: Pulled) -> dict[str, float]:
        """The columns of one pull."""
        measures = {
            "seconds": pulled.drained.last_byte_seconds,
            "first_byte_ms": pulled.drained.largest_first_byte_seconds * 1000,
            "transfers": pulled.transfers,
        }
        if pulled.server_cpu_seconds:
            measures["server_cpu"] = pulled.server_cpu_seconds / (item.size_bytes / GIB)
        return measures


def caches(bench: Bench) -> list[Server]:
    """All servers but the one that fetches nothing."""
    return [server for server in bench.servers if not isinstance(server, StaticNginx)]


def pull(bench: Bench, server: Server, item: Item, clients: int, limited: bool) -> Pulled:
    """Has clients ask an empty cache for an item, all at the same time."""
    server.clear()
    # What was written before must not be on its way to the disk now.
    os.sync()
    with nginx.upstream(bench.directory / "upstream", bench.content) as upstream:
        with server.started(port_of(upstream, limited)) as running:
            bench.drain.once_each(running.port, bench.content.tag)
            before = running.child.cpu_seconds()
            drained = bench.drain.once_each(running.port, item, clients)
            cpu_seconds = running.child.cpu_seconds() - before
        return Pulled(drained, cpu_seconds, transfers(upstream, item))


def pull_directly(bench: Bench, item: Item, limited: bool) -> Pulled:
    """Has one client ask upstream itself."""
    with nginx.upstream(bench.directory / "upstream", bench.content) as upstream:
        port = port_of(upstream, limited)
        bench.drain.once_each(port, bench.content.tag)
        drained = bench.drain.once_each(port, item)
        return Pulled(drained, 0, transfers(upstream, item))


def port_of(upstream: Upstream, limited: bool) -> int:
    """Which of its ports is to be asked."""
    return upstream.limited_port if limited else upstream.port


def transfers(upstream: Upstream, item: Item) -> float:
    """How often an item left upstream. Ends the upstream."""
    return upstream.sent_bytes(item) / item.size_bytes
