"""The tables: medians and ratios."""

import unittest

from .loads.h2load import percentile_ms
from .loads.wrk import percentile
from .results import Column, Group, decimals


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


class Loads(unittest.TestCase):
    """What is read from the output of load generators."""

    def test_wrk_times_are_milliseconds_whatever_the_unit(self) -> None:
        output = "  Latency Distribution\n     50%  850.00us\n     99%    1.20s\n"
        self.assertEqual((percentile(output, 50), percentile(output, 99)), (0.85, 1200.0))

    def test_a_percentile_is_one_of_the_times(self) -> None:
        self.assertEqual((percentile_ms([1000, 2000, 9000], 50), percentile_ms([1000], 99)), (2.0, 1.0))


if __name__ == "__main__":
    unittest.main()
