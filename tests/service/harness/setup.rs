//! How a server is set up: its configuration file, and what its log may say.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::Tidegate;
use crate::upstream::{RawServer, Upstream, write_file};

/// A configuration in the making.
#[derive(Default)]
pub(crate) struct Setup {
    server: Vec<String>,
    storage: Vec<String>,
    site: Vec<String>,
    sections: Vec<Section>,
    more: String,
    data: Option<PathBuf>,
    listen: Option<String>,
    files: Vec<(String, String)>,
    variables: Vec<(String, PathBuf)>,
    warnings: bool,
    expected: Vec<String>,
}

/// One `[[upstream]]`.
#[derive(Clone)]
pub(crate) struct Section {
    name: String,
    endpoints: Vec<String>,
    lines: Vec<(String, String)>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn upstream(mut self, section: Section) -> Self {
        self.sections.push(section);
        self
    }

    /// Further sections as they stand in the file, instead of those before.
    pub(crate) fn more(mut self, text: &str) -> Self {
        text.clone_into(&mut self.more);
        self
    }

    /// Puts this section in place of that of the same name.
    pub(crate) fn replace(mut self, section: Section) -> Self {
        self.sections.retain(|old| old.name != section.name);
        self.upstream(section)
    }

    /// A line of `[server]`.
    pub(crate) fn server(mut self, line: &str) -> Self {
        self.server.push(line.to_owned());
        self
    }

    /// The lines of `[site]`, instead of those before.
    pub(crate) fn site(mut self, line: &str) -> Self {
        self.site = vec![line.to_owned()];
        self
    }

    /// The byte budget of the cache.
    pub(crate) fn max_size(mut self, size: &str) -> Self {
        self.storage.push(format!("max_size = \"{size}\""));
        self
    }

    /// Keeps the data elsewhere than in the server's own directory.
    pub(crate) fn data(mut self, path: &Path) -> Self {
        self.data = Some(path.to_owned());
        self
    }

    /// Listens on this address instead of on a free port.
    pub(crate) fn listen_on(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// A file beside the configuration, which may name it.
    pub(crate) fn file(mut self, name: &str, content: &str) -> Self {
        self.files.retain(|(old, _)| old != name);
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    /// An environment variable of the server.
    pub(crate) fn variable(mut self, name: &str, value: &Path) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A line of `[storage]`.
    pub(crate) fn storage(mut self, line: &str) -> Self {
        self.storage.push(line.to_owned());
        self
    }

    /// Leaves out what was said of `[storage]`.
    pub(crate) fn without_storage(mut self) -> Self {
        self.storage.clear();
        self
    }

    /// Expects warnings: something is made to go wrong.
    pub(crate) fn with_warnings(mut self) -> Self {
        self.warnings = true;
        self
    }

    /// Expects errors with this text in the log.
    pub(crate) fn with_log(mut self, text: &str) -> Self {
        self.expected.push(text.to_owned());
        self
    }

    /// Starts the server and waits until it is ready.
    pub(crate) async fn start(self) -> Tidegate {
        Tidegate::launch(self).await
    }

    pub(super) fn listen(&self) -> &str {
        self.listen.as_deref().unwrap_or("127.0.0.1:0")
    }

    pub(super) fn data_of(&self, directory: &Path) -> PathBuf {
        self.data.clone().unwrap_or_else(|| directory.join("data"))
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_path()))
    }

    pub(super) fn expects_warnings(&self) -> bool {
        self.warnings
    }

    pub(super) fn expects_line(&self, line: &str) -> bool {
        self.expected.iter().any(|text| line.contains(text))
    }

    /// Writes configuration and files.
    pub(crate) fn write(&self, directory: &Path) {
        for (name, content) in &self.files {
            write_file(directory, name, content);
        }
        let mut text = format!(
            "[server]\n{}\n[logging]\nformat = \"json\"\nlevel = \"info\"\n[site]\n{}\n[storage]\npath = \"{}\"\n{}\n",
            self.server.join("\n"),
            self.site.join("\n"),
            self.data_of(directory).display(),
            self.storage.join("\n"),
        );
        for section in &self.sections {
            section.write(&mut text);
        }
        text.push_str(&self.more);
        write_file(directory, "tidegate.toml", &text);
    }
}

impl Section {
    /// An upstream with this scripted endpoint. Tags stay fresh for an hour unless a test says
    /// otherwise: no test depends on how long it takes.
    pub(crate) fn new(name: &str, upstream: &Upstream) -> Self {
        Self::of_url(name, &upstream.url())
    }

    /// An upstream whose endpoint sends raw bytes.
    pub(crate) fn raw(name: &str, server: &RawServer) -> Self {
        Self::of_url(name, server.url())
    }

    /// An upstream with this endpoint.
    pub(crate) fn of_url(name: &str, url: &str) -> Self {
        let section = Self { name: name.to_owned(), endpoints: vec![url.to_owned()], lines: Vec::new() };
        section.clocks("1h", "0s", "30d").text("negative_for", "1h").text("miss_timeout", "30s")
    }

    /// `hub.test`: the default, with a `library/`.
    pub(crate) fn hub(upstream: &Upstream) -> Self {
        Self::new("hub.test", upstream).default_upstream().raw_value("library_prefix", "true")
    }

    pub(crate) fn default_upstream(self) -> Self {
        self.raw_value("default", "true")
    }

    /// Has this endpoint instead.
    pub(crate) fn moved_to(mut self, url: &str) -> Self {
        self.endpoints = vec![url.to_owned()];
        self
    }

    /// A further endpoint, asked where those before it fail.
    pub(crate) fn endpoint(mut self, upstream: &Upstream) -> Self {
        self.endpoints.push(upstream.url());
        self
    }

    /// `fresh_for`, `stale_while_revalidate`, `stale_if_error`.
    pub(crate) fn clocks(self, fresh: &str, while_revalidate: &str, if_error: &str) -> Self {
        self.text("fresh_for", fresh)
            .text("stale_while_revalidate", while_revalidate)
            .text("stale_if_error", if_error)
    }

    /// Time-outs for connecting, for the first byte, and for silence.
    pub(crate) fn timeouts(self, connect: &str, first_byte: &str, silence: &str) -> Self {
        self.text("connect_timeout", connect)
            .text("first_byte_timeout", first_byte)
            .text("silence_timeout", silence)
    }

    /// A key with a text.
    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.raw_value(key, &format!("{value:?}"))
    }

    /// A key with a list of texts.
    pub(crate) fn list(self, key: &str, values: &[&str]) -> Self {
        self.raw_value(key, &format!("{values:?}"))
    }

    /// A key with a value in TOML; the last one said counts.
    pub(crate) fn raw_value(mut self, key: &str, value: &str) -> Self {
        self.lines.retain(|(old, _)| old != key);
        self.lines.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Leaves this key to its default.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.lines.retain(|(old, _)| old != key);
        self
    }

    fn write(&self, text: &mut String) {
        let _ = write!(text, "\n[[upstream]]\nname = {:?}\nendpoints = {:?}\n", self.name, self.endpoints);
        for (key, value) in &self.lines {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
}
