"""The text of the results."""

from . import machine, summary
from .bench import Bench
from .options import GROUPS, Options
from .results import Group

INTRODUCTION = """# Benchmark results

Written by `benches/run`{how}.

Numbers are medians over the rounds; "/ nginx" is the median of the ratios to nginx within each round. Compare within
one table: between runs, and between machines, everything moves.
"""

LOAD = """## Is the load generator the limit?

A generator must wait for the server, not the server for it. "Client busy" is the generator's CPU time as a share of
what its threads could have had; the sum of both sides' CPU time is what a machine with all of it on board pays. The
fastest server of a table shows what the same generator can take with the same row.

- `drain` (`benches/comparison/loads/drain.c`) has plain bodies dropped inside the kernel, where they lie. Over TLS it
  decrypts, with a thread for each core; a single connection has one.
- wrk and h2load have a thread for each core.
- Part of a sendfile server's work on loopback is done in the context of the client that receives: compare sums.

{busy}
"""

# From here on a row says more about the generator than about the server, in percent.
BUSY = 85


def write(bench: Bench, groups: list[Group]) -> str:
    """Introduction, machine, summary, load generators, tables."""
    sections = [INTRODUCTION.format(how=how(bench.options)), "## Machine and set-up\n", machine.describe(bench),
                "## Summary\n", summary.table(groups, bench.servers[0].title), LOAD.format(busy=busy_rows(groups)), "## Results\n"]
    return "\n".join(sections + [group.table() for group in groups])


def how(options: Options) -> str:
    """What a run left out."""
    notes = ["a smoke test, not a measurement"] if options.quick else []
    if options.groups != list(GROUPS):
        notes.append(f"only {', '.join(options.groups)}")
    return f" ({'; '.join(notes)})" if notes else ""


def busy_rows(groups: list[Group]) -> str:
    """Names the rows in which the generator may have been the limit."""
    shares = [(share, name) for group in groups for share, name in group.medians("client_busy")]
    if not shares:
        return ""
    busy = [f"{name} ({share:.0f} %)" for share, name in shares if share >= BUSY]
    if not busy:
        return f"In this run no generator was busy for more than {max(shares)[0]:.0f} % of its time."
    return f"In this run the generator may have been the limit (busy for {BUSY} % or more) of: {'; '.join(busy)}."
