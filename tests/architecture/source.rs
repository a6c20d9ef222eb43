//! Sources as tokens: without comments, literals and parts that only tests see.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One source file.
pub(crate) struct Source {
    /// Its path, relative to `src/`.
    pub(crate) path: PathBuf,
    /// The tokens of its production part.
    pub(crate) tokens: Vec<Token>,
    /// How many lines its production part has, comments included.
    pub(crate) production_lines: usize,
}

/// A word or a piece of punctuation, `::` being one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The text.
    pub(crate) text: String,
    /// The line that it stands on, from 1.
    pub(crate) line: usize,
}

impl Source {
    /// Reads all sources of a crate, but those that are modules of tests.
    pub(crate) fn read_all(root: &Path) -> Vec<Self> {
        let mut files = Vec::new();
        collect(root, &mut files);
        files.sort();
        let mut sources = Vec::new();
        let mut of_tests = HashSet::new();
        for file in files {
            let text = fs::read_to_string(&file).expect("a source is readable");
            let (source, test_modules) = Self::parse(file.strip_prefix(root).expect("below the root"), &text);
            of_tests.extend(test_modules);
            sources.push(source);
        }
        sources.retain(|source| {
            !source.path.ancestors().any(|path| of_tests.contains(&path.with_extension("")))
        });
        sources
    }

    /// Reads one source; gives as well the paths, without extension, of its modules that are for tests.
    pub(crate) fn parse(path: &Path, text: &str) -> (Self, Vec<PathBuf>) {
        let mut tokens = tokenize(text);
        let removed = remove_tests(&mut tokens);
        let folder = match path.file_name().and_then(|name| name.to_str()) {
            Some("mod.rs" | "lib.rs" | "main.rs") => path.parent().map(Path::to_owned).unwrap_or_default(),
            _ => path.with_extension(""),
        };
        let modules = removed.modules.into_iter().map(|module| folder.join(module)).collect();
        let production_lines = text.lines().count() - removed.lines;
        (Self { path: path.to_owned(), tokens, production_lines }, modules)
    }

    /// The top-level module that it belongs to; `lib` and `main` for the roots.
    pub(crate) fn module(&self) -> String {
        let first = self.path.iter().next().expect("a path has a first component");
        Path::new(first).file_stem().expect("a file has a name").to_string_lossy().into_owned()
    }

    /// Whether `super` at its top is the crate's root.
    pub(crate) fn is_top(&self) -> bool {
        match self.path.components().count() {
            1 => true,
            2 => self.path.ends_with("mod.rs"),
            _ => false,
        }
    }

    /// The top-level items that `crate::` paths name, and where.
    pub(crate) fn crate_paths(&self) -> Vec<&Token> {
        let mut found = Vec::new();
        for place in self.find(&["crate", "::"]) {
            match self.tokens.get(place + 2) {
                Some(token) if token.text == "{" => found.extend(self.heads_of_group(place + 2)),
                Some(token) => found.push(token),
                None => {}
            }
        }
        found
    }

    /// Where other crates are named: at the head of a path, or alone behind `use`.
    pub(crate) fn names_crate(&self, name: &str) -> Option<&Token> {
        self.tokens.iter().enumerate().find_map(|(place, token)| {
            let before = place.checked_sub(1).map(|before| self.tokens[before].text.as_str());
            let after = self.tokens.get(place + 1).map(|after| after.text.as_str());
            let heads = after == Some("::") || (before == Some("use") && matches!(after, Some(";" | "as")));
            (token.text == name && before != Some("::") && heads).then_some(token)
        })
    }

