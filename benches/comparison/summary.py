"""The few numbers that the README shows."""

from dataclasses import dataclass
from pathlib import Path

from .results import NOTHING, Group

BEGIN, END = "<!-- written by benches/run: begin -->", "<!-- end -->"

CONNECTIONS = ("1 connection", "8 connections", "64 connections")


@dataclass(frozen=True)
class Line:
    """One line: a measure of one or several rows of a table."""

    label: str
    group: str
    rows: tuple[str, ...]
    measure: str
    # To whom the ratios are.
    peer: str = "nginx"


LINES = [
    Line("1 GiB hit, 1 / 8 / 64 connections, GiB/s", "hit", CONNECTIONS, "gib_per_second"),
    Line("the same, server CPU seconds per GiB", "hit", CONNECTIONS, "server_cpu"),
    Line("1 GiB hit over TLS 1.3, 1 / 8 / 64 connections, GiB/s", "tls-hit", CONNECTIONS, "gib_per_second"),
    Line("1 MiB / 4 KiB blob hit, requests/s", "blobs", ("1 MiB", "4 KiB"), "requests_per_second"),
    Line("manifest hit by digest / by tag, requests/s", "manifest", ("by digest", "by tag"), "requests_per_second"),
    Line("the same, p99 in ms", "manifest", ("by digest", "by tag"), "p99_ms"),
    Line("1 GiB miss, seconds", "cold", ("1 GiB",), "seconds", "nginx cache"),
    Line("128 MiB miss, upstream limited to 32 MiB/s, seconds", "cold", ("128 MiB, limited",), "seconds", "direct"),
    Line("32 / 200 clients, one 128 MiB miss, worst client, seconds", "crowd", ("32 clients", "200 clients"),
         "worst_seconds", "varnish"),
    Line("resident memory idle, MiB", "memory", ("",), "idle"),
    Line("resident memory with 2,000 connections, MiB", "memory", ("",), "held"),
    Line("start to ready, empty / 100,000 blobs, ms", "start", ("empty", "100,000 blobs"), "ready_ms"),
]


def table(groups: list[Group], server: str) -> str:
    """The lines of those tables that there are, for one server."""
    known = {group.key: group for group in groups}
    text = [f"| measure | {server} | ratio | to |", "| --- | --: | --: | --- |"]
    for line in LINES:
        if line.group in known:
            cells = [known[line.group].cell(row, server, line.measure, line.peer) for row in line.rows]
            numbers, ratios = zip(*cells)
            peer = NOTHING if set(ratios) == {NOTHING} else line.peer
            text.append(f"| {line.label} | {' / '.join(numbers)} | {' / '.join(ratios)} | {peer} |")
    return "\n".join(text) + "\n"


def write_into(file: Path, text: str) -> None:
    """Replaces what stands between the marks."""
    before, _, rest = file.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    file.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
