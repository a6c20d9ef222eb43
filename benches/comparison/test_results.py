"""The tables: medians and ratios."""

import tempfile
import unittest
from pathlib import Path

from . import sections, summary
from .loads.h2load import percentile_ms
from .loads.wrk import percentile
from .results import Column, Group, decimals
from .rows.measures import REQUEST_COLUMNS


def group_of(columns: list[Column]) -> Group:
    """An empty table."""
    return Group("key", "Title", "Note.", columns)


class Tables(unittest.TestCase):
    """What a group of rows prints."""

    def test_numbers_are_medians_and_ratios_are_medians_of_the_ratios_in_a_round(self) -> None:
        group = group_of([Column("rate", "rate", decimals(1), ("nginx",))])
        # The second round was slow for both: the ratio of the medians would be 1.5.
        for ours, theirs in ((30.0, 20.0), (12.0, 4.0), (21.0, 10.0)):
            group.record("row", "Tidegate", {"rate": ours})
            group.record("row", "nginx", {"rate": theirs})
        lines = group.table().splitlines()
        self.assertEqual(lines[4], "|  | server | rate | / nginx |")
        self.assertEqual(lines[6], "| row | Tidegate | 21.0 | 2.10 |")
        self.assertEqual(lines[7], "|  | nginx | 10.0 | 1.00 |")

    def test_what_was_not_measured_has_a_dash(self) -> None:
        group = group_of([Column("rate", "rate", decimals(0), ("nginx",))])
        group.record("row", "Tidegate", {})
        self.assertEqual(group.table().splitlines()[6], "| row | Tidegate | – | – |")

    def test_the_summary_joins_rows_and_leaves_out_tables_that_were_not_measured(self) -> None:
        group = Group("manifest", "Title", "", REQUEST_COLUMNS)
        for row, ours, theirs in (("by digest", 50_000, 40_000), ("by tag", 30_000, 40_000)):
            group.record(row, "Tidegate", {"requests_per_second": ours, "p99_ms": 2})
            group.record(row, "nginx", {"requests_per_second": theirs, "p99_ms": 4})
        self.assertEqual(summary.table([group], "Tidegate").splitlines()[2:], [
            "| manifest hit by digest / by tag, requests/s | 50,000 / 30,000 | 1.25 / 0.75 | nginx |",
            "| the same, p99 in ms | 2.00 / 2.00 | 0.50 / 0.50 | nginx |",
        ])

    def test_the_summary_replaces_what_stands_between_its_marks(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "README.md"
            file.write_text(f"before\n{summary.BEGIN}\nold\n{summary.END}\nafter\n")
            summary.write_into(file, "new\n")
            self.assertEqual(file.read_text(), f"before\n{summary.BEGIN}\n\nnew\n\n{summary.END}\nafter\n")

    def test_new_results_leave_the_section_of_others_as_it_is(self) -> None:
        section = f"\n{sections.BEGIN}\n\n## Eviction\n\n{sections.END}\n"
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "RESULTS.md"
            sections.write_beside(file, "old\n")
            self.assertEqual(file.read_text(), "old\n")
            file.write_text(f"old\n{section}")
            sections.write_beside(file, "new\n")
            self.assertEqual(file.read_text(), f"new\n{section}")


class Loads(unittest.TestCase):
    """What is read from the output of load generators."""

    def test_wrk_times_are_milliseconds_whatever_the_unit(self) -> None:
        output = "  Latency Distribution\n     50%  850.00us\n     99%    1.20s\n"
        self.assertEqual((percentile(output, 50), percentile(output, 99)), (0.85, 1200.0))

    def test_a_percentile_is_one_of_the_times(self) -> None:
        self.assertEqual((percentile_ms([1000, 2000, 9000], 50), percentile_ms([1000], 99)), (2.0, 1.0))


if __name__ == "__main__":
    unittest.main()
