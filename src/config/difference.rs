//! What a reload changes, and what has to wait for a restart.

use super::Settings;
use super::keys::{KEYS, Reload, Section};
use super::settings::{Table, Value};

/// The keys in which two configurations differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys whose new value a reload applies.
    pub live: Vec<String>,
    /// Keys whose new value takes effect at the next start.
    pub restart: Vec<String>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }
}

impl Settings {
    /// Compares the values in effect with those of `new`; origins do not count.
    ///
    /// Upstreams are named (`upstream.docker.io`), not numbered: all their keys apply live. A change
    /// of their order counts as `upstream`.
    pub fn difference(&self, new: &Self) -> Difference {
        let mut difference = Difference::default();
        let turns_tls = self.has_tls() != new.has_tls();
        for key in KEYS.iter().filter(|key| !key.section.is_list()) {
            if value_of(&self.single, key.section, key.name) == value_of(&new.single, key.section, key.name) {
                continue;
            }
            // New certificates are read by running listeners; clear text does not become TLS.
            let needs_restart =
                key.reload == Reload::Restart || key.section == Section::ServerTls && turns_tls;
            if needs_restart { &mut difference.restart } else { &mut difference.live }.push(key.path());
        }
        self.compare_upstreams(new, &mut difference.live);
        let same_warm = |(one, other): (&Table, &Table)| same_values(one, other, Section::Warm);
        if self.warm.len() != new.warm.len() || !self.warm.iter().zip(&new.warm).all(same_warm) {
            difference.live.push("warm".to_owned());
        }
        difference
    }

    fn has_tls(&self) -> bool {
        self.single.is_given(Section::ServerTls, "certificate")
    }

    fn compare_upstreams(&self, new: &Self, live: &mut Vec<String>) {
        let old_names: Vec<_> = self.upstreams.iter().map(name_of).collect();
        let new_names: Vec<_> = new.upstreams.iter().map(name_of).collect();
        let mut changed: Vec<String> = Vec::new();
        for (table, name) in self.upstreams.iter().zip(&old_names) {
            let counterpart = new.upstreams.iter().zip(&new_names).find(|(_, other)| *other == name);
            if !counterpart.is_some_and(|(other, _)| same_upstream(table, other)) {
                changed.push(format!("upstream.{name}"));
            }
        }
        let is_new = |name: &&String| !old_names.contains(name);
        changed.extend(new_names.iter().filter(is_new).map(|name| format!("upstream.{name}")));
        if changed.is_empty() && old_names != new_names {
            changed.push("upstream".to_owned());
        }
        live.extend(changed);
    }
}

fn value_of<'a>(table: &'a Table, section: Section, name: &str) -> Option<&'a Value> {
    table.find(section, name).map(|setting| &setting.value)
}

fn name_of(table: &Table) -> String {
    table.one(Section::Upstream, "name").unwrap_or_default()
}

fn same_upstream(one: &Table, other: &Table) -> bool {
    let same_credentials =
        |(one, other): (&Table, &Table)| same_values(one, other, Section::UpstreamCredentials);
    same_values(one, other, Section::Upstream)
        && one.credentials.len() == other.credentials.len()
        && one.credentials.iter().zip(&other.credentials).all(same_credentials)
}

fn same_values(one: &Table, other: &Table, section: Section) -> bool {
    section.keys().all(|key| value_of(one, section, key.name) == value_of(other, section, key.name))
}
