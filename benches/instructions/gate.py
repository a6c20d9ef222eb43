"""Holds the instruction counts of small pieces of the hit path: see `benches/instructions/run`.

A case runs twice under valgrind, with different counts of repetitions. The difference of the two totals, divided by
the difference of the counts, is what one repetition takes: what a start costs cancels out. valgrind's processor has
no SHA extensions, whatever the machine's has, so that hashing is counted as portable code.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

# How far a count may be from the file's, in percent, either way: what became cheaper is to be kept so.
TOLERANCE_PERCENT = 5

# The cases, and how often they are repeated: enough that caches' housekeeping, which comes once in 64 uses or so,
# is spread evenly; first a few repetitions, for everything that happens once.
CASES = {
    "route-blob": (100, 1100),
    "route-manifest": (100, 1100),
    "digest-parse": (100, 1100),
    "digest-write": (100, 1100),
    "digest-of-64-kib": (2, 12),
    "range": (100, 1100),
    "manifest-by-digest": (640, 6400),
    "manifest-by-tag": (640, 6400),
}

HEADER = """# Instructions of one repetition of each case, on x86-64. Written by `benches/instructions/run --update`.
# Counts depend on the compiler: these are of {compiler}.
"""


def main() -> int:
    """Counts, and compares or writes; the exit code."""
    parser = argparse.ArgumentParser(prog="benches/instructions/run")
    parser.add_argument("program", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--update", action="store_true", help="write the counts to the file")
    arguments = parser.parse_args()
    counts = {case: count(arguments.program, case, *repetitions) for case, repetitions in CASES.items()}
    if arguments.update:
        arguments.file.write_text(to_toml(counts))
        print(f"{arguments.file} is written")
        return 0
    kept = tomllib.loads(arguments.file.read_text())["instructions"]
    print(table(counts, kept))
    faults = compare(counts, kept)
    if faults:
        print("\n".join(faults), file=sys.stderr)
        print(f"The counts in {arguments.file} are of {kept_compiler(arguments.file)}; this is {compiler()}.\n"
              "Where a change is meant, `benches/instructions/run --update` writes the file anew; "
              "commit it with the change that explains it.", file=sys.stderr)
    return 1 if faults else 0


def count(program: Path, case: str, few: int, many: int) -> float:
    """Instructions of one repetition."""
    return (total(program, case, many) - total(program, case, few)) / (many - few)


def total(program: Path, case: str, repetitions: int) -> int:
    """Instructions of a whole run, all threads together."""
    result = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program), case, str(repetitions)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        # Nothing of the caller's environment: its size moves the stack, and some of it steers libraries.
        env={"PATH": "/usr/bin:/bin"})
    found = re.search(r"Collected : (\d+)", result.stderr)
    if result.returncode != 0 or not found:
        raise SystemExit(f"valgrind and {case}: exit code {result.returncode}\n{result.stderr}")
    return int(found.group(1))


def compare(counts: dict[str, float], kept: dict[str, float]) -> list[str]:
    """What does not agree, one a line."""
    faults = [f"{case}: in the file, but there is no such case" for case in kept if case not in counts]
    for case, now in counts.items():
        if case not in kept:
            faults.append(f"{case}: not in the file")
        elif abs(percent(now, kept[case])) > TOLERANCE_PERCENT:
            faults.append(f"{case}: {now:,.0f} instructions instead of {kept[case]:,.0f}: "
                          f"{percent(now, kept[case]):+.1f} %, allowed are {TOLERANCE_PERCENT} % either way")
    return faults


def percent(now: float, before: float) -> float:
    """The difference in percent."""
    return (now - before) / before * 100


def table(counts: dict[str, float], kept: dict[str, float]) -> str:
    """The counts for people."""
    lines = [f"{'instructions of':20} {'now':>12} {'in the file':>12}"]
    for case, now in counts.items():
        before = kept.get(case)
        was = f"{before:12,.0f} {percent(now, before):+6.1f} %" if before else f"{'–':>12}"
        lines.append(f"{case:20} {now:12,.0f} {was}")
    return "\n".join(lines)


def to_toml(counts: dict[str, float]) -> str:
    """The file's text."""
    lines = [HEADER.format(compiler=compiler()), "[instructions]"]
    return "\n".join(lines + [f"{case} = {now:.0f}" for case, now in counts.items()]) + "\n"


def kept_compiler(file: Path) -> str:
    """The compiler of the file's counts."""
    found = re.search(r"these are of (.*)\.$", file.read_text(), re.MULTILINE)
    return found.group(1) if found else "an unknown compiler"


def compiler() -> str:
    """The compiler's version."""
    text = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout
    return " ".join(text.split()[:2])


if __name__ == "__main__":
    sys.exit(main())
