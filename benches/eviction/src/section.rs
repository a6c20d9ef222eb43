//! The section of a Markdown file that is this program's; the rest is others'.

use std::path::Path;

use anyhow::Context as _;

/// Replaces the section in a file, or puts it at the end of one that has none.
pub(crate) fn write_into(path: &Path, text: &str) -> anyhow::Result<()> {
    let before = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("read {}", path.display()))?,
    };
    std::fs::write(path, replace(&before, text)).with_context(|| format!("write {}", path.display()))
}

/// Prints the section.
#[expect(clippy::print_stdout, reason = "it was asked for")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}

fn replace(file: &str, text: &str) -> String {
    let (before, rest) = file.split_once(BEGIN).unwrap_or((file, ""));
    let after = rest.split_once(END).map_or("\n", |(_, after)| after);
    let gap = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    format!("{before}{gap}{BEGIN}\n\n{text}\n{END}{after}")
}

/// The marks around the section; `benches/comparison/sections.py` keeps what stands between them.
const BEGIN: &str = "<!-- eviction: written by benches/eviction/run -->";
const END: &str = "<!-- /eviction -->";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_is_replaced_and_the_rest_stays() {
        let first = replace("# Results\n", "one");
        assert_eq!(first, format!("# Results\n\n{BEGIN}\n\none\n{END}\n"));
        assert_eq!(replace(&first, "two"), format!("# Results\n\n{BEGIN}\n\ntwo\n{END}\n"));
        let between = first.replace(&format!("{END}\n"), &format!("{END}\n\n## More\n"));
        assert_eq!(replace(&between, "one"), between);
    }
}
