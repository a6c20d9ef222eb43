//! The key pairs that bundles are signed with: Ed25519 (RFC 8032).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

const SCHEME: &str = "ed25519:";
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// The half of a key pair that checks signatures: `ed25519:` and 32 bytes in base64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; ED25519_PUBLIC_KEY_LEN]);

/// The half of a key pair that signs. Kept as PKCS #8 in PEM.
pub struct SigningKey(Ed25519KeyPair);

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is no public key.
    #[error("a public key is written ed25519:<44 characters of base64>")]
    Public,
    /// It is no private key.
    #[error("the file does not hold an Ed25519 private key as `tidegate key create` writes it")]
    Private,
    /// The system gave no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

impl PublicKey {
    /// Whether `signature` is one of `message` with the private half of this key.
    pub fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let encoded = text.trim().strip_prefix(SCHEME).ok_or(KeyError::Public)?;
        let bytes = STANDARD.decode(encoded).map_err(|_unshown| KeyError::Public)?;
        bytes.try_into().map(Self).map_err(|_other_length| KeyError::Public)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SigningKey {
    /// Makes a key pair; its PEM is what has to be kept, and kept secret.
    pub fn generate() -> Result<(Self, String), KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let document = document.map_err(|_unspecified| KeyError::NoRandomness)?;
        let pem = format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(document.as_ref()));
        Ok((Self::from_pem(&pem)?, pem))
    }

    /// Reads a private key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let (_, rest) = pem.split_once(PEM_BEGIN).ok_or(KeyError::Private)?;
        let (encoded, _) = rest.split_once(PEM_END).ok_or(KeyError::Private)?;
        let encoded: String = encoded.split_ascii_whitespace().collect();
        let document = STANDARD.decode(encoded).map_err(|_unshown| KeyError::Private)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&document);
        pair.map(Self).map_err(|_unshown| KeyError::Private)
    }

    /// The other half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; ED25519_PUBLIC_KEY_LEN];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs; the same message has always the same signature.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let (key, pem) = SigningKey::generate().unwrap();
        let (other, _) = SigningKey::generate().unwrap();
        let signature = SigningKey::from_pem(&pem).unwrap().sign(b"message");
        assert!(key.public().accepts(b"message", &signature));
        assert!(!key.public().accepts(b"messagf", &signature));
        assert!(!other.public().accepts(b"message", &signature));
        assert!(!key.public().accepts(b"message", &signature[1..]));
    }

    #[test]
    fn keys_read_back_and_others_are_refused() {
        let (key, pem) = SigningKey::generate().unwrap();
        assert_eq!(format!("{}\n", key.public()).parse(), Ok(key.public()));
        for bad in ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", &pem] {
            assert_eq!(bad.parse::<PublicKey>(), Err(KeyError::Public), "{bad}");
        }
        for bad in ["", PEM_BEGIN, &pem.replace('M', "A"), &key.public().to_string()] {
            assert_eq!(SigningKey::from_pem(bad).err(), Some(KeyError::Private), "{bad}");
        }
        assert!(!format!("{key:?}").contains(&pem[30..50]));
    }
}
