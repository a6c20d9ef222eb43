"""wrk: how many small answers a second, and how long the slow ones take."""

import re
from pathlib import Path

from ..content import MANIFEST_TYPE, Item
from ..processes import Stopped, run_load
from ..servers.server import Running
from .ciphers import environment_with_one_cipher
from .requests import Requests

MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def run(running: Running, item: Item, connections: int, seconds: float, threads: int,
        script: Path | None = None) -> Requests:
    """Asks for an item again and again, or for what a script says; every answer must be a success."""
    scheme = "https" if running.tls else "http"
    output, cpu_seconds = run_load(
        ["wrk", "--latency", "--timeout", "10s", "-t", str(threads), "-c", str(connections),
         "-d", f"{max(1, round(seconds))}s", "-H", f"Accept: {MANIFEST_TYPE}",
         *(["-s", str(script)] if script else []),
         f"{scheme}://127.0.0.1:{running.port}{item.path}"],
        environment_with_one_cipher())
    if "Non-2xx" in output or "Socket errors" in output:
        raise Stopped(f"wrk met errors:\n{output}")
    count, taken = re.search(r"(\d+) requests in ([0-9.]+)s", output).groups()
    return Requests(int(count), float(taken), cpu_seconds, percentile(output, 50), percentile(output, 99))


def percentile(output: str, percent: int) -> float:
    """A line of the latency distribution, in milliseconds."""
    number, unit = re.search(rf"^ *{percent}% +([0-9.]+)(us|ms|s|m)$", output, re.MULTILINE).groups()
    return float(number) * MILLISECONDS[unit]
