//! Tables for people.

use std::fmt;

use serde_json::Value;

/// Rows of `N` cells below a heading; the columns are as wide as they have to be.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with these headings.
    pub(super) fn new(headings: &[&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned)] }
    }

    /// Whether there is nothing below the headings.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// Adds a row at the end.
    pub(super) fn add(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..N).map(width).collect();
        for row in &self.rows {
            let padded = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            writeln!(f, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A number of the API; `?` where it says none.
pub(super) fn count(value: &Value) -> String {
    value.as_u64().map_or_else(|| "?".to_owned(), |number| number.to_string())
}

/// A number of bytes of the API, in a unit that makes it short; `?` where it says none.
pub(super) fn size(value: &Value) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let Some(bytes) = value.as_u64() else { return "?".to_owned() };
    let mut unit = "B";
    // Tenths: no number that people read needs more.
    let mut tenths = u128::from(bytes) * 10;
    for larger in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let mut table = Table::new(&["A", "NAME"]);
        table.add(["é long".to_owned(), "x".to_owned()]);
        table.add(["b".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "A       NAME\né long  x\nb\n");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (50 << 30, "50.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(&bytes.into()), text);
        }
        assert_eq!((size(&Value::Null), count(&Value::Null)), ("?".to_owned(), "?".to_owned()));
    }
}
