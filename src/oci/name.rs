//! Repository names (OCI distribution specification, "Pulling manifests").

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name, in bytes, that clients and registries agree on.
const MAX_LENGTH: usize = 255;

/// The name of a repository, without any registry's host: `library/nginx`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(Arc<str>);

/// Why a text is no repository name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A component breaks the grammar: lower-case letters and digits, separated by one `.`, one or
    /// two `_`, or any number of `-`.
    #[error("repository name has a component that breaks the grammar [a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*")]
    Malformed,
    /// The name is longer than 255 bytes.
    #[error("repository name is longer than 255 bytes")]
    TooLong,
}

impl RepositoryName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` is a repository name, for those who need no more.
    pub fn check(text: &str) -> Result<(), NameError> {
        if text.len() > MAX_LENGTH {
            return Err(NameError::TooLong);
        }
        if text.split('/').all(is_component) { Ok(()) } else { Err(NameError::Malformed) }
    }

    /// Splits off the first component, where there is more than one.
    pub fn split_first(&self) -> Option<(&str, &str)> {
        self.0.split_once('/')
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::check(text).map(|()| Self(text.into()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_alphanumeric(*first) || !is_alphanumeric(*last) {
        return false;
    }
    bytes.split(|byte| is_alphanumeric(*byte)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
    })
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_the_specification_decides() {
        for good in ["a", "library/nginx", "a.b/c_d/e__f/g---h", "0/1/2/3/4/5/6/7"] {
            assert_eq!(good.parse::<RepositoryName>().unwrap().as_str(), good);
        }
        for bad in ["", "/", "a/", "/a", "a//b", "A", "a.", ".a", "a..b", "a___b", "a._b", "a b", "é"] {
            assert_eq!(bad.parse::<RepositoryName>(), Err(NameError::Malformed), "{bad}");
        }
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
        assert_eq!("a".repeat(256).parse::<RepositoryName>(), Err(NameError::TooLong));
    }
}
