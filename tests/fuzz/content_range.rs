//! `Content-Range`: positions make sense, and are written back as they were meant.

use tidegate::oci::ContentRange;

#[test]
fn content_range() {
    crate::target!("content_range", |input: &[u8]| {
        let Some(parsed) = ContentRange::parse(&crate::text(input)) else { return };
        if let Some(range) = &parsed.range {
            assert!(range.start < range.end);
            assert!(parsed.total_bytes.is_none_or(|total| range.end <= total));
        } else {
            assert!(parsed.total_bytes.is_some());
        }
        assert_eq!(ContentRange::parse(&parsed.to_string()), Some(parsed));
    });
}
