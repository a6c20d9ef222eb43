"""What was measured, and the Markdown tables of it."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

# A measure that a server has no value for.
NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """A measure of a table."""

    # Its name in the values of a row.
    measure: str
    heading: str
    format: Callable[[float], str]
    # The servers to whose value of the same round ratios are given.
    ratio_to: tuple[str, ...] = ()


@dataclass
class Group:
    """A table: rows, each measured for several servers over several rounds."""

    key: str
    title: str
    note: str
    columns: list[Column]
    # row -> server -> one dictionary of measures a round
    values: dict[str, dict[str, list[dict[str, float]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def record(self, row: str, server: str, measures: dict[str, float]) -> None:
        """Notes what one round gave."""
        self.values[row][server].append(measures)

    def table(self) -> str:
        """The Markdown text: medians over the rounds; ratios are medians of the ratios within a round."""
        lines = [f"### {self.title}", "", self.note, ""] if self.note else [f"### {self.title}", ""]
        headings = ["", "server"]
        for column in self.columns:
            headings.append(column.heading)
            headings.extend(f"/ {server}" for server in column.ratio_to)
        lines.append(line(headings))
        lines.append(line(["---", "---"] + ["--:"] * (len(headings) - 2)))
        for row, servers in self.values.items():
            for server, rounds in servers.items():
                lines.append(line([row, server, *self.cells(servers, rounds)]))
                row = ""
        return "\n".join(lines) + "\n"

    def medians(self, measure: str) -> list[tuple[float, str]]:
        """Each line's median of a measure, with the line's name."""
        return [(median(own), f"{self.title}, {row}, {server}")
                for row, servers in self.values.items() for server, rounds in servers.items()
                if (own := [measures[measure] for measures in rounds if measure in measures])]

    def cell(self, row: str, server: str, measure: str, peer: str) -> tuple[str, str]:
        """One number and its ratio to a peer's."""
        servers = self.values.get(row, {})
        own = servers.get(server, [])
        column = next(column for column in self.columns if column.measure == measure)
        found = [measures[measure] for measures in own if measure in measures]
        number = column.format(median(found)) if found else NOTHING
        return number, ratio(measure, own, servers.get(peer, []))

    def cells(self, servers: dict[str, list[dict[str, float]]], rounds: list[dict[str, float]]) -> list[str]:
        """The numbers of one line."""
        cells = []
        for column in self.columns:
            found = [measures[column.measure] for measures in rounds if column.measure in measures]
            cells.append(column.format(median(found)) if found else NOTHING)
            for other in column.ratio_to:
                cells.append(ratio(column.measure, rounds, servers.get(other, [])))
        return cells


def ratio(measure: str, rounds: list[dict[str, float]], others: list[dict[str, float]]) -> str:
    """The median of the ratios within each round."""
    ratios = [own[measure] / other[measure] for own, other in zip(rounds, others)
              if measure in own and other.get(measure)]
    return f"{median(ratios):.2f}" if ratios else NOTHING


def line(cells: list[str]) -> str:
    """One line of a table."""
    return "| " + " | ".join(cells) + " |"


def decimals(count: int) -> Callable[[float], str]:
    """Formats with so many decimals, and separated thousands."""
    return lambda value: f"{value:,.{count}f}"
