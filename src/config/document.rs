//! The file: TOML with the place of every value.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, Origin, Position, Problem};
use super::keys::{KEYS, Key, Section, find_nearest};
use super::settings::{Settings, Table, Value};

/// A file that is being read.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    faults: &'a mut Faults,
}

/// Reads the text of the file at `path` into `settings`. What is wrong goes to `faults`; what is
/// right is set all the same, so that later checks find more.
pub(super) fn read(path: &Path, text: &str, settings: &mut Settings, faults: &mut Faults) {
    let mut reader = Reader { path, text, faults };
    match DeTable::parse(text) {
        Ok(document) => reader.read_root(document.get_ref(), settings),
        Err(error) => {
            let offset = error.span().map_or(text.len(), |span| span.start);
            let origin = reader.origin_at(offset);
            // Only the message: the parser's full text quotes the line, which may hold a secret.
            let reason = format!("invalid TOML: {}", error.message());
            reader.faults.push(&origin, "", Problem::new(reason, "correct the syntax at this place"));
        }
    }
}

/// The entries of a table in the order of the file.
fn entries<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

impl Reader<'_> {
    fn origin_at(&self, offset: usize) -> Origin {
        let path = PathBuf::from(self.path);
        Origin::File { path, position: Some(Position::of(self.text, offset)) }
    }

    fn fault_at(&mut self, offset: usize, key: impl Into<String>, problem: Problem) {
        let origin = self.origin_at(offset);
        self.faults.push(&origin, key, problem);
    }

    fn read_root(&mut self, root: &DeTable<'_>, settings: &mut Settings) {
        for (name, value) in entries(root) {
            let at = name.span().start;
            let section = Section::ALL.into_iter().find(|section| section.path() == name.get_ref());
            match (section, value.get_ref()) {
                (Some(Section::Upstream), DeValue::Array(elements)) => {
                    self.read_upstreams(elements, &mut settings.upstreams);
                }
                (Some(section @ Section::Warm), DeValue::Array(elements)) => {
                    self.read_tables(section, section.path(), elements, &mut settings.warm);
                }
                (Some(section), _) if section.is_list() => {
                    let path = section.path();
                    let reason = if section == Section::Upstream { "upstreams are" } else { "warm is" };
                    let problem = Problem::new(
                        format!("{reason} a list of tables"),
                        format!("write [[{path}]], with two brackets"),
                    );
                    self.fault_at(at, path, problem);
                }
                (Some(section), DeValue::Table(table)) => {
                    self.read_table(section, section.path(), table, &mut settings.single);
                }
                (Some(section), _) => {
                    let path = section.path();
                    let problem = Problem::new(
                        format!("{path} is a section"),
                        format!("write [{path}] and its keys below"),
                    );
                    self.fault_at(at, path, problem);
                }
                (None, _) => self.fault_at(at, name.get_ref().as_ref(), unknown_at_root(name.get_ref())),
            }
        }
    }

    fn read_upstreams(&mut self, elements: &[Spanned<DeValue<'_>>], upstreams: &mut Vec<Table>) {
        if elements.is_empty() {
            let problem =
                Problem::new("there is no upstream", "add one, or leave the key out for the built-in list");
            self.faults.push(&Origin::File { path: self.path.into(), position: None }, "upstream", problem);
        }
        self.read_tables(Section::Upstream, Section::Upstream.path(), elements, upstreams);
    }

    /// Reads a list of tables that is called `list` in faults.
    fn read_tables(
        &mut self,
        section: Section,
        list: &str,
        elements: &[Spanned<DeValue<'_>>],
        tables: &mut Vec<Table>,
    ) {
        let name = section.path();
        for (index, element) in elements.iter().enumerate() {
            let origin = self.origin_at(element.span().start);
            let mut table = Table::starting_at(origin);
            let path = format!("{list}[{index}]");
            if let DeValue::Table(entries) = element.get_ref() {
                self.read_table(section, &path, entries, &mut table);
                tables.push(table);
            } else {
                let reason = match section {
                    Section::Upstream => "an upstream is a table".to_owned(),
                    _ => format!("each {name} is a table"),
                };
                let problem = Problem::new(reason, format!("write [[{name}]] and its keys below"));
                self.fault_at(element.span().start, path, problem);
            }
        }
    }

    fn read_table(&mut self, section: Section, path: &str, table: &DeTable<'_>, target: &mut Table) {
        for (name, value) in entries(table) {
            let at = name.span().start;
            let key_path = format!("{path}.{}", name.get_ref());
            if let Some(key) = section.find_key(name.get_ref()) {
                self.read_value(key, &key_path, at, value, target);
                continue;
            }
            let inner_path = format!("{}.{}", section.path(), name.get_ref());
            let inner = Section::ALL.into_iter().find(|inner| inner.path() == inner_path);
            match (inner, value.get_ref()) {
                (Some(inner), DeValue::Array(elements)) if inner.is_list() && !elements.is_empty() => {
                    self.read_tables(inner, &key_path, elements, &mut target.credentials);
                }
                (Some(inner), _) if inner.is_list() => {
                    let problem = Problem::new(
                        format!("{} is a list of tables", name.get_ref()),
                        format!(
                            "write {} = [{{ username = \"…\", password_file = \"…\" }}], each user a table, or remove it",
                            name.get_ref()
                        ),
                    );
                    self.fault_at(at, key_path, problem);
                }
                (Some(inner), DeValue::Table(table)) => self.read_table(inner, inner.path(), table, target),
                (Some(inner), _) => {
                    let keys = inner
                        .keys()
                        .map(|key| format!("{} = \"…\"", key.name))
                        .collect::<Vec<_>>()
                        .join(", ");
                    let problem = Problem::new(
                        format!("{} is a table", inner.path()),
                        format!("write {} = {{ {keys} }}", name.get_ref()),
                    );
                    self.fault_at(at, key_path, problem);
                }
                (None, _) => self.fault_at(at, key_path, unknown_in_section(section, name.get_ref())),
            }
        }
    }

    fn read_value(
        &mut self,
        key: &'static Key,
        path: &str,
        at: usize,
        value: &Spanned<DeValue<'_>>,
        target: &mut Table,
    ) {
        let origin = self.origin_at(at);
        let parsed = match value.get_ref() {
            DeValue::Array(elements) if key.is_list => {
                let scalars: Vec<_> =
                    elements.iter().filter_map(|element| self.read_scalar(key, path, element)).collect();
                (scalars.len() == elements.len()).then_some(Value::Many(scalars))
            }
            other if key.is_list => {
                let (_, example) = key.item.expects();
                let problem = Problem::new(
                    format!("expected an array, found {}", with_article(other.type_str())),
                    format!("write a list in brackets, each element {example}"),
                );
                self.fault_at(value.span().start, path, problem);
                None
            }
            _ => self.read_scalar(key, path, value).map(Value::One),
        };
        match parsed {
            Some(value) => target.set(key, value, origin),
            None => target.mark_faulty(key),
        }
    }

    fn read_scalar(
        &mut self,
        key: &Key,
        path: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<super::scalar::Scalar> {
        let (wanted, example) = key.item.expects();
        let found = value.get_ref().type_str();
        let parsed = match value.get_ref() {
            // Whatever its type is, such a key is refused for what it is.
            _ if wanted == "nothing" => key.item.parse(""),
            DeValue::String(text) if wanted == "string" => key.item.parse(text),
            DeValue::Boolean(flag) if wanted == "boolean" => {
                key.item.parse(if *flag { "true" } else { "false" })
            }
            DeValue::Integer(number) if wanted == "integer" && number.radix() == 10 => {
                key.item.parse(number.as_str())
            }
            _ => Err(Problem::new(
                format!("expected {}, found {}", with_article(wanted), with_article(found)),
                format!("write {example}"),
            )),
        };
        parsed.map_err(|problem| self.fault_at(value.span().start, path, problem)).ok()
    }
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// What to say of a name at the top that is no section.
fn unknown_at_root(name: &str) -> Problem {
    if let Some(key) = KEYS.iter().find(|key| key.name == name && !key.section.is_list()) {
        let remedy = format!("move it below [{}]", key.section.path());
        return Problem::new("this key does not stand at the top", remedy);
    }
    let sections = Section::ALL.map(Section::path).into_iter().filter(|path| !path.contains('.'));
    let remedy = match find_nearest(name, sections.clone()) {
        Some(nearest @ ("upstream" | "warm")) => format!("did you mean [[{nearest}]]?"),
        Some(nearest) => format!("did you mean [{nearest}]?"),
        None => format!("the sections are {}", sections.collect::<Vec<_>>().join(", ")),
    };
    Problem::new("unknown section", remedy)
}

/// What to say of a name that is no key of `section`.
fn unknown_in_section(section: Section, name: &str) -> Problem {
    let nearest =
        find_nearest(name, section.keys().map(|key| key.name)).and_then(|name| section.find_key(name));
    let elsewhere = KEYS.iter().find(|key| key.name == name);
    let remedy = if let Some(key) = nearest {
        format!("did you mean {} ({})?", key.name, key.effect)
    } else if let Some(key) = elsewhere {
        format!("it is a key of {}", key.section.path())
    } else {
        let names = section.keys().map(|key| key.name).collect::<Vec<_>>().join(", ");
        format!("the keys of {} are {names}", section.path())
    };
    Problem::new("unknown key", remedy)
}
