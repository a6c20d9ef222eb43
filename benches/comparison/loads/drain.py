"""`drain.c`: takes large answers at the least cost to the machine."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..content import MANIFEST_TYPE, Item
from ..processes import Stopped, raise_limits, run_load
from ..servers.server import Running

SOURCE = Path(__file__).with_name("drain.c")


@dataclass(frozen=True)
class Drained:
    """What came."""

    bytes: int
    answers: int
    seconds: float
    # CPU time of the client, without its connecting.
    cpu_seconds: float
    # From the first question to the first byte of the body, of the client that waited longest.
    largest_first_byte_seconds: float
    # From the first question to the end of the last answer.
    last_byte_seconds: float


class Drain:
    """The compiled client."""

    def __init__(self, directory: Path):
        """Compiles it into `directory`."""
        self.program = directory / "drain"
        subprocess.run(["cc", "-O2", "-o", str(self.program), str(SOURCE), "-lssl", "-lcrypto", "-lpthread"],
                       check=True)

    def for_seconds(self, running: Running, item: Item, connections: int, seconds: float, threads: int) -> Drained:
        """Asks for an item again and again."""
        return self.run(running.port, item, running.tls,
                        "--connections", connections, "--seconds", seconds, "--threads", threads)

    def once_each(self, port: int, item: Item, connections: int = 1, tls: bool = False) -> Drained:
        """Asks for an item once on every connection, all at the same time."""
        return self.run(port, item, tls, "--connections", connections, "--requests", 1)

    def run(self, port: int, item: Item, tls: bool, *arguments: object) -> Drained:
        """Runs it to its end."""
        output, _ = run_load(self.command(port, item, tls, *arguments))
        return Drained(**json.loads(output))

    @contextmanager
    def holding(self, running: Running, item: Item, slow: int, idle: int, idle_item: Item) -> Iterator[None]:
        """Keeps `slow` readers of an item and `idle` connections open."""
        command = self.command(running.port, item, running.tls, "--hold", "--connections", slow,
                               "--idle", idle, "--idle-path", idle_item.path)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              preexec_fn=raise_limits) as client:
            try:
                if client.stdout.readline() != "holding\n":
                    raise Stopped("the slow readers did not get their connections")
                yield
            finally:
                # The end of its input ends it.
                client.stdin.close()

    def command(self, port: int, item: Item, tls: bool, *arguments: object) -> list[str]:
        """The command line."""
        flags = ["--tls"] if tls else []
        return [str(self.program), "--port", str(port), "--path", item.path,
                "--header", f"Accept: {MANIFEST_TYPE}", *flags, *map(str, arguments)]
