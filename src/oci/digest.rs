//! Content digests (OCI image specification, "Digests").

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

/// A registered digest algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, the default.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The algorithm's registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The digest's length in bytes.
    pub const fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// The digest of some content: `algorithm:hex`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// The first `algorithm.length()` bytes count; the rest is zero.
    bytes: [u8; 64],
}

/// Why a text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text is not `algorithm:encoded`, or the encoded part is not lower-case hex of the
    /// algorithm's length.
    #[error("digest is not of the form sha256:<64 lower-case hex digits> or sha512:<128>")]
    Malformed,
    /// The grammar is right, but the algorithm is not one of the registered two.
    #[error("digest algorithm is neither sha256 nor sha512")]
    UnsupportedAlgorithm,
}

impl Digest {
    /// The digest of `content`, which is all at hand.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// The algorithm that made it.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The encoded part: lower-case hex.
    pub fn hex(&self) -> String {
        self.with_hex(str::to_owned)
    }

    /// Lends the encoded part without an allocation: answers name content twice each.
    fn with_hex<T>(&self, reader: impl FnOnce(&str) -> T) -> T {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 128];
        let length = self.algorithm.length();
        for (pair, byte) in text.chunks_exact_mut(2).zip(&self.bytes[..length]) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        reader(std::str::from_utf8(&text[..2 * length]).expect("hex digits are ASCII"))
    }

    fn from_bytes(algorithm: Algorithm, digest: &[u8]) -> Self {
        let mut bytes = [0; 64];
        bytes[..digest.len()].copy_from_slice(digest);
        Self { algorithm, bytes }
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let algorithm = match algorithm {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            other if is_algorithm(other) && is_encoded(hex) => {
                return Err(DigestError::UnsupportedAlgorithm);
            }
            _ => return Err(DigestError::Malformed),
        };
        if hex.len() != algorithm.length() * 2 {
            return Err(DigestError::Malformed);
        }
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let high = nibble(pair[0]).ok_or(DigestError::Malformed)?;
            let low = nibble(pair[1]).ok_or(DigestError::Malformed)?;
            *byte = high << 4 | low;
        }
        Ok(Self { algorithm, bytes })
    }
}

/// `algorithm-component *(separator algorithm-component)` of the image specification.
fn is_algorithm(text: &str) -> bool {
    text.split(['+', '.', '_', '-']).all(|component| {
        !component.is_empty()
            && component.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

fn is_encoded(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'_' | b'-'))
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.as_str())?;
        f.write_str(":")?;
        self.with_hex(|hex| f.write_str(hex))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Computes a digest as the content comes.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// Starts with no content.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Takes in the next part of the content.
    pub fn update(&mut self, content: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(content),
            State::Sha512(state) => state.update(content),
        }
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::from_bytes(Algorithm::Sha256, &state.finalize()),
            State::Sha512(state) => Digest::from_bytes(Algorithm::Sha512, &state.finalize()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_reads_back_as_it_was_written() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::of(Algorithm::Sha256, b"")));
        let long = Digest::of(Algorithm::Sha512, b"x").to_string();
        assert_eq!(long.len(), 7 + 128);
        assert_eq!(long.parse::<Digest>().unwrap().to_string(), long);
    }

    #[test]
    fn malformed_digests_are_told_from_unsupported_ones() {
        let upper = EMPTY.replace("e3b", "E3B");
        for text in ["", "sha256", "sha256:", ":ab", "sha256:ab", &EMPTY[..70], &upper, "SHA256:ab"] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError::Malformed), "{text}");
        }
        assert_eq!("blake3:abcd".parse::<Digest>(), Err(DigestError::UnsupportedAlgorithm));
    }
}
