//! Tokens that this service issues and reads: JWTs (RFC 7519), signed by HMAC with SHA-256.
//!
//! Nothing is kept of them: all nodes have the key, and what a token grants stands in it. The signature is looked at
//! before anything else is believed, and only one algorithm is known, whatever the token names.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::{Actions, Grants, random_bytes};
use crate::config::Secret;
use crate::metadata::catalogue::{AccountName, SigningKeyRecord};
use crate::runtime::Timestamp;

/// What the service is called in challenges and tokens, whatever name clients reach it by.
pub const SERVICE: &str = "tidegate";

/// Issues tokens, and reads them.
#[derive(Clone)]
pub struct Tokens {
    key_id: String,
    key: hmac::Key,
    lifetime: Duration,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Whom it was issued to; nobody in particular without.
    pub(super) account: Option<AccountName>,
    /// What it grants.
    pub(super) grants: Grants,
}

/// Why a token is not taken. Clients are told the same of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenFault {
    /// It is no token of this kind.
    #[error("token is malformed")]
    Malformed,
    /// It is signed otherwise, or not at all.
    #[error("token is not signed by HS256")]
    Algorithm,
    /// It was signed with another key.
    #[error("token is signed with another key")]
    OtherKey,
    /// It was altered, or signed by somebody else.
    #[error("signature of token is wrong")]
    Signature,
    /// It is of, or for, another service.
    #[error("token is for another service")]
    OtherService,
    /// Its time is over.
    #[error("token has expired")]
    Expired,
    /// Its time has not come.
    #[error("token is not valid yet")]
    NotYet,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    typ: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// Empty where the token was issued to nobody in particular.
    sub: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    #[serde(default)]
    access: Vec<Access>,
}

#[derive(Serialize, Deserialize)]
struct Access {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

impl Tokens {
    /// Tokens that are signed with `key` and are good for `lifetime`.
    pub fn new(key: &SigningKeyRecord, lifetime: Duration) -> Self {
        Self { key_id: key.id.clone(), key: hmac::Key::new(hmac::HMAC_SHA256, &key.secret), lifetime }
    }

    /// A fresh key, for the case that there is none yet.
    pub(super) fn candidate(now: Timestamp) -> io::Result<SigningKeyRecord> {
        let id = URL_SAFE_NO_PAD.encode(random_bytes::<9>()?);
        Ok(SigningKeyRecord { id, secret: random_bytes::<32>()?.to_vec(), created_at: now })
    }

