//! `Link`: targets hold no bracket, and a next page's query is written back as it was read.

use tidegate::oci::{Link, NextPage, decode_query, encode_query};

#[test]
fn link() {
    crate::target!("link", |input: &[u8]| {
        let text = crate::text(input);
        for link in Link::parse_all(&text) {
            assert!(!link.target.contains('>'));
            assert!(text.contains(&link.target));
            assert!(link.relations.iter().all(|relation| !relation.contains(char::is_whitespace)));
        }
        let Some(next) = NextPage::from_lines(text.lines()) else { return };
        let written = encode_query(&next.query);
        assert!(!written.is_empty() && written.is_ascii() && !written.contains(char::is_control));
        assert_eq!(decode_query(&written), next.query);
    });
}
