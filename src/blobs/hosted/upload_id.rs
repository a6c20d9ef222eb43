//! Names of uploads.

use std::fmt;
use std::io;
use std::str::FromStr;

use ring::rand::{SecureRandom as _, SystemRandom};

/// The name of an upload: who knows it may go on with it, so that it cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(u128);

/// The text is no name of an upload: 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("upload identifier is not 32 lower-case hex digits")]
pub struct UploadIdError;

impl UploadId {
    /// Makes a name that no other upload has.
    pub(super) fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_unspecified| io::Error::other("the system gives no random numbers"))?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }
}

impl FromStr for UploadId {
    type Err = UploadIdError;

    fn from_str(text: &str) -> Result<Self, UploadIdError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(UploadIdError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_impossible| UploadIdError)
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_reads_back_and_nothing_else_is_one() {
        let id = UploadId::random().unwrap();
        assert_ne!(id, UploadId::random().unwrap());
        assert_eq!(id.to_string().parse(), Ok(id));
        let text = "0123456789abcdef0123456789abcdef";
        assert_eq!(text.parse::<UploadId>().unwrap().to_string(), text);
        let upper = text.to_uppercase();
        for bad in ["", "..", "../../etc/passwd", &text[1..], &upper, "+123456789abcdef0123456789abcdef"] {
            assert_eq!(bad.parse::<UploadId>(), Err(UploadIdError), "{bad}");
        }
    }
}
