//! What a token is asked for, and what it grants (distribution's "token scope" specification).
//!
//! `repository:team/app:pull,push`; several in one parameter stand between spaces. What is not understood grants
//! nothing and is no error: clients ask for more than they need.

use std::fmt;
use std::str::FromStr as _;

use super::policy::Action;
use crate::oci::RepositoryName;

/// What may be done with a repository.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Actions(u8);

impl Actions {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Reading.
    pub const PULL: Self = Self(1);
    /// Adding and changing.
    pub const PUSH: Self = Self(2);
    /// Removing.
    pub const DELETE: Self = Self(4);
    /// All of these: `*`.
    pub const ALL: Self = Self(7);

    const WORDS: [(Self, &'static str); 3] =
        [(Self::PULL, "pull"), (Self::PUSH, "push"), (Self::DELETE, "delete")];

    /// What a word stands for; nothing where it is unknown.
    pub fn of_word(word: &str) -> Self {
        if word == "*" {
            return Self::ALL;
        }
        Self::WORDS.into_iter().find(|(_, known)| *known == word).map_or(Self::NONE, |(actions, _)| actions)
    }

    /// The words for these.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.into_iter().filter(move |(one, _)| self.contains(*one)).map(|(_, word)| word)
    }

    /// These and those.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of these that are in `other`, too.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether these are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl From<Action> for Actions {
    fn from(action: Action) -> Self {
        match action {
            Action::Pull | Action::List => Self::PULL,
            Action::Push => Self::PUSH,
            Action::Delete => Self::DELETE,
        }
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().collect::<Vec<_>>().join(","))
    }
}

/// A repository, and what is to be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The registry's host in front of the name, where there is one: containerd sends the name as it stands in the
    /// request's path.
    pub host: Option<String>,
    /// The repository.
    pub repository: RepositoryName,
    /// What is to be done.
    pub actions: Actions,
}

impl Scope {
    /// Reads `repository:[host[:port]/]name:action,…`. `None` where it is of another type, or malformed.
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, words) = rest.rsplit_once(':')?;
        // `repository(plugin)`: the class of what is in there does not matter.
        let kind =
            kind.strip_suffix(')').and_then(|kind| kind.split_once('(')).map_or(kind, |(kind, _)| kind);
        if kind != "repository" {
            return None;
        }
        let (host, name) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (Some(first.to_owned()), rest),
            _ => (None, name),
        };
        let actions = words.split(',').map(Actions::of_word).fold(Actions::NONE, Actions::or);
        Some(Self { host, repository: RepositoryName::from_str(name).ok()?, actions })
    }
}

/// Whether the first component of a name is a host: such as no repository's name begins with.
fn is_host(component: &str) -> bool {
    component.contains(['.', ':']) || component.eq_ignore_ascii_case("localhost")
}

/// All that a token is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedScopes {
    scopes: Vec<Scope>,
    has_others: bool,
}

impl AskedScopes {
    /// Reads the values of all `scope` parameters.
    pub fn parse<'a>(parameters: impl IntoIterator<Item = &'a str>) -> Self {
        let mut asked = Self::default();
        // A form has `+` for a space, which is in no scope.
        let texts = parameters.into_iter().flat_map(|text| text.split([' ', '+']));
        for text in texts.filter(|text| !text.is_empty()) {
            match Scope::parse(text) {
                Some(scope) if asked.scopes.len() < MAX_SCOPES => asked.scopes.push(scope),
                _ => asked.has_others = true,
            }
        }
        asked
    }

    /// The scopes that are understood.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.iter()
    }

    /// Whether something is asked for, and each scope passes; one that is not understood does not.
    pub fn are_all(&self, passes: impl FnMut(&Scope) -> bool) -> bool {
        !self.scopes.is_empty() && !self.has_others && self.scopes.iter().all(passes)
    }
}

/// What a token grants: actions by repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Vec<(RepositoryName, Actions)>);

