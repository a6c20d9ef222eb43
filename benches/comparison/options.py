"""What is asked of a run: the arguments of `benches/run`."""

import argparse
from dataclasses import dataclass
from pathlib import Path

GROUPS = {
    "hit": "a cached 1 GiB blob with 1, 8 and 64 connections",
    "blobs": "cached blobs of 1 MiB and 4 KiB",
    "manifest": "a cached manifest by digest and by tag",
    "tls-hit": "as hit, over TLS 1.3",
    "tls-blobs": "as blobs, over TLS 1.3",
    "tls-manifest": "as manifest, over TLS 1.3",
    "http2-hit": "cached blobs over HTTP/2 and TLS 1.3",
    "http2-manifest": "a cached manifest over HTTP/2 and TLS 1.3",
    "cold": "a blob that no cache has yet, upstream fast and slow",
    "crowd": "32 and 200 clients on one blob that no cache has yet, upstream fast and slow",
    "memory": "resident memory: idle, and with 1,000 slow and 1,000 idle connections",
    "push": "images pushed to Tidegate and to docker-registry, also while others pull",
    "catalogue": "a hosted repository with 1,000,000 manifests and 100,000 tags",
    "start": "start to ready: empty, and with 100,000 cached blobs",
}

# How many rounds the kept results are made of at least.
ROUNDS = 5

SERVERS = ["nginx", "nginx-cache", "docker-registry", "varnish"]


@dataclass(frozen=True)
class Binary:
    """A build of Tidegate, and what the tables call it."""

    name: str
    path: Path


@dataclass(frozen=True)
class Options:
    """The arguments, checked."""

    binaries: list[Binary]
    groups: list[str]
    peers: list[str]
    rounds: int
    seconds: float
    quick: bool
    directory: Path | None
    output: Path | None
    # Whether nothing was left out: the results that the project keeps.
    is_full: bool


def parse(arguments: list[str], repository: Path) -> Options:
    """Reads the arguments; ends the program with a message where they are wrong."""
    parser = argparse.ArgumentParser(prog="benches/run", description="Measures Tidegate beside its peers.", epilog=epilog(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", action="append", metavar="[NAME=]PATH", default=[],
                        help="a release build to measure; several are measured beside each other "
                             "(default: build this working tree)")
    parser.add_argument("--only", metavar="GROUP,…", help="only these groups; tls stands for all tls-…, http2 likewise")
    parser.add_argument("--servers", metavar="NAME,…", help=f"only these peers, of {', '.join(SERVERS)}; "
                                                             "nginx is always there, for the ratios")
    parser.add_argument("--rounds", type=int, help="rounds, of which the median counts "
                                                   f"({ROUNDS}; with --quick 1)")
    parser.add_argument("--seconds", type=float, help="seconds for each row of a round (2; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="one short round: a smoke test")
    parser.add_argument("--directory", type=Path, help="where temporary files go (default: $TMPDIR or /tmp)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the file for the results "
                        "(default: benches/RESULTS.md, and the README for the summary, "
                        f"where all groups and servers are measured in {ROUNDS} rounds or more)")
    values = parser.parse_args(arguments)
    rounds = values.rounds or (1 if values.quick else ROUNDS)
    is_full = (rounds >= ROUNDS and len(values.binary) < 2
               and not (values.only or values.servers or values.quick))
    output = values.output or (repository / "benches" / "RESULTS.md" if is_full else None)
    return Options(
        binaries=[read_binary(text, index, parser) for index, text in enumerate(values.binary)],
        groups=select_groups(values.only, parser),
        peers=select_peers(values.servers, parser),
        rounds=rounds,
        seconds=values.seconds or (1.0 if values.quick else 2.0),
        quick=values.quick,
        directory=values.directory,
        output=output,
        is_full=is_full,
    )


def epilog() -> str:
    """The groups, one a line."""
    return "groups:\n" + "\n".join(f"  {name:15} {text}" for name, text in GROUPS.items())


def read_binary(text: str, index: int, parser: argparse.ArgumentParser) -> Binary:
    """Reads `[NAME=]PATH`."""
    name, separator, path = text.rpartition("=")
    file = Path(path).resolve()
    if not file.is_file():
        parser.error(f"--binary: there is no {file}")
    if separator:
        return Binary(f"Tidegate ({name})", file)
    return Binary("Tidegate" if index == 0 else f"Tidegate ({index + 1})", file)


def select_groups(text: str | None, parser: argparse.ArgumentParser) -> list[str]:
    """The groups that are asked for, in the order of the tables."""
    if text is None:
        return list(GROUPS)
    asked = text.split(",")
    for name in asked:
        if not any(matches(group, name) for group in GROUPS):
            parser.error(f"--only: there is no group {name}")
    return [group for group in GROUPS if any(matches(group, name) for name in asked)]


def matches(group: str, name: str) -> bool:
    """Whether `name` stands for the group."""
    return group == name or group.startswith(name + "-")


def select_peers(text: str | None, parser: argparse.ArgumentParser) -> list[str]:
    """The peers that are asked for."""
    if text is None:
        return SERVERS
    asked = set(text.split(",")) - {"tidegate"}
    if not asked <= set(SERVERS):
        parser.error(f"--servers: there is no {', '.join(asked - set(SERVERS))}")
    return [name for name in SERVERS if name in asked or name == "nginx"]
