"""What the numbers were measured on."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from .bench import Bench


def describe(bench: Bench) -> str:
    """A list in Markdown: machine, versions, how each server was set up."""
    lines = [
        f"- {datetime.now(UTC):%Y-%m-%d}; rounds: {bench.options.rounds}, of {bench.options.seconds:g} s"
        " for each row of hits",
        f"- {cpu_model()}, {os.cpu_count()} cores, {memory_gib():.0f} GiB of memory,"
        f" {virtualization()}, Linux {platform.release()}, {distribution()}",
        "- load generators, servers and upstream on this one machine, over loopback",
        f"- {tool_versions()}",
    ]
    lines += [f"- **{server.title}** {server.version()}: {server.setup}" for server in bench.servers]
    return "\n".join(lines) + "\n"


def cpu_model() -> str:
    """The processor's name."""
    return field_of(Path("/proc/cpuinfo"), "model name")


def memory_gib() -> float:
    """The machine's memory."""
    return int(field_of(Path("/proc/meminfo"), "MemTotal").split()[0]) / (1 << 20)


def virtualization() -> str:
    """Whether the machine is a virtual one."""
    return "virtual" if "hypervisor" in field_of(Path("/proc/cpuinfo"), "flags").split() else "not virtual"


def distribution() -> str:
    """The operating system's name."""
    return platform.freedesktop_os_release().get("PRETTY_NAME", "an unknown distribution")


def field_of(file: Path, name: str) -> str:
    """The first `name: value` of a file in /proc."""
    for line in file.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def tool_versions() -> str:
    """The versions of load generators and compilers."""
    wrk = first_line(["wrk", "-v"]).split(" [")[0]
    return ", ".join([wrk, first_line(["h2load", "--version"]), first_line(["openssl", "version"]).split(" (")[0],
                      first_line(["rustc", "--version"])])


def first_line(command: list[str]) -> str:
    """What a program says first; what is missing has no version."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"no {command[0]}"
    return (result.stdout + result.stderr).splitlines()[0]
