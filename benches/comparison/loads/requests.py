"""What a load of many small questions gave."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Requests:
    """Whole answers, all of them right."""

    count: int
    seconds: float
    # CPU time of the load generator.
    cpu_seconds: float
    # Times from question to the end of the answer, where the generator takes them.
    p50_ms: float | None = None
    p99_ms: float | None = None
