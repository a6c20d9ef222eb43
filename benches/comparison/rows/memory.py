"""Resident memory, with nobody there and with many who take little."""

import time

from ..bench import Bench
from ..content import MIB
from ..processes import Child, wait_until
from ..results import Column, Group, decimals
from ..servers import nginx
from ..servers.nginx import CachingNginx
from ..servers.server import Running, Server
from .plan import Plan

COLUMNS = [
    Column("idle", "idle MiB", decimals(0)),
    Column("held", "with clients MiB", decimals(0), ("nginx",)),
    Column("after", "afterwards MiB", decimals(0)),
]

SLOW_READERS = 1000
IDLE_CONNECTIONS = 1000

# How long the clients stay, and how often the memory is looked at meanwhile.
STAY_SECONDS = 5.0
PAUSE_SECONDS = 0.1


class Memory(Plan):
    """Each server in turn, warm, started anew."""

    # The numbers hardly move.
    rounds = 1

    def __init__(self, bench: Bench):
        super().__init__(bench)
        self.group = Group(
            "memory", "Resident memory",
            f"Of all processes of a server. Clients: {SLOW_READERS:,} readers of the 1 GiB blob that take 40 KiB/s "
            f"each, and {IDLE_CONNECTIONS:,} connections that asked for the manifest once; the greatest value "
            f"within {STAY_SECONDS:g} s. varnish keeps all content in memory.", COLUMNS)

    def groups(self) -> list[Group]:
        return [self.group]

    def run_round(self) -> None:
        for server in self.bench.servers:
            if isinstance(server, CachingNginx):
                continue
            with nginx.upstream(self.bench.directory / "upstream", self.bench.content) as upstream:
                # What filling the cache leaves in memory is not what serving from it takes.
                if not server.forgets_at_end:
                    with server.started(upstream.port) as running:
                        self.fill(server, running)
                with server.started(upstream.port) as running:
                    self.group.record("", server.title, self.measures(server, running))
                upstream.require_hits(server.title, self.bench.content.huge)

    def fill(self, server: Server, running: Running) -> None:
        """Pulls what the clients will ask for."""
        for item in self.bench.content.items():
            self.bench.drain.once_each(running.port, item)
        wait_until(f"{server.title} keeps what it fetched", running.child, server.is_warm)

    def measures(self, server: Server, running: Running) -> dict[str, float]:
        """The columns."""
        content = self.bench.content
        measures = {"idle": most_memory(running.child, 1)}
        if server.forgets_at_end:
            self.fill(server, running)
        with self.bench.drain.holding(running, content.huge, SLOW_READERS, IDLE_CONNECTIONS, content.manifest):
            measures["held"] = most_memory(running.child, STAY_SECONDS)
        time.sleep(1)
        measures["after"] = most_memory(running.child, 0)
        return measures


def most_memory(child: Child, seconds: float) -> float:
    """The most memory within some seconds, in MiB."""
    deadline, most = time.monotonic() + seconds, child.memory_bytes()
    while time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
        most = max(most, child.memory_bytes())
    return most / MIB
