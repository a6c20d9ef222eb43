//! Values by key with their origins: what the sources said, before it becomes a `Config`.

use std::collections::{BTreeMap, BTreeSet};

use super::Origin;
use super::fault::{Faults, Problem};
use super::keys::{KEYS, Key, Section};
use super::scalar::{FromScalar, Scalar};

/// The value of a key and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// One value or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    One(Scalar),
    Many(Vec<Scalar>),
}

/// The values of one table: of all single sections together, of one upstream, or of one of its credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    settings: BTreeMap<(Section, &'static str), Setting>,
    /// Keys that were given, but wrongly: nothing is to be said of them a second time.
    faulty: BTreeSet<(Section, &'static str)>,
    /// Where the table begins; for upstreams.
    pub(super) origin: Option<Origin>,
    /// The tables of `credentials`; for upstreams.
    pub(super) credentials: Vec<Self>,
}

/// Every value with its origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub(super) single: Table,
    pub(super) upstreams: Vec<Table>,
    pub(super) warm: Vec<Table>,
}

impl Value {
    /// Parses what a variable, a flag or a default says; elements of lists stand between commas.
    pub(super) fn parse(key: &Key, text: &str) -> Result<Self, Problem> {
        if !key.is_list {
            return key.item.parse(text).map(Self::One);
        }
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| key.item.parse(part)).collect::<Result<_, _>>().map(Self::Many)
    }
}

impl Table {
    /// An empty table that stands at `origin`.
    pub(super) fn starting_at(origin: Origin) -> Self {
        Self { origin: Some(origin), ..Self::default() }
    }

    /// Sets a key, over what it was.
    pub(super) fn set(&mut self, key: &Key, value: Value, origin: Origin) {
        self.settings.insert((key.section, key.name), Setting { value, origin });
    }

    /// Remembers that a key was given wrongly.
    pub(super) fn mark_faulty(&mut self, key: &Key) {
        self.faulty.insert((key.section, key.name));
    }

    /// Parses `text` and sets the key, or records the fault.
    pub(super) fn set_text(
        &mut self,
        key: &Key,
        path: &str,
        text: &str,
        origin: Origin,
        faults: &mut Faults,
    ) {
        match Value::parse(key, text) {
            Ok(value) => self.set(key, value, origin),
            Err(problem) => {
                self.mark_faulty(key);
                faults.push(&origin, path, problem);
            }
        }
    }

    /// Sets what is not set yet from the table of keys.
    pub(super) fn fill_defaults(&mut self, is_of_table: impl Fn(Section) -> bool) {
        for key in KEYS.iter().filter(|key| is_of_table(key.section)) {
            let Some(default) = key.default else { continue };
            if self.find(key.section, key.name).is_none()
                && let Ok(value) = Value::parse(key, default)
            {
                self.set(key, value, Origin::Default);
            }
        }
    }

    /// The setting of a key.
    pub(super) fn find(&self, section: Section, name: &str) -> Option<&Setting> {
        // The key of the table is the one that lives for ever.
        let key = section.find_key(name)?;
        self.settings.get(&(section, key.name))
    }

    /// Whether the key was given, rightly or wrongly.
    pub(super) fn is_given(&self, section: Section, name: &str) -> bool {
        self.find(section, name).is_some() || self.is_faulty(section, name)
    }

    /// Whether the key was given wrongly.
    pub(super) fn is_faulty(&self, section: Section, name: &str) -> bool {
        self.faulty.iter().any(|(of, faulty)| *of == section && *faulty == name)
    }

    /// Where a key's value comes from; [`Origin::Default`] where there is none.
    pub(super) fn origin_of(&self, section: Section, name: &str) -> Origin {
        self.find(section, name).map_or(Origin::Default, |setting| setting.origin.clone())
    }

    /// The value of a key that is no list.
    pub(super) fn one<T: FromScalar>(&self, section: Section, name: &str) -> Option<T> {
        match &self.find(section, name)?.value {
            Value::One(scalar) => T::from_scalar(scalar),
            Value::Many(_) => None,
        }
    }

    /// The values of a list; none where it is not set.
    pub(super) fn many<T: FromScalar>(&self, section: Section, name: &str) -> Vec<T> {
        match self.find(section, name).map(|setting| &setting.value) {
            Some(Value::Many(scalars)) => scalars.iter().filter_map(T::from_scalar).collect(),
            _ => Vec::new(),
        }
    }
}
