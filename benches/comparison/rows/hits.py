"""Hits: everything that is asked for is cached, its pages in memory, over plain connections or TLS."""

from collections.abc import Callable
from dataclasses import dataclass

from .. import http_client
from ..bench import Bench
from ..content import Item
from ..loads import h2load, wrk
from ..loads.requests import Requests
from ..processes import wait_until
from ..results import Group
from ..servers import nginx
from ..servers.nginx import CachingNginx
from ..servers.server import Running, Server
from ..servers.varnish import Varnish
from .measures import REQUEST_COLUMNS, TRANSFER_COLUMNS, request_measures, transfer_measures, with_server_cpu
from .plan import Plan

CONNECTIONS = 64


@dataclass(frozen=True)
class Row:
    """One measurement of a running, warm server."""

    group: Group
    name: str
    measure: Callable[[Bench, Running], dict[str, float]]


class Hits(Plan):
    """All rows of the chosen groups, over one start of each server a round."""

    def __init__(self, bench: Bench, rows: list[Row], tls: bool, without: tuple[type[Server], ...]):
        """Measures `rows`; servers of the kinds `without` take no part."""
        super().__init__(bench)
        self.rows = rows
        self.tls = tls
        self.servers = [server for server in bench.servers if not isinstance(server, without)]
        self.checked: set[str] = set()

    def groups(self) -> list[Group]:
        return list({row.group.key: row.group for row in self.rows}.values())

    def run_round(self) -> None:
        for server in self.servers:
            with nginx.upstream(self.bench.directory / "upstream", self.bench.content) as upstream:
                with server.started(upstream.port, self.tls) as running:
                    self.warm(server, running)
                    for row in self.rows:
                        row.group.record(row.name, server.title, row.measure(self.bench, running))
                upstream.require_hits(server.title, self.bench.content.huge)

    def warm(self, server: Server, running: Running) -> None:
        """Has the server fetch and keep everything; in the first round, what it then serves is compared."""
        for item in self.bench.content.items():
            self.bench.drain.once_each(running.port, item, tls=self.tls)
        wait_until(f"{server.title} keeps what it fetched", running.child, server.is_warm)
        if server.title not in self.checked:
            for item in self.bench.content.items():
                http_client.require_content(running.port, item, self.tls)
            self.checked.add(server.title)


def plans(bench: Bench) -> list[Plan]:
    """The plans of what was asked for: plain and TLS."""
    found: list[Plan] = []
    for prefix, over, tls, without in (("", "", False, (CachingNginx,)),
                                       ("tls-", " over TLS 1.3", True, (CachingNginx, Varnish))):
        rows = [row for row in all_rows(bench, prefix, over, tls) if row.group.key in bench.options.groups]
        if rows:
            found.append(Hits(bench, rows, tls, without))
    return found


def all_rows(bench: Bench, prefix: str, over: str, tls: bool) -> list[Row]:
    """Every row, wanted or not."""
    content = bench.content
    cipher = "TLS_AES_128_GCM_SHA256 with all servers. " if tls else ""
    hit = Group(prefix + "hit", f"Cached 1 GiB blob{over}", cipher + "Load: `drain`.", TRANSFER_COLUMNS)
    blobs = Group(prefix + "blobs", f"Cached smaller blobs{over}, {CONNECTIONS} connections",
                  cipher + "Load: `drain` for 1 MiB (which takes no single times), wrk for 4 KiB.",
                  REQUEST_COLUMNS)
    manifest = Group(prefix + "manifest", f"Cached manifest of 4 KiB{over}, {CONNECTIONS} connections",
                     cipher + "Load: wrk.", REQUEST_COLUMNS)
    rows = [Row(hit, f"{count} connection{'s' if count > 1 else ''}", transfer(content.huge, count))
            for count in (1, 8, 64)]
    rows.append(Row(blobs, "1 MiB", counted(content.medium)))
    rows.append(Row(blobs, "4 KiB", requests(content.small)))
    rows.append(Row(manifest, "by digest", requests(content.manifest)))
    rows.append(Row(manifest, "by tag", requests(content.tag)))
    return rows + http2_rows(bench) if tls else rows


