"""Measures Tidegate beside its peers: `benches/run`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import options, report, sections, summary
from .bench import Bench, prepare
from .options import Binary
from .processes import Stopped
from .rows import hits
from .rows.catalogue import Catalogue
from .rows.cold import Cold
from .rows.crowd import Crowd
from .rows.memory import Memory
from .rows.plan import Plan
from .rows.push import Push
from .rows.start import Start

REPOSITORY = Path(__file__).resolve().parents[2]

# What the files, three disk caches and logs take, in bytes.
ROOM_BYTES = 8 << 30


def main() -> int:
    """Runs what the arguments ask for; the exit code."""
    asked = options.parse(sys.argv[1:], REPOSITORY)
    # A TERM unwinds like Ctrl-C, so that every child ends and every file goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    binaries = asked.binaries or [build()]
    directory = Path(tempfile.mkdtemp(prefix="tidegate-bench-", dir=asked.directory))
    try:
        require_room(directory)
        run(prepare(asked, binaries, directory))
    except Stopped as problem:
        print(f"benches/run: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def run(bench: Bench) -> None:
    """Measures, prints and keeps the tables."""
    groups = []
    for plan in all_plans(bench):
        try:
            run_rounds(plan)
        except BaseException:
            # What was measured so far took long.
            print(report.write(bench, groups))
            raise
        groups += plan.groups()
    text = report.write(bench, groups)
    print(text)
    if bench.options.output:
        sections.write_beside(bench.options.output, text)
    if bench.options.is_full:
        summary.write_into(REPOSITORY / "README.md", summary.table(groups, bench.servers[0].title))


def run_rounds(plan: Plan) -> None:
    """Measures one plan."""
    names = ", ".join(group.key for group in plan.groups())
    for number in range(1, plan.rounds + 1):
        started = time.monotonic()
        plan.run_round()
        print(f"{names}: round {number} of {plan.rounds}, {time.monotonic() - started:.0f} s",
              file=sys.stderr, flush=True)


def all_plans(bench: Bench) -> list[Plan]:
    """The plans of the groups that are asked for, in the order of the tables."""
    others = {"cold": Cold, "crowd": Crowd, "memory": Memory, "push": Push, "catalogue": Catalogue,
              "start": Start}
    return hits.plans(bench) + [plan(bench) for key, plan in others.items() if key in bench.options.groups]


def build() -> Binary:
    """Builds this working tree."""
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=REPOSITORY, check=True)
    target = cargo_target_directory()
    return Binary("Tidegate", target / "release" / "tidegate")


def cargo_target_directory() -> Path:
    """Where cargo puts what it builds."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or json.loads(subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--no-deps", "--offline"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout)["target_directory"])


def require_room(directory: Path) -> None:
    """Stops where the disk is too small."""
    free = shutil.disk_usage(directory).free
    if free < ROOM_BYTES:
        raise Stopped(f"{directory}: {ROOM_BYTES >> 30} GiB are needed, {free >> 30} are free; use --directory")


if __name__ == "__main__":
    sys.exit(main())
