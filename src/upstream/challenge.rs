//! `WWW-Authenticate` challenges (RFC 9110, section 11.6.1; RFC 7235, section 4.1).
//!
//! Pure. A registry may send several lines and several challenges a line; what is malformed is
//! left out and what can be read is kept, so that one odd challenge does not hide a usable one.

/// The most challenges taken from one answer.
const MAX_CHALLENGES: usize = 16;

/// The most parameters taken from one challenge.
const MAX_PARAMETERS: usize = 16;

/// One challenge: a scheme, and either one opaque token or named parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    token68: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The scheme, lower-case: `bearer`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The opaque token (`token68`), where the challenge has one instead of parameters.
    pub fn token68(&self) -> Option<&str> {
        self.token68.as_deref()
    }

    /// Finds a parameter by its name, whose case does not count; the first of a name wins.
    pub fn find_parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Reads the challenges of all `WWW-Authenticate` lines of an answer, in order. Never fails.
pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for line in lines {
        parse_line(Cursor(line), &mut challenges);
    }
    challenges
}

fn parse_line(mut cursor: Cursor<'_>, challenges: &mut Vec<Challenge>) {
    // A parameter belongs to a challenge of its own line only.
    let mut current: Option<Challenge> = None;
    loop {
        cursor.skip(|byte| byte == b',' || is_space(byte));
        if cursor.0.is_empty() || challenges.len() >= MAX_CHALLENGES {
            break;
        }
        let word = cursor.take(is_token);
        if word.is_empty() {
            cursor.skip(|byte| byte != b',');
            continue;
        }
        if cursor.take_equals() {
            if let (Some(value), Some(challenge)) = (cursor.take_value(), &mut current)
                && challenge.parameters.len() < MAX_PARAMETERS
            {
                challenge.parameters.push((word.to_owned(), value));
            }
            continue;
        }
        challenges.extend(current.take());
        let token68 = cursor.take_token68();
        current = Some(Challenge { scheme: word.to_ascii_lowercase(), token68, parameters: Vec::new() });
    }
    if challenges.len() < MAX_CHALLENGES {
        challenges.extend(current);
    }
}

/// What is left of a line.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// Takes the bytes that `wanted` holds for; only ASCII may be wanted.
    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let end = self.0.bytes().position(|byte| !(byte.is_ascii() && wanted(byte))).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// Leaves out the bytes that `unwanted` holds for, whole characters only.
    fn skip(&mut self, unwanted: impl Fn(u8) -> bool) {
        let rest =
            self.0.find(|letter: char| !u8::try_from(letter).map_or_else(|_| unwanted(0xff), &unwanted));
        self.0 = &self.0[rest.unwrap_or(self.0.len())..];
    }

    /// Takes an equals sign with the spaces around it; nothing where there is none.
    fn take_equals(&mut self) -> bool {
        let Some(rest) = self.0.trim_start_matches([' ', '\t']).strip_prefix('=') else { return false };
        self.0 = rest.trim_start_matches([' ', '\t']);
        true
    }

    /// Takes a token or a quoted string. `None` where there is neither.
    fn take_value(&mut self) -> Option<String> {
        if let Some(quoted) = self.0.strip_prefix('"') {
            return self.take_quoted(quoted);
        }
        let token = self.take(is_token);
        (!token.is_empty()).then(|| token.to_owned())
    }

    /// Takes a quoted string whose opening quote is taken (RFC 9110, section 5.6.4).
    fn take_quoted(&mut self, quoted: &'a str) -> Option<String> {
        let mut value = String::new();
        let mut letters = quoted.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.0 = &quoted[at + 1..];
                    return Some(value);
                }
                '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
                _ => value.push(letter),
            }
        }
        self.0 = "";
        None
    }

    /// Takes ` token68`, which ends the challenge: a comma or the end of the line must follow.
    fn take_token68(&mut self) -> Option<String> {
        let mut ahead = Cursor(self.0);
        if ahead.take(is_space).is_empty() {
            return None;
        }
        let start = ahead.0;
        if ahead.take(is_token68).is_empty() {
            return None;
        }
        ahead.take(|byte| byte == b'=');
        let length = start.len() - ahead.0.len();
        ahead.take(is_space);
        if !(ahead.0.is_empty() || ahead.0.starts_with(',')) {
            return None;
        }
        self.0 = ahead.0;
        Some(start[..length].to_owned())
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Challenge { scheme: scheme.into(), token68: None, parameters }
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        let hub = [
            ("realm", "https://auth.docker.io/token"),
            ("service", "registry.docker.io"),
            ("scope", "repository:library/nginx:pull"),
        ];
        let cases: &[(&[&str], Vec<Challenge>)] = &[
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#,
                ],
                vec![challenge("bearer", &hub)],
            ),
            (
                &[r#"Basic realm="x""#, "Negotiate"],
                vec![challenge("basic", &[("realm", "x")]), challenge("negotiate", &[])],
            ),
            (
                &[r#"BASIC Realm = "a, b" , bEARER REALM=c,error="invalid_token""#],
                vec![
                    challenge("basic", &[("Realm", "a, b")]),
                    challenge("bearer", &[("REALM", "c"), ("error", "invalid_token")]),
                ],
            ),
            (&[r#"Bearer realm="a\"b\\c""#], vec![challenge("bearer", &[("realm", r#"a"b\c"#)])]),
            (
                &["Basic,Bearer realm=x"],
                vec![challenge("basic", &[]), challenge("bearer", &[("realm", "x")])],
            ),
        ];
        for (lines, expected) in cases {
            assert_eq!(parse(lines.iter().copied()), *expected, "{lines:?}");
        }
    }

    #[test]
    fn a_token68_is_told_from_parameters() {
        let parsed = parse(["Negotiate YWJj/+== , Bearer realm=\"r\""]);
        assert_eq!(parsed[0].token68(), Some("YWJj/+=="));
        assert_eq!(parsed[1].find_parameter("REALM"), Some("r"));
        assert_eq!(parsed.len(), 2);
    }

    #[test]
    fn malformed_parts_hide_nothing_else() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (",,,", &[]),
            ("realm=\"orphan\"", &[]),
            ("Bearer realm=\"never closed", &["bearer"]),
            ("é, Basic realm=x", &["basic"]),
            ("@@@ \u{0}, Bearer", &["bearer"]),
            ("orphan =, Basic", &["basic"]),
        ];
        for (line, schemes) in cases {
            let parsed = parse([*line]);
            assert_eq!(parsed.iter().map(Challenge::scheme).collect::<Vec<_>>(), *schemes, "{line}");
        }
        assert_eq!(parse(["Bearer realm=\"x"])[0].find_parameter("realm"), None);
    }

    #[test]
    fn a_flood_of_challenges_is_cut() {
        let line = "Basic realm=x, ".repeat(10_000);
        assert_eq!(parse([line.as_str(), line.as_str()]).len(), MAX_CHALLENGES);
        let parameters = "a=b, ".repeat(10_000);
        assert_eq!(parse([format!("Bearer {parameters}").as_str()])[0].parameters.len(), MAX_PARAMETERS);
    }

    #[test]
    fn no_line_makes_the_parser_panic_or_invent() {
        bolero::check!().for_each(|input: &[u8]| {
            let line = String::from_utf8_lossy(input);
            for challenge in parse([&*line]) {
                assert!(!challenge.scheme.is_empty());
                assert!(challenge.scheme.bytes().all(|byte| is_token(byte) && !byte.is_ascii_uppercase()));
                assert!(challenge.token68.is_none() || challenge.parameters.is_empty());
            }
        });
    }
}
