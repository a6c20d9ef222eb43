//! `config show`: settings as TOML, with each value's origin in a comment and no secret.

use std::fmt::Write as _;

use super::Settings;
use super::keys::{Key, Section};
use super::quantity::{format_duration, format_size};
use super::scalar::{Item, Scalar};
use super::settings::{Setting, Table, Value};

/// What stands in place of a secret.
const REDACTED: &str = "[redacted]";

/// One value for machines.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// The key's path: `storage.max_size`, `upstream[0].name`.
    pub key: String,
    /// The value; `null` where none is set, `"[redacted]"` for secrets.
    pub value: serde_json::Value,
    /// Where it comes from: `default`, `file tidegate.toml:3`, `environment …`, `flag …`.
    pub origin: String,
}

impl Settings {
    /// The effective configuration as TOML that could be loaded again, but for its secrets.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for section in Section::ALL.into_iter().filter(|section| !section.is_list()) {
            write_table(&mut text, &format!("[{}]", section.path()), section, &self.single);
        }
        for table in &self.upstreams {
            write_table(&mut text, "[[upstream]]", Section::Upstream, table);
            write_credentials(&mut text, &table.credentials);
        }
        for table in &self.warm {
            write_table(&mut text, "[[warm]]", Section::Warm, table);
        }
        text
    }

    /// The effective configuration, one entry a key.
    pub fn entries(&self) -> Vec<Entry> {
        let single = Section::ALL
            .into_iter()
            .filter(|section| !section.is_list())
            .flat_map(|section| table_entries(section, section.path(), &self.single));
        let lists = [(Section::Upstream, &self.upstreams), (Section::Warm, &self.warm)];
        let listed = lists.into_iter().flat_map(|(section, tables)| {
            tables.iter().enumerate().flat_map(move |(index, table)| {
                let path = format!("{}[{index}]", section.path());
                let inner = table.credentials.iter().enumerate().flat_map({
                    let path = path.clone();
                    move |(index, table)| {
                        let path = format!("{path}.credentials[{index}]");
                        table_entries(Section::UpstreamCredentials, &path, table)
                    }
                });
                table_entries(section, &path, table).into_iter().chain(inner)
            })
        });
        single.chain(listed).collect()
    }
}

/// Keys that can have a value.
fn supported(section: Section) -> impl Iterator<Item = &'static Key> {
    section.keys().filter(|key| !matches!(key.item, Item::Unsupported(_)))
}

fn table_entries(section: Section, path: &str, table: &Table) -> Vec<Entry> {
    supported(section)
        .map(|key| {
            let setting = table.find(section, key.name);
            Entry {
                key: format!("{path}.{}", key.name),
                value: setting.map_or(serde_json::Value::Null, |setting| setting.value.to_json()),
                origin: setting.map_or_else(|| "default".to_owned(), |setting| setting.origin.to_string()),
            }
        })
        .collect()
}

fn write_table(text: &mut String, heading: &str, section: Section, table: &Table) {
    let mut lines = String::new();
    let mut is_set = false;
    for key in supported(section) {
        // Writing to a `String` cannot fail.
        let _ = match table.find(section, key.name) {
            Some(Setting { value, origin }) => {
                is_set = true;
                writeln!(lines, "{} = {}  # {origin}", key.name, value.to_toml())
            }
            None => writeln!(lines, "# {} is not set: {}", key.name, key.effect),
        };
    }
    if lines.is_empty() {
        return;
    }
    if !text.is_empty() {
        text.push('\n');
    }
    // An empty `[server.tls]` would be read as one that lacks its keys.
    let mark = if is_set { "" } else { "# " };
    let _ = write!(text, "{mark}{heading}\n{lines}");
}

/// Writes the users of an upstream, one a line, at the end of its table.
fn write_credentials(text: &mut String, tables: &[Table]) {
    const SECTION: Section = Section::UpstreamCredentials;
    if tables.is_empty() {
        text.push_str("# credentials is not set: several users, used in turn\n");
        return;
    }
    text.push_str("credentials = [\n");
    for table in tables {
        let settings = supported(SECTION).filter_map(|key| Some((key.name, table.find(SECTION, key.name)?)));
        let pairs: Vec<_> =
            settings.map(|(name, setting)| format!("{name} = {}", setting.value.to_toml())).collect();
        let origin = table.origin.as_ref().map(ToString::to_string).unwrap_or_default();
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "    {{ {} }},  # {origin}", pairs.join(", "));
    }
    text.push_str("]\n");
}

impl Value {
    fn to_toml(&self) -> String {
        match self {
            Self::One(scalar) => scalar.to_toml(),
            Self::Many(scalars) => {
                let elements: Vec<_> = scalars.iter().map(Scalar::to_toml).collect();
                format!("[{}]", elements.join(", "))
            }
        }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::One(scalar) => scalar.to_json(),
            Self::Many(scalars) => scalars.iter().map(Scalar::to_json).collect(),
        }
    }
}

impl Scalar {
    /// The value as text, in the form that is parsed again; secrets are redacted.
    fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Flag(flag) => flag.to_string(),
            Self::Count(count) => count.to_string(),
            Self::Size(bytes) => format_size(*bytes),
            Self::Duration(duration) => format_duration(*duration),
            Self::Address(address) => address.to_string(),
            Self::Url(url) => url.to_string().trim_end_matches('/').to_owned(),
            Self::Path(path) => path.display().to_string(),
            Self::Secret(_) => REDACTED.to_owned(),
        }
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Flag(_) | Self::Count(_) => self.to_text(),
            _ => toml::Value::String(self.to_text()).to_string(),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Flag(flag) => (*flag).into(),
            Self::Count(count) => (*count).into(),
            _ => self.to_text().into(),
        }
    }
}
