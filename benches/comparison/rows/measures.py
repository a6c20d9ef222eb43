"""The columns of tables, and how loads become measures."""

from collections.abc import Callable
from typing import TypeVar

from ..content import GIB
from ..loads.drain import Drained
from ..loads.wrk import Answered
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
]


def with_server_cpu(running: Running, load: Callable[[], Load]) -> tuple[Load, float]:
    """Runs a load; what it gave, and the CPU seconds that the server spent meanwhile."""
    before = running.child.cpu_seconds()
    result = load()
    return result, running.child.cpu_seconds() - before


def transfer_measures(drained: Drained, server_cpu: float, threads: int) -> dict[str, float]:
    """Of large answers. `threads` is how many the client had."""
    gib = drained.bytes / GIB
    return {
        "gib_per_second": gib / drained.seconds,
        "server_cpu": server_cpu / gib,
        "client_cpu": drained.cpu_seconds / gib,
        "both_cpu": (server_cpu + drained.cpu_seconds) / gib,
        "client_busy": 100 * drained.cpu_seconds / drained.seconds / threads,
    }


def request_measures(answered: Answered, server_cpu: float) -> dict[str, float]:
    """Of small answers."""
    return {
        "requests_per_second": answered.requests / answered.seconds,
        "p50_ms": answered.p50_ms,
        "p99_ms": answered.p99_ms,
        "server_cpu_us": server_cpu / answered.requests * 1e6,
        "client_cpu_us": answered.cpu_seconds / answered.requests * 1e6,
    }


def counted_measures(answers: int, seconds: float, server_cpu: float, client_cpu: float) -> dict[str, float]:
    """Of answers whose single times nobody took."""
    return {
        "requests_per_second": answers / seconds,
        "server_cpu_us": server_cpu / answers * 1e6,
        "client_cpu_us": client_cpu / answers * 1e6,
    }
