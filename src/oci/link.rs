//! `Link` headers (RFC 8288), as far as pagination uses them.

use super::query::decode_query;

/// The most links that are read of one header value; the rest is ignored.
const MAX_LINKS: usize = 64;

/// One link of a `Link` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The target as written between the angle brackets.
    pub target: String,
    /// The relation types, lower-case.
    pub relations: Vec<String>,
}

/// Where the next page of a listing starts: the query of a `rel="next"` link.
///
/// Only the query counts: host and path of an upstream's link are never passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextPage {
    /// The decoded `name=value` pairs of the link's query, in order.
    pub query: Vec<(String, String)>,
}

impl Link {
    /// Reads all links of one header value; malformed parts are left out.
    pub fn parse_all(value: &str) -> Vec<Self> {
        let mut links = Vec::new();
        let mut rest = value;
        while links.len() < MAX_LINKS {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let Some((target, parameters)) =
                rest.strip_prefix('<').and_then(|bracketed| bracketed.split_once('>'))
            else {
                rest = skip_to(rest, ',');
                continue;
            };
            let (relations, after) = parse_relations(parameters);
            links.push(Self { target: target.to_owned(), relations });
            rest = after;
        }
        links
    }
}

impl NextPage {
    /// Finds the `rel="next"` link among the header's lines. A link without a query is none: it
    /// would lead to the same page again.
    pub fn from_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        lines
            .into_iter()
            .flat_map(Link::parse_all)
            .filter(|link| link.relations.iter().any(|relation| relation == "next"))
            .find_map(|link| Self::from_target(&link.target))
    }

    fn from_target(target: &str) -> Option<Self> {
        let (without_fragment, _) = target.split_once('#').unwrap_or((target, ""));
        let query = decode_query(without_fragment.split_once('?')?.1);
        if query.is_empty() { None } else { Some(Self { query }) }
    }
}

/// Reads the parameters behind a target (RFC 8288, appendix B.3): gives the relation types of the
/// first `rel`, which alone counts (section 3.3), and what follows the link.
fn parse_relations(parameters: &str) -> (Vec<String>, &str) {
    let mut relations = None;
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        let Some(parameter) = rest.strip_prefix(';') else {
            // The end of the link, or rubbish before its end.
            return (relations.unwrap_or_default(), skip_to(rest, ','));
        };
        let (name, value, after) = split_parameter(parameter);
        if relations.is_none() && name.eq_ignore_ascii_case("rel") {
            relations = Some(value.split_ascii_whitespace().map(str::to_ascii_lowercase).collect());
        }
        rest = after;
    }
}

/// Splits `name=value` off its front: name, unquoted value, rest.
fn split_parameter(text: &str) -> (&str, String, &str) {
    let name_end = text.find(['=', ';', ',']).unwrap_or(text.len());
    let (name, rest) = text.split_at(name_end);
    let Some(value) = rest.strip_prefix('=') else { return (name.trim(), String::new(), rest) };
    let value = value.trim_start_matches([' ', '\t']);
    if let Some(quoted) = value.strip_prefix('"') {
        let (value, rest) = unquote(quoted);
        return (name.trim(), value, rest);
    }
    let (value, rest) = value.split_at(value.find([';', ',']).unwrap_or(value.len()));
    (name.trim(), value.trim().to_owned(), rest)
}

/// Reads a quoted string whose opening quote is gone (RFC 9110, section 5.6.4): content and rest. One
/// that never closes goes to the end.
fn unquote(text: &str) -> (String, &str) {
    let mut content = String::new();
    let mut characters = text.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return (content, &text[position + 1..]),
            '\\' => content.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => content.push(character),
        }
    }
    (content, "")
}

/// What follows the next `separator` that stands outside quotes.
fn skip_to(text: &str, separator: char) -> &str {
    let mut quoted = false;
    let mut characters = text.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '\\' if quoted => drop(characters.next()),
            '"' => quoted = !quoted,
            _ if character == separator && !quoted => return &text[position + character.len_utf8()..],
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(lines: &[&str]) -> Option<String> {
        let page = NextPage::from_lines(lines.iter().copied())?;
        let pairs: Vec<_> = page.query.iter().map(|(name, value)| format!("{name}={value};")).collect();
        Some(pairs.concat())
    }

    #[test]
    fn all_links_of_a_value_are_read() {
        let links = Link::parse_all(
            r#"</a,b?x=;>; title="a, \"<c>\"; rel=no" ; REL="Prev Start";rel=next, junk "x,y", <d>;rel = next,<e>"#,
        );
        let links: Vec<_> =
            links.iter().map(|link| (link.target.as_str(), link.relations.join(" "))).collect();
        assert_eq!(links, [("/a,b?x=;", "prev start".into()), ("d", "next".into()), ("e", String::new())]);
    }

    #[test]
    fn only_the_query_of_the_next_link_survives() {
        // What registries are known to send: relative, absolute, unquoted, several links or lines.
        let cases: [(&[&str], Option<&str>); 12] = [
            (&[r#"</v2/x/tags/list?last=b&n=2>; rel="next""#], Some("last=b;n=2;")),
            (&[r#"<https://evil.example/y?n=2&last=a%2Fb#z>; rel="next""#], Some("n=2;last=a/b;")),
            (&["<?last=b>;rel=next"], Some("last=b;")),
            (&[r#"</x?a=1>; rel="prev", </x?a=3>; rel="next""#], Some("a=3;")),
            (&[r#"</x?a=1>; rel="prev""#, r#"</x?a=3>; rel="last NEXT""#], Some("a=3;")),
            (&[r#"</x?a=1>; foo; rel="next"; bar=baz"#], Some("a=1;")),
            (&[r#"</x?a=1>; rel="prev"; rel="next""#], None),
            (&[r#"</x>; rel="next""#], None),
            (&[r#"</x?>; rel="next""#], None),
            (&[r#"/x?a=1; rel="next""#], None),
            (&[r#"</x?a=1; rel="next""#], None),
            (&[], None),
        ];
        for (lines, query) in cases {
            assert_eq!(next(lines).as_deref(), query, "{lines:?}");
        }
    }

    #[test]
    fn any_target_between_brackets_is_found_again() {
        bolero::check!().with_type::<(String, String)>().for_each(|(target, junk)| {
            let (target, junk) = (target.replace('>', ""), junk.replace(['"', '\\'], ""));
            let links = Link::parse_all(&format!("<{target}>; title=\"{junk}\"; rel=next, <second>"));
            assert_eq!(links[0], Link { target, relations: vec!["next".into()] });
            assert_eq!(links[1].target, "second");
        });
    }

    #[test]
    fn a_value_full_of_links_is_cut_off() {
        assert_eq!(Link::parse_all(&"<a>,".repeat(10_000)).len(), MAX_LINKS);
    }
}
