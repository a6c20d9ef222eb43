//! `Range`: bounded in number, within the content, in the order asked for.

use tidegate::oci::{ByteRange, RangeSet};

#[test]
fn range() {
    crate::target!("range", |input: &[u8]| {
        let text = crate::text(input);
        let Ok(Some(set)) = RangeSet::parse(&text) else { return };
        assert!((1..=RangeSet::MAX).contains(&set.ranges().len()));
        for size_bytes in [0, 1, 10, 1 << 20, u64::MAX] {
            let resolved = set.resolve(size_bytes).unwrap_or_default();
            assert!(resolved.len() <= set.ranges().len());
            assert!(resolved.iter().all(|range| range.start < range.end && range.end <= size_bytes));
            // Each is what one of those asked for means, and they come in that order.
            let mut asked = set.ranges().iter();
            for range in &resolved {
                assert!(asked.any(|asked| match *asked {
                    ByteRange::Closed(first, last) => first == range.start && last >= range.end - 1,
                    ByteRange::From(first) => first == range.start && range.end == size_bytes,
                    ByteRange::Suffix(length) => length >= range.end - range.start && range.end == size_bytes,
                }));
            }
        }
        let written: Vec<_> = set.ranges().iter().map(ToString::to_string).collect();
        assert_eq!(RangeSet::parse(&format!("bytes={}", written.join(","))), Ok(Some(set)));
    });
}
