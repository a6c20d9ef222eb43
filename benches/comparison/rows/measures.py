"""The columns of tables, and how loads become measures."""

from collections.abc import Callable
from typing import TypeVar

from ..content import GIB
from ..loads.requests import Requests
from ..results import Column, decimals
from ..servers.server import Running

Load = TypeVar("Load")

TRANSFER_COLUMNS = [
    Column("gib_per_second", "GiB/s", decimals(2), ("nginx",)),
    Column("server_cpu", "server CPU s/GiB", decimals(3), ("nginx",)),
    Column("client_cpu", "client CPU s/GiB", decimals(3)),
    Column("both_cpu", "sum", decimals(3), ("nginx",)),
    Column("client_busy", "client busy %", decimals(0)),
]

REQUEST_COLUMNS = [
    Column("requests_per_second", "requests/s", decimals(0), ("nginx",)),
    Column("p50_ms", "p50 ms", decimals(2)),
    Column("p99_ms", "p99 ms", decimals(2), ("nginx",)),
    Column("server_cpu_us", "server CPU µs/request", decimals(1), ("nginx",)),
    Column("client_cpu_us", "client CPU µs/request", decimals(1)),
    Column("client_busy", "client busy %", decimals(0)),
]


def with_server_cpu(running: Running, load: Callable[[], Load]) -> tuple[Load, float]:
    """Runs a load; what it gave, and the CPU seconds that the server spent meanwhile."""
    before = running.child.cpu_seconds()
    result = load()
    return result, running.child.cpu_seconds() - before


def transfer_measures(size_bytes: int, seconds: float, server_cpu: float, client_cpu: float,
                      threads: int) -> dict[str, float]:
    """Of large answers. `threads` is how many the client had."""
    gib = size_bytes / GIB
    return {
        "gib_per_second": gib / seconds,
        "server_cpu": server_cpu / gib,
        "client_cpu": client_cpu / gib,
        "both_cpu": (server_cpu + client_cpu) / gib,
        "client_busy": 100 * client_cpu / seconds / threads,
    }


def request_measures(load: Requests, server_cpu: float, threads: int) -> dict[str, float]:
    """Of small answers."""
    return {
        "requests_per_second": load.count / load.seconds,
        "server_cpu_us": server_cpu / load.count * 1e6,
        "client_cpu_us": load.cpu_seconds / load.count * 1e6,
        "client_busy": 100 * load.cpu_seconds / load.seconds / threads,
        **({"p50_ms": load.p50_ms, "p99_ms": load.p99_ms} if load.p50_ms is not None else {}),
    }
