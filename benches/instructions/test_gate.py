"""The gate itself: what it lets through, and what not."""

import unittest

from gate import compare, table


class Gate(unittest.TestCase):
    """`compare` and the table that people see."""

    def test_counts_within_five_percent_pass(self) -> None:
        self.assertEqual(compare({"range": 1050.0, "route": 950.0}, {"range": 1000, "route": 1000}), [])

    def test_dearer_and_cheaper_counts_fail(self) -> None:
        faults = compare({"range": 1051.0, "route": 949.0}, {"range": 1000, "route": 1000})
        self.assertEqual(faults, [
            "range: 1,051 instructions instead of 1,000: +5.1 %, allowed are 5 % either way",
            "route: 949 instructions instead of 1,000: -5.1 %, allowed are 5 % either way",
        ])

    def test_cases_and_file_must_name_the_same(self) -> None:
        faults = compare({"new": 1.0}, {"old": 1})
        self.assertEqual(faults, ["old: in the file, but there is no such case", "new: not in the file"])

    def test_the_table_shows_a_case_that_is_not_in_the_file(self) -> None:
        self.assertIn("–", table({"new": 1.0}, {}))


if __name__ == "__main__":
    unittest.main()
