"""h2load: HTTP/2 over TLS."""

import re
import tempfile
from pathlib import Path

from ..content import MANIFEST_TYPE, Item
from ..processes import Stopped, run_load
from ..servers.server import Running
from .ciphers import environment_with_one_cipher
from .requests import Requests

# Flow control windows of 2^24 - 1 bytes: the client never holds the server back.
WINDOW_BITS = "24"

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def run_count(running: Running, item: Item, connections: int, count: int, threads: int) -> Requests:
    """Asks for an item `count` times in all, one after the other on each connection."""
    output, cpu_seconds = run(running, item, "-c", connections, "-n", count, "-t", min(threads, connections))
    seconds, unit = re.search(r"^finished in ([0-9.]+)(us|ms|s),", output, re.MULTILINE).groups()
    return Requests(succeeded(output), float(seconds) * SECONDS[unit], cpu_seconds)


def run_seconds(running: Running, item: Item, connections: int, streams: int, seconds: float,
                threads: int) -> Requests:
    """Asks for an item again and again, with so many streams at once on each connection."""
    duration = max(1, round(seconds))
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        log = Path(directory) / "log"
        output, cpu_seconds = run(running, item, "-c", connections, "-m", streams, "-D", duration,
                                  "-t", min(threads, connections), f"--log-file={log}")
        # Lines of start, status, and duration in microseconds.
        times_us = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    return Requests(succeeded(output), duration, cpu_seconds,
                    percentile_ms(times_us, 50), percentile_ms(times_us, 99))


def run(running: Running, item: Item, *arguments: object) -> tuple[str, float]:
    """Runs it to its end: its output and CPU seconds."""
    return run_load(
        ["h2load", "--npn-list=h2", "-w", WINDOW_BITS, "-W", WINDOW_BITS, "-H", f"accept: {MANIFEST_TYPE}",
         *map(str, arguments), f"https://127.0.0.1:{running.port}{item.path}"],
        environment_with_one_cipher())


def succeeded(output: str) -> int:
    """How many answers came; every one must be a success, over HTTP/2."""
    counts = re.search(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", output, re.MULTILINE)
    statuses = re.search(r"^status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", output, re.MULTILINE)
    if not (counts and statuses and "Application protocol: h2" in output and counts.group(2, 3) == ("0", "0")):
        raise Stopped(f"h2load met errors:\n{output}")
    return int(counts.group(1))


def percentile_ms(sorted_us: list[int], percent: int) -> float:
    """A percentile of times in microseconds, in milliseconds."""
    return sorted_us[(len(sorted_us) - 1) * percent // 100] / 1000