    /// How long a token is good for.
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub(super) fn issue(&self, shown: &Shown, now: Timestamp) -> Secret {
        let seconds = now.as_millis() / 1000;
        let header = Header { alg: ALGORITHM.to_owned(), kid: self.key_id.clone(), typ: "JWT".to_owned() };
        let access = shown.grants.iter().map(|(repository, actions)| Access {
            kind: REPOSITORY.to_owned(),
            name: repository.to_string(),
            actions: actions.words().map(str::to_owned).collect(),
        });
        let claims = Claims {
            iss: SERVICE.to_owned(),
            aud: SERVICE.to_owned(),
            sub: shown.account.as_ref().map(ToString::to_string).unwrap_or_default(),
            exp: seconds + self.lifetime.as_secs(),
            nbf: seconds,
            iat: seconds,
            // Only a name: nobody has to be unable to guess it.
            jti: format!("{:032x}", fastrand::u128(..)),
            access: access.collect(),
        };
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, signed.as_bytes()));
        Secret::new(format!("{signed}.{signature}"))
    }

    pub(super) fn read(&self, token: &Secret, now: Timestamp) -> Result<Shown, TokenFault> {
        let text = token.expose();
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenFault::Malformed)?;
        let header: Header = decode(header)?;
        if header.alg != ALGORITHM {
            return Err(TokenFault::Algorithm);
        }
        if header.kid != self.key_id {
            return Err(TokenFault::OtherKey);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok().ok_or(TokenFault::Malformed)?;
        hmac::verify(&self.key, signed.as_bytes(), &signature).ok().ok_or(TokenFault::Signature)?;
        let claims: Claims = decode(claims)?;
        if claims.iss != SERVICE || claims.aud != SERVICE {
            return Err(TokenFault::OtherService);
        }
        let seconds = now.as_millis() / 1000;
        if seconds >= claims.exp.saturating_add(CLOCK_SKEW_SECONDS) {
            return Err(TokenFault::Expired);
        }
        if claims.nbf > seconds + CLOCK_SKEW_SECONDS {
            return Err(TokenFault::NotYet);
        }
        claims.into_shown()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Claims {
    fn into_shown(self) -> Result<Shown, TokenFault> {
        let account = match self.sub.as_str() {
            "" => None,
            name => Some(name.parse().ok().ok_or(TokenFault::Malformed)?),
        };
        let mut grants = Grants::default();
        for Access { kind, name, actions } in self.access {
            let repository = name.parse().ok().filter(|_| kind == REPOSITORY);
            if let Some(repository) = repository {
                let actions = actions.iter().map(|word| Actions::of_word(word));
                grants.add(&repository, actions.fold(Actions::NONE, Actions::or));
            }
        }
        Ok(Shown { account, grants })
    }
}

fn encode(part: &impl Serialize) -> String {
    let json = serde_json::to_vec(part).expect("texts and numbers are JSON");
    URL_SAFE_NO_PAD.encode(json)
}

fn decode<T: for<'a> Deserialize<'a>>(part: &str) -> Result<T, TokenFault> {
    let json = URL_SAFE_NO_PAD.decode(part).ok().ok_or(TokenFault::Malformed)?;
    serde_json::from_slice(&json).ok().ok_or(TokenFault::Malformed)
}

const ALGORITHM: &str = "HS256";

/// The type of what tokens are about.
const REPOSITORY: &str = "repository";

/// How far the clocks of nodes may be apart.
const CLOCK_SKEW_SECONDS: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_999);

    fn key(id: &str, byte: u8) -> SigningKeyRecord {
        SigningKeyRecord { id: id.to_owned(), secret: vec![byte; 32], created_at: NOW }
    }

    fn tokens() -> Tokens {
        Tokens::new(&key("one", 1), Duration::from_mins(5))
    }

    fn shown() -> Shown {
        let mut grants = Grants::default();
        grants.add(&"team/app".parse().unwrap(), Actions::PULL.or(Actions::PUSH));
        Shown { account: Some("somebody".parse().unwrap()), grants }
    }

    /// A token whose parts are texts; signed with the right key.
    fn signed(header: &str, claims: &str) -> Secret {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&tokens().key, signed.as_bytes()));
        Secret::new(format!("{signed}.{signature}"))
    }

    #[test]
    fn what_was_issued_is_read_on_every_node() {
        for shown in [shown(), Shown { account: None, grants: Grants::default() }] {
            let token = tokens().issue(&shown, NOW);
            assert_eq!(tokens().read(&token, NOW), Ok(shown));
        }
    }

    #[test]
    fn claims_are_those_of_the_specification() {
        let token = tokens().issue(&shown(), NOW);
        let claims = token.expose().split('.').nth(1).unwrap();
        let mut claims: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        assert_eq!(claims["jti"].take().as_str().unwrap().len(), 32);
        let expected = serde_json::json!({
            "iss": "tidegate", "aud": "tidegate", "sub": "somebody", "jti": null,
            "exp": 1_790_000_300, "nbf": 1_790_000_000, "iat": 1_790_000_000,
            "access": [{ "type": "repository", "name": "team/app", "actions": ["pull", "push"] }],
        });
        assert_eq!(claims, expected);
    }

    #[test]
    fn a_token_is_good_for_its_time_and_the_skew_of_clocks() {
        let token = tokens().issue(&shown(), NOW);
        let read = |seconds: i64| {
            let at = NOW.as_millis().checked_add_signed(seconds * 1000).unwrap();
            tokens().read(&token, Timestamp::from_millis(at)).map(|_| ())
        };
        for good in [-60, 0, 299, 300, 359] {
            assert_eq!(read(good), Ok(()), "{good}");
        }
        assert_eq!(read(-61), Err(TokenFault::NotYet));
        assert_eq!(read(360), Err(TokenFault::Expired));
    }

    #[test]
    fn what_was_altered_at_any_place_is_refused() {
        let token = tokens().issue(&shown(), NOW);
        let text = token.expose();
        for place in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let altered = Secret::new(String::from_utf8(bytes).unwrap());
            assert!(tokens().read(&altered, NOW).is_err(), "{place}");
            let shortened = Secret::new(&text[..place]);
            assert!(tokens().read(&shortened, NOW).is_err(), "{place}");
        }
    }

    #[test]
    fn other_keys_algorithms_and_services_are_told_apart() {
        let read = |token: &Secret| tokens().read(token, NOW);
        let token = Tokens::new(&key("two", 2), Duration::from_mins(5)).issue(&shown(), NOW);
        assert_eq!(read(&token), Err(TokenFault::OtherKey));
        let token = Tokens::new(&key("one", 2), Duration::from_mins(5)).issue(&shown(), NOW);
        assert_eq!(read(&token), Err(TokenFault::Signature));

        let claims =
            r#"{"iss":"tidegate","aud":"tidegate","sub":"x","exp":1790000300,"nbf":0,"iat":0,"jti":""}"#;
        let good = r#"{"alg":"HS256","kid":"one","typ":"JWT"}"#;
        assert!(read(&signed(good, claims)).is_ok());
        for (header, claims, fault) in [
            (r#"{"alg":"none","kid":"one"}"#, claims, TokenFault::Algorithm),
            (r#"{"alg":"hs256","kid":"one"}"#, claims, TokenFault::Algorithm),
            (r#"{"alg":"RS256","kid":"one"}"#, claims, TokenFault::Algorithm),
            (r#"{"kid":"one"}"#, claims, TokenFault::Malformed),
            (r#"{"alg":"HS256"}"#, claims, TokenFault::OtherKey),
            (good, &claims.replacen("tidegate", "other", 1), TokenFault::OtherService),
            (good, &claims.replace(r#""aud":"tidegate""#, r#""aud":"other""#), TokenFault::OtherService),
            (good, &claims.replace(r#""exp":1790000300,"#, ""), TokenFault::Malformed),
            (good, &claims.replace(r#""sub":"x""#, r#""sub":"../x""#), TokenFault::Malformed),
            (good, "[]", TokenFault::Malformed),
        ] {
            assert_eq!(read(&signed(header, claims)), Err(fault), "{header} {claims}");
        }
        // An unsigned one, as libraries that believe the header take it.
        let unsigned = signed(r#"{"alg":"none"}"#, claims);
        let (unsigned, _) = unsigned.expose().rsplit_once('.').unwrap();
        assert_eq!(read(&Secret::new(format!("{unsigned}."))), Err(TokenFault::Algorithm));
        for text in ["", ".", "..", "a.b", "a.b.c", "é.é.é"] {
            assert_eq!(read(&Secret::new(text)), Err(TokenFault::Malformed), "{text}");
        }
    }

    #[test]
    fn no_key_prints() {
        let shown = format!("{:?}", Tokens::new(&key("one", 77), Duration::from_mins(5)));
        assert_eq!(shown, "Tokens { key_id: \"one\", .. }");
        assert!(!format!("{:?}", key("one", 77)).contains("77"));
    }
}
