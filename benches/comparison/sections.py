"""Sections of the file of results that are not the comparison's."""

from pathlib import Path

# The marks that `benches/eviction/src/section.rs` puts around its section.
BEGIN, END = "<!-- eviction: written by benches/eviction/run -->", "<!-- /eviction -->"


def write_beside(file: Path, text: str) -> None:
    """Writes the text, with the section of others that the file had behind it."""
    file.write_text(text + kept(file.read_text() if file.exists() else ""))


def kept(old: str) -> str:
    """The section of others, with its marks; nothing where there is none."""
    _, begin, rest = old.partition(BEGIN)
    section, end, _ = rest.partition(END)
    return f"\n{begin}{section}{end}\n" if end else ""
