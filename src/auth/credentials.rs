//! What a client shows of who it is (RFC 7617, RFC 6750).

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::config::Secret;

/// What a client shows of who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    Anonymous,
    /// A name and a password.
    Basic {
        /// The name as it was sent.
        name: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Bearer(Secret),
    /// Something else, or something that cannot be read.
    Other,
}

impl Credentials {
    /// Reads the value of `Authorization`. A Basic without name and password is nothing: some clients send it for want of
    /// either.
    pub fn parse(authorization: Option<&[u8]>) -> Self {
        let Some(text) = authorization else { return Self::Anonymous };
        let Ok(text) = std::str::from_utf8(text) else { return Self::Other };
        let (scheme, rest) = text.trim_ascii().split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim_ascii();
        if scheme.eq_ignore_ascii_case("basic") {
            return Self::parse_basic(rest).unwrap_or(Self::Other);
        }
        if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() {
            return Self::Bearer(Secret::new(rest));
        }
        Self::Other
    }

    /// A name and a password, or nothing where both are empty.
    pub fn of_password(name: &str, password: &str) -> Self {
        if name.is_empty() && password.is_empty() {
            return Self::Anonymous;
        }
        Self::Basic { name: name.to_owned(), password: Secret::new(password) }
    }

    fn parse_basic(encoded: &str) -> Option<Self> {
        let decoded = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        Some(Self::of_password(name, password))
    }
}

/// Not all clients pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(name: &str, password: &str) -> Credentials {
        Credentials::Basic { name: name.to_owned(), password: Secret::new(password) }
    }

    #[test]
    fn credentials_are_read_as_clients_send_them() {
        for (text, expected) in [
            ("Basic YWRtaW46c2VjcmV0", basic("admin", "secret")),
            ("basic  YWRtaW46c2VjcmV0 ", basic("admin", "secret")),
            ("BASIC YTpiOmM=", basic("a", "b:c")),
            ("Basic YTpiOmM", basic("a", "b:c")),
            ("Basic YTo=", basic("a", "")),
            ("Basic OmE=", basic("", "a")),
            ("Basic w6k6w6k=", basic("é", "é")),
            ("Basic Og==", Credentials::Anonymous),
            ("Bearer a.b.c", Credentials::Bearer(Secret::new("a.b.c"))),
            ("bearer a.b.c", Credentials::Bearer(Secret::new("a.b.c"))),
            ("Bearer", Credentials::Other),
            ("Bearer ", Credentials::Other),
            ("Basic", Credentials::Other),
            ("Basic YQ==", Credentials::Other),
            ("Basic !", Credentials::Other),
            ("Basic /////w==", Credentials::Other),
            ("Negotiate abc", Credentials::Other),
            ("", Credentials::Other),
        ] {
            assert_eq!(Credentials::parse(Some(text.as_bytes())), expected, "{text}");
        }
        assert_eq!(Credentials::parse(Some(b"Basic \xff")), Credentials::Other);
        assert_eq!(Credentials::parse(None), Credentials::Anonymous);
    }

    #[test]
    fn nothing_secret_of_them_prints() {
        for text in ["Basic YWRtaW46c2VjcmV0", "Bearer secret"] {
            let shown = format!("{:?}", Credentials::parse(Some(text.as_bytes())));
            assert!(!shown.contains("secret") && shown.contains("[redacted]"), "{shown}");
        }
    }
}
