//! Globs over repository names: what they may hold and what they match.

use super::fault::Problem;

/// Checks a glob of `allow` or `deny`.
pub(super) fn check(pattern: &str) -> Result<(), Problem> {
    const REMEDY: &str = "write a repository name in which * stands for any text, such as \"library/*\"";
    if pattern.is_empty() {
        return Err(Problem::new("an empty glob matches nothing", REMEDY));
    }
    let stranger = |c: &char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/*".contains(*c));
    if let Some(stranger) = pattern.chars().find(stranger) {
        let reason = format!("\"{pattern}\" holds '{stranger}', which no repository name holds");
        return Err(Problem::new(reason, REMEDY));
    }
    if pattern.starts_with('/') || pattern.ends_with('/') || pattern.contains("//") {
        let reason = format!("\"{pattern}\" has an empty path component, so that it matches nothing");
        return Err(Problem::new(reason, REMEDY));
    }
    Ok(())
}

/// Whether `pattern` matches the whole of `name`; `*` stands for any text, `/` included.
///
/// Takes time proportional to the product of both lengths at worst, and never recurses.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at_pattern, mut at_name) = (0, 0);
    // Where to go on when what follows the last star does not fit: that star takes one byte more.
    let mut retry = None;
    while at_name < name.len() {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                at_pattern += 1;
                retry = Some((at_pattern, at_name));
            }
            Some(byte) if *byte == name[at_name] => {
                at_pattern += 1;
                at_name += 1;
            }
            _ => {
                let Some((after_star, taken)) = retry else { return false };
                at_pattern = after_star;
                at_name = taken + 1;
                retry = Some((after_star, taken + 1));
            }
        }
    }
    pattern[at_pattern..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("*", "library/nginx", true),
            ("library/*", "library/nginx", true),
            ("library/*", "library/a/b", true),
            ("library/*", "library", false),
            ("library/*", "mylibrary/x", false),
            ("*/nginx", "library/nginx", true),
            ("*/nginx", "library/nginx2", false),
            ("a*b*c", "aXbbXc", true),
            ("a*b*c", "acb", false),
            ("a**c", "abc", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("**", "x", true),
            ("nginx", "nginx", true),
            ("nginx", "nginx2", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        assert!(!matches(&"a*".repeat(60), &format!("{}b", "a".repeat(40))));
        assert!(!matches(&format!("{}b", "*a".repeat(60)), &"a".repeat(255)));
    }

    #[test]
    fn a_glob_that_matches_nothing_is_refused() {
        assert!(check("*").is_ok() && check("library/*").is_ok() && check("a_b/c-d/*x.y").is_ok());
        for bad in ["", "Library/*", "[ab]", "a?", "/a", "a/", "a//b", "a b"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
