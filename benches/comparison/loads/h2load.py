"""h2load: HTTP/2 over TLS."""

import re
from dataclasses import dataclass

from ..content import MANIFEST_TYPE, Item
from ..processes import Stopped, run_load
from ..servers.server import Running
from .ciphers import environment_with_one_cipher

# Flow control windows of 2^24 - 1 bytes: the client never holds the server back.
WINDOW_BITS = "24"


@dataclass(frozen=True)
class Answered:
    """What came, as h2load says."""

    requests: int
    bytes: int
    seconds: float
    cpu_seconds: float


def run(running: Running, item: Item, connections: int, streams: int, requests: int, threads: int) -> Answered:
    """Asks for an item `requests` times in all, with so many streams at once on each connection."""
    output, cpu_seconds = run_load(
        ["h2load", "--npn-list=h2", "-w", WINDOW_BITS, "-W", WINDOW_BITS, "-t", str(min(threads, connections)),
         "-c", str(connections), "-m", str(streams), "-n", str(requests), "-H", f"accept: {MANIFEST_TYPE}",
         f"https://127.0.0.1:{running.port}{item.path}"],
        environment_with_one_cipher())
    if f"{requests} 2xx" not in output or "Application protocol: h2" not in output:
        raise Stopped(f"h2load met errors:\n{output}")
    seconds, unit = re.search(r"finished in ([0-9.]+)(us|ms|s)", output).groups()
    scale = {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]
    return Answered(requests, requests * item.size_bytes, float(seconds) * scale, cpu_seconds)
