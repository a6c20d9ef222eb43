"""The text of the results."""

from . import machine
from .bench import Bench
from .options import GROUPS, Options
from .results import Group

INTRODUCTION = """# Benchmark results

Written by `benches/run`{how}. Numbers are medians over the rounds; "/ nginx" is the median of the
ratios to nginx within each round. Compare within one table: between runs, and between machines, everything
moves.
"""


def write(bench: Bench, groups: list[Group]) -> str:
    """Introduction, machine, tables."""
    sections = [INTRODUCTION.format(how=how(bench.options)), "## Machine and set-up\n", machine.describe(bench),
                "## Results\n"]
    return "\n".join(sections + [group.table() for group in groups])


def how(options: Options) -> str:
    """What a run left out."""
    if options.quick:
        return " (`--quick`: a smoke test, not a measurement)"
    if options.groups != list(GROUPS):
        return f" (only {', '.join(options.groups)})"
    return ""
