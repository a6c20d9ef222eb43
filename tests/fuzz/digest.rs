//! Digests: whatever is accepted is written back as it was read.

use tidegate::oci::{Digest, DigestError, Reference};

#[test]
fn digest() {
    crate::target!("digest", |input: &[u8]| {
        let text = crate::text(input);
        match text.parse::<Digest>() {
            Ok(digest) => {
                assert_eq!(digest.to_string(), text);
                assert_eq!(digest.hex().len(), digest.algorithm().length() * 2);
                assert_eq!(text.parse(), Ok(Reference::Digest(digest)));
            }
            Err(DigestError::Malformed | DigestError::UnsupportedAlgorithm) => {}
        }
    });
}
