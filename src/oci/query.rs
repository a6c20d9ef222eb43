//! The query of a URL as `name=value` pairs.
//!
//! A `+` stands for itself (RFC 3986), not for a space: no parameter of the specifications holds a
//! space, and media types (`artifactType=application/vnd.x+json`) arrive with a bare `+`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The most pairs that are read; the rest is ignored.
const MAX_PAIRS: usize = 128;

/// What is not written as itself in a name or value: all but the unreserved characters of RFC 3986,
/// and `/` and `:`, which a query may hold.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

/// Reads the pairs of a query, percent-decoded once, in order. A pair without `=` has an empty
/// value; what is no UTF-8 is replaced; pairs after the first 128 are ignored.
pub fn decode_query(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .take(MAX_PAIRS)
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// Writes pairs as a query, so that [`decode_query`] reads them back; empty for no pairs.
pub fn encode_query<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        if !query.is_empty() {
            query.push('&');
        }
        query.extend(utf8_percent_encode(name.as_ref(), ESCAPED));
        query.push('=');
        query.extend(utf8_percent_encode(value.as_ref(), ESCAPED));
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_once_and_keep_their_order() {
        let cases: [(&str, &[(&str, &str)]); 6] = [
            ("", &[]),
            ("&&", &[]),
            ("n=5&last=b&n=6", &[("n", "5"), ("last", "b"), ("n", "6")]),
            ("ns=reg%3A5000&x", &[("ns", "reg:5000"), ("x", "")]),
            ("artifactType=application/a+json", &[("artifactType", "application/a+json")]),
            ("a=%2541&b=%zz&c=%ff&d==", &[("a", "%41"), ("b", "%zz"), ("c", "\u{fffd}"), ("d", "=")]),
        ];
        for (query, pairs) in cases {
            let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(decode_query(query), pairs, "{query}");
        }
        assert_eq!(decode_query(&"a=b&".repeat(1000)).len(), MAX_PAIRS);
    }

    #[test]
    fn written_pairs_are_read_back() {
        assert_eq!(
            encode_query(&[("ns", "reg:5000"), ("last", "a b&c=\r\n")]),
            "ns=reg:5000&last=a%20b%26c%3D%0D%0A"
        );
        bolero::check!().with_type::<Vec<(String, String)>>().for_each(|pairs| {
            let pairs = &pairs[..pairs.len().min(MAX_PAIRS)];
            assert_eq!(decode_query(&encode_query(pairs)), pairs);
        });
    }
}