    /// Where a sequence of tokens starts, each time.
    pub(crate) fn find<'a>(&'a self, sequence: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
        self.tokens
            .windows(sequence.len())
            .enumerate()
            .filter(move |(_, window)| window.iter().zip(sequence).all(|(token, text)| token.text == *text))
            .map(|(place, _)| place)
    }

    /// The first words of the paths in the `{…}` that opens at `open`.
    fn heads_of_group(&self, open: usize) -> Vec<&Token> {
        let mut depth = 0;
        let mut heads = Vec::new();
        for pair in self.tokens[open..].windows(2) {
            match pair[0].text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(pair[0].text.as_str(), "{" | ",") && pair[1].text != "}" {
                heads.push(&pair[1]);
            }
        }
        heads
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Splits a source into tokens; comments and the content of literals are left out.
pub(crate) fn tokenize(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = literal(rest) {
            length
        } else {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            if !first.is_whitespace() {
                tokens.push(Token { text: rest[..length].to_owned(), line });
            }
            length
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of the string or character literal at the front, if there is one.
fn literal(text: &str) -> Option<usize> {
    let prefix = text.len() - text.trim_start_matches(['b', 'c', 'r']).len();
    let (prefix, rest) = if prefix <= 2 { text.split_at(prefix) } else { ("", text) };
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    if prefix.ends_with('r') && rest[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let start = prefix.len() + hashes + 1;
        return Some(text[start..].find(&end).map_or(text.len(), |found| start + found + end.len()));
    }
    if rest.starts_with('"') {
        return Some(prefix.len() + quoted(rest, '"'));
    }
    // A quote with neither escape nor a second quote behind one character begins a lifetime.
    let mut characters = rest.strip_prefix('\'')?.chars();
    let is_character = characters.next()? == '\\' || characters.next()? == '\'';
    is_character.then(|| prefix.len() + quoted(rest, '\''))
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = true;
    for (position, character) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == quote {
            return position + 1;
        }
    }
    text.len()
}

/// What was taken out of a source.
#[derive(Default)]
struct Removed {
    lines: usize,
    /// Modules in files of their own.
    modules: Vec<String>,
}

/// Takes out every item under `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn remove_tests(tokens: &mut Vec<Token>) -> Removed {
    const MARKS: [&[&str]; 2] =
        [&["#", "[", "cfg", "(", "test", ")", "]"], &["#", "[", "cfg", "(", "all", "(", "test", ","]];
    let mut removed = Removed::default();
    let (mut place, mut last_line) = (0, 0);
    while place < tokens.len() {
        let is_mark = |mark: &&[&str]| {
            tokens[place..].len() >= mark.len()
                && tokens[place..].iter().zip(*mark).all(|(token, text)| token.text == *text)
        };
        if !MARKS.iter().any(is_mark) {
            place += 1;
            continue;
        }
        let end = item_end(tokens, place);
        let item: Vec<Token> = tokens.drain(place..end).collect();
        // Two items may share a line.
        let (first, last) = (item[0].line.max(last_line + 1), item[item.len() - 1].line.max(last_line));
        removed.lines += last + 1 - first.min(last + 1);
        last_line = last;
        if let [.., keyword, name, end] = item.as_slice()
            && (keyword.text.as_str(), end.text.as_str()) == ("mod", ";")
        {
            removed.modules.push(name.text.clone());
        }
    }
    removed
}

/// Where the item ends that begins, with its attributes, at `start`.
fn item_end(tokens: &[Token], start: usize) -> usize {
    const ITEMS: [&str; 14] = [
        "fn",
        "mod",
        "impl",
        "struct",
        "enum",
        "trait",
        "const",
        "static",
        "type",
        "async",
        "unsafe",
        "extern",
        "macro_rules",
        "use",
    ];
    let mut place = start;
    while tokens.get(place).is_some_and(|token| token.text == "#") {
        place = closing(tokens, place + 1) + 1;
    }
    let text = |place: usize| tokens.get(place).map_or("", |token| token.text.as_str());
    if text(place) == "pub" {
        place += 1;
        if text(place) == "(" {
            place = closing(tokens, place) + 1;
        }
    }
    let (is_item, is_use) = (ITEMS.contains(&text(place)), text(place) == "use");
    while let Some(token) = tokens.get(place) {
        match token.text.as_str() {
            ";" => return place + 1,
            // A field, an argument or an arm of a match.
            "," if !is_item => return place + 1,
            ")" | "]" | "}" => return place,
            "{" if is_item && !is_use => return closing(tokens, place) + 1,
            "(" | "[" | "{" => place = closing(tokens, place) + 1,
            _ => place += 1,
        }
    }
    tokens.len()
}

/// The place of the bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (place, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return place;
        }
    }
    tokens.len().saturating_sub(1)
}