def http2_rows(bench: Bench) -> list[Row]:
    """Rows over HTTP/2, which needs TLS."""
    content = bench.content
    hit = Group("http2-hit", "Cached blobs over HTTP/2",
                "TLS 1.3 as above. One stream a connection, windows of 16 MiB. Load: h2load.", TRANSFER_COLUMNS)
    manifest = Group("http2-manifest", "Cached manifest of 4 KiB over HTTP/2",
                     "TLS 1.3 as above. Load: h2load.", REQUEST_COLUMNS)
    return [
        Row(hit, "1 GiB, 1 connection", http2_transfer(content.huge, 1, 1)),
        Row(hit, "128 MiB, 8 connections", http2_transfer(content.large, 8, 16)),
        Row(manifest, "by digest, 64 connections, 1 stream each", http2_requests(content.manifest, 64, 1)),
        Row(manifest, "by digest, 2 connections, 32 streams each", http2_requests(content.manifest, 2, 32)),
        Row(manifest, "by tag, 64 connections, 1 stream each", http2_requests(content.tag, 64, 1)),
    ]


def client_threads(bench: Bench, running: Running, connections: int) -> int:
    """Threads of `drain`: one drops plain bytes faster than any server sends; decryption takes all cores."""
    return min(bench.threads, connections) if running.tls else 1


def transfer(item: Item, connections: int) -> Callable[[Bench, Running], dict[str, float]]:
    """Bytes a second, and their cost."""
    def measure(bench: Bench, running: Running) -> dict[str, float]:
        threads = client_threads(bench, running, connections)
        drained, server_cpu = with_server_cpu(running, lambda: bench.drain.for_seconds(
            running, item, connections, bench.options.seconds, threads))
        return transfer_measures(drained.bytes, drained.seconds, server_cpu, drained.cpu_seconds, threads)
    return measure


def counted(item: Item) -> Callable[[Bench, Running], dict[str, float]]:
    """Answers a second of a size at which wrk's reading would cost more than the server's sending."""
    def measure(bench: Bench, running: Running) -> dict[str, float]:
        threads = client_threads(bench, running, CONNECTIONS)
        drained, server_cpu = with_server_cpu(running, lambda: bench.drain.for_seconds(
            running, item, CONNECTIONS, bench.options.seconds, threads))
        return request_measures(Requests(drained.answers, drained.seconds, drained.cpu_seconds), server_cpu, threads)
    return measure


def requests(item: Item) -> Callable[[Bench, Running], dict[str, float]]:
    """Answers a second, and their times."""
    def measure(bench: Bench, running: Running) -> dict[str, float]:
        load, server_cpu = with_server_cpu(running, lambda: wrk.run(
            running, item, CONNECTIONS, bench.options.seconds, bench.threads))
        return request_measures(load, server_cpu, bench.threads)
    return measure


def http2_transfer(item: Item, connections: int, count: int) -> Callable[[Bench, Running], dict[str, float]]:
    """Bytes a second over HTTP/2, and their cost."""
    def measure(bench: Bench, running: Running) -> dict[str, float]:
        threads = min(bench.threads, connections)
        load, server_cpu = with_server_cpu(running, lambda: h2load.run_count(
            running, item, connections, count, threads))
        return transfer_measures(load.count * item.size_bytes, load.seconds, server_cpu, load.cpu_seconds, threads)
    return measure


def http2_requests(item: Item, connections: int, streams: int) -> Callable[[Bench, Running], dict[str, float]]:
    """Answers a second over HTTP/2, and their times."""
    def measure(bench: Bench, running: Running) -> dict[str, float]:
        threads = min(bench.threads, connections)
        load, server_cpu = with_server_cpu(running, lambda: h2load.run_seconds(
            running, item, connections, streams, bench.options.seconds, threads))
        return request_measures(load, server_cpu, threads)
    return measure
