"""What every kind of measurement offers to the program."""

from abc import ABC, abstractmethod

from ..bench import Bench
from ..results import Group


class Plan(ABC):
    """Measurements that share their servers' starts."""

    def __init__(self, bench: Bench):
        """Measures with what `bench` has."""
        self.bench = bench

    @property
    def rounds(self) -> int:
        """How many rounds count."""
        return self.bench.options.rounds

    @abstractmethod
    def groups(self) -> list[Group]:
        """The tables that it fills."""

    @abstractmethod
    def run_round(self) -> None:
        """Measures every row once for every server, one server after the other."""