impl Grants {
    /// Adds actions on a repository; none change nothing.
    pub fn add(&mut self, repository: &RepositoryName, actions: Actions) {
        if actions.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| known == repository) {
            Some((_, known)) => *known = known.or(actions),
            None => self.0.push((repository.clone(), actions)),
        }
    }

    /// What is granted on a repository.
    pub fn of(&self, repository: &RepositoryName) -> Actions {
        self.0.iter().find(|(known, _)| known == repository).map_or(Actions::NONE, |(_, actions)| *actions)
    }

    /// All that is granted.
    pub fn iter(&self) -> impl Iterator<Item = &(RepositoryName, Actions)> {
        self.0.iter()
    }
}

/// How many scopes a token takes: it travels in a header.
const MAX_SCOPES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(parameters: &[&str]) -> Vec<(Option<String>, String, String)> {
        let asked = AskedScopes::parse(parameters.iter().copied());
        let tell = |scope: &Scope| {
            (scope.host.clone(), scope.repository.to_string(), format!("{:?}", scope.actions))
        };
        asked.iter().map(tell).collect()
    }

    #[test]
    fn scopes_are_read_however_clients_spell_them() {
        for (parameters, expected) in [
            (&["repository:team/app:pull"][..], &[(None, "team/app", "pull")][..]),
            (&["repository:app:push,pull"], &[(None, "app", "pull,push")]),
            (&["repository:a/b:*"], &[(None, "a/b", "pull,push,delete")]),
            (&["repository(plugin):a/b:delete"], &[(None, "a/b", "delete")]),
            (&["repository:localhost:5000/a/b:pull"], &[(Some("localhost:5000"), "a/b", "pull")]),
            (&["repository:localhost/a:pull"], &[(Some("localhost"), "a", "pull")]),
            (&["repository:Reg.Example:5000/a:pull"], &[(Some("Reg.Example:5000"), "a", "pull")]),
            (&["repository:[::1]:5000/a:pull"], &[(Some("[::1]:5000"), "a", "pull")]),
            (
                &["repository:a/b:pull  repository:c:push", "", "repository:a/b:pull+repository:d:pull"],
                &[(None, "a/b", "pull"), (None, "c", "push"), (None, "a/b", "pull"), (None, "d", "pull")],
            ),
            (&["repository:a:pull,shout,"], &[(None, "a", "pull")]),
            (&["repository:a:"], &[(None, "a", "")]),
            (&["registry:catalog:*", "repository:A/b:pull", "repository:a", "x", ":", "::"], &[]),
            (&["repository:a/../b:pull", "repository::pull", "Repository:a:pull", "repository:é:pull"], &[]),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|(host, name, actions)| {
                    (host.map(str::to_owned), (*name).to_owned(), (*actions).to_owned())
                })
                .collect();
            assert_eq!(asked(parameters), expected, "{parameters:?}");
        }
    }

    #[test]
    fn scopes_are_all_of_a_kind_only_where_each_is_understood() {
        let is_pull = |scope: &Scope| Actions::PULL.contains(scope.actions);
        for (parameters, expected) in [
            (&["repository:a:pull repository:b:pull"][..], true),
            (&["repository:a:pull", "repository:b:pull,push"], false),
            (&["repository:a:pull", "registry:catalog:*"], false),
            (&[""], false),
            (&[], false),
        ] {
            assert_eq!(AskedScopes::parse(parameters.iter().copied()).are_all(is_pull), expected);
        }
        let many = vec!["repository:a:pull"; MAX_SCOPES + 1].join(" ");
        let asked = AskedScopes::parse([many.as_str()]);
        assert_eq!(asked.iter().count(), MAX_SCOPES);
        assert!(!asked.are_all(is_pull));
    }

    #[test]
    fn grants_of_one_repository_are_one() {
        let (here, there): (RepositoryName, RepositoryName) = ("a/b".parse().unwrap(), "a".parse().unwrap());
        let mut grants = Grants::default();
        grants.add(&here, Actions::PULL);
        grants.add(&here, Actions::PUSH);
        grants.add(&there, Actions::NONE);
        assert_eq!(grants.iter().count(), 1);
        assert_eq!(grants.of(&here), Actions::PULL.or(Actions::PUSH));
        assert_eq!(grants.of(&there), Actions::NONE);
    }
}
