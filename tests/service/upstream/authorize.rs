//! How a scripted upstream decides whom to answer: not at all, by password, or by tokens that it or
//! another server grants.

use std::collections::HashSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, header};
use serde_json::json;

use super::answer::Answer;
use super::request::{Kind, Request};

/// Whom an upstream answers.
#[derive(Clone, Debug, Default)]
pub(crate) enum Access {
    /// Everybody.
    #[default]
    Open,
    /// Those with name and password.
    Basic(String, String),
    /// Those with one of these names, and the password `of-` and the name.
    Users(Vec<String>),
    /// Those with a token for the repository.
    Bearer(Bearer),
}

/// How tokens are asked for, granted and refused.
#[derive(Clone, Debug)]
pub(crate) struct Bearer {
    /// The `realm` of challenges.
    pub(crate) realm: String,
    /// The `service` of challenges; Artifact Registry leaves it out.
    pub(crate) service: Option<String>,
    /// Whether challenges carry a `scope`; quay.io leaves it out of some.
    pub(crate) names_scope: bool,
    /// The `expires_in` of answers.
    pub(crate) expires_in: Option<u64>,
    /// Whose tokens alone are granted; others are refused with 401.
    pub(crate) credentials: Option<(String, String)>,
    /// What an expired token is answered: 401, or 400 without a challenge (ECR Public).
    pub(crate) expired: StatusCode,
}

impl Bearer {
    /// Tokens for everybody, from this realm.
    pub(crate) fn of_realm(realm: &str) -> Self {
        Self {
            realm: realm.to_owned(),
            service: Some("scripted".to_owned()),
            names_scope: true,
            expires_in: Some(300),
            credentials: None,
            expired: StatusCode::UNAUTHORIZED,
        }
    }
}

/// Tokens as they are granted, presented and expire.
#[derive(Default)]
pub(super) struct Tokens {
    granted: u64,
    presented: HashSet<String>,
    expired: HashSet<String>,
}

impl Tokens {
    /// From now on no token counts that was ever presented.
    pub(super) fn expire(&mut self) {
        self.expired.extend(self.presented.drain());
    }

    /// Grants what is asked for, to whom it may be granted.
    pub(super) fn grant(&mut self, access: &Access, request: &Request) -> Answer {
        let Access::Bearer(bearer) = access else {
            return Answer::error(StatusCode::NOT_FOUND, "UNSUPPORTED");
        };
        let refused = bearer
            .credentials
            .as_ref()
            .is_some_and(|(user, password)| basic_of(request) != Some(format!("{user}:{password}")));
        if refused {
            return Answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        }
        self.granted += 1;
        let token = format!("granted.{}.{}", self.granted, request.parameters("scope").join("+"));
        let mut body = json!({ "token": token });
        if let Some(seconds) = bearer.expires_in {
            body["expires_in"] = json!(seconds);
        }
        Answer::new(StatusCode::OK, "application/json", body.to_string())
    }

    /// The refusal, unless the request may be answered.
    pub(super) fn refusal(&mut self, access: &Access, request: &Request) -> Option<Answer> {
        if matches!(request.kind, Kind::Token | Kind::Cdn) {
            return None;
        }
        match access {
            Access::Open => None,
            Access::Basic(user, password) => {
                let right = basic_of(request) == Some(format!("{user}:{password}"));
                (!right).then(|| refusal("Basic realm=\"scripted\""))
            }
            Access::Users(users) => {
                let right = users.iter().any(|user| basic_of(request) == Some(format!("{user}:of-{user}")));
                (!right).then(|| refusal("Basic realm=\"scripted\""))
            }
            Access::Bearer(bearer) => self.bearer_refusal(bearer, request),
        }
    }

    fn bearer_refusal(&mut self, bearer: &Bearer, request: &Request) -> Option<Answer> {
        let challenge = |error: &str| {
            let mut challenge = format!("Bearer realm=\"{}\"", bearer.realm);
            if let Some(service) = &bearer.service {
                let _ = write!(challenge, ",service=\"{service}\"");
            }
            if bearer.names_scope && !request.repository.is_empty() {
                let _ = write!(challenge, ",scope=\"repository:{}:pull\"", request.repository);
            }
            Some(refusal(&(challenge + error)))
        };
        let sent = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let Some(token) = sent.filter(|token| token.starts_with("granted.")) else {
            return challenge("");
        };
        self.presented.insert(token.to_owned());
        if self.expired.contains(token) {
            return match bearer.expired {
                StatusCode::UNAUTHORIZED => challenge(",error=\"invalid_token\""),
                other => Some(Answer::error(other, "DENIED")),
            };
        }
        let scope = format!("repository:{}:", request.repository);
        if !request.repository.is_empty() && bearer.names_scope && !token.contains(&scope) {
            return challenge(",error=\"insufficient_scope\"");
        }
        None
    }
}

/// The answer to those who may not know whether a repository exists.
pub(super) fn hidden(access: &Access, request: &Request) -> Answer {
    match access {
        Access::Bearer(bearer) => refusal(&format!(
            "Bearer realm=\"{}\",service=\"scripted\",scope=\"repository:{}:pull\",error=\"insufficient_scope\"",
            bearer.realm, request.repository
        )),
        _ => refusal("Basic realm=\"scripted\""),
    }
}

/// `user:password` of a request.
pub(super) fn basic_of(request: &Request) -> Option<String> {
    let encoded = request.header(header::AUTHORIZATION.as_str())?.strip_prefix("Basic ")?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

fn refusal(challenge: &str) -> Answer {
    Answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED").with("www-authenticate", challenge)
}
