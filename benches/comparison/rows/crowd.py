"""Many clients at once on a blob that is not cached."""

from ..bench import Bench
from ..results import Column, Group, decimals
from ..servers.registry import DockerRegistry
from ..servers.server import Server
from ..servers.varnish import Varnish
from .cold import DIRECT, Pulled, caches, pull, pull_directly
from .plan import Plan

COLUMNS = [
    Column("worst_seconds", "worst client s", decimals(2), (DIRECT, Varnish.title)),
    Column("first_byte_ms", "largest first byte ms", decimals(1), (Varnish.title,)),
    Column("transfers", "upstream transfers", decimals(1)),
]

# Many rounds of many clients are many minutes; the differences are large.
MOST_ROUNDS = 3


class Crowd(Plan):
    """Each cache in turn, empty, with 32 and 200 clients, upstream fast and slow."""

    def __init__(self, bench: Bench):
        super().__init__(bench)
        self.group = Group("crowd", "Many clients at once, one blob of 128 MiB that is not cached",
                           "\"direct\" is one client alone, asking upstream itself. \"Limited\" and upstream transfers: "
                           "as above. docker-registry fetches once for every client and takes part once. "
                           "Load: `drain`.", COLUMNS)

        # 200 clients take 25 GiB from each server: not quick.
        self.clients = (32,) if bench.options.quick else (32, 200)

    @property
    def rounds(self) -> int:
        return min(self.bench.options.rounds, MOST_ROUNDS)

    def groups(self) -> list[Group]:
        return [self.group]

    def run_round(self) -> None:
        item = self.bench.content.large
        for limited in (False, True):
            direct = pull_directly(self.bench, item, limited)
            for clients in self.clients:
                row = f"{clients} clients{', limited' if limited else ''}"
                self.group.record(row, DIRECT, measures(direct))
                for server in caches(self.bench):
                    if takes_part(server, clients, limited):
                        pulled = pull(self.bench, server, item, clients, limited)
                        self.group.record(row, server.title, measures(pulled))


def takes_part(server: Server, clients: int, limited: bool) -> bool:
    """Whether a server's row tells more than it costs: 200 transfers of docker-registry are 25 GiB."""
    return not isinstance(server, DockerRegistry) or (clients == 32 and not limited)


def measures(pulled: Pulled) -> dict[str, float]:
    """The columns of one crowd."""
    return {
        "worst_seconds": pulled.drained.last_byte_seconds,
        "first_byte_ms": pulled.drained.largest_first_byte_seconds * 1000,
        "transfers": pulled.transfers,
    }
