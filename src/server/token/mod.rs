//! The token endpoint: `GET /token` with a password in `Authorization`, or `POST /token` with one in a form.
//!
//! A client that gets anything but 404 for a POST that is not understood here may not fall back to GET (containerd goes on
//! from 400, 401 and 404, `BuildKit` from 401, 404 and 405, go-containerregistry from 404 alone), so 404 it is.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::body::ResponseBody;
use super::challenge::{self, BASIC};
use super::distribution::Answer;
use super::respond::{Extra, Problem};
use crate::auth::policy::{Refused, Visibility};
use crate::auth::{
    AskedScopes, AuthenticationError, Authenticator, Credentials, IssuedToken, Scope, TokenRequest,
};
use crate::oci::{ErrorCode, decode_query};

/// Name and value pairs of a query or a form, decoded.
type Pairs = [(String, String)];

/// Answers `GET /token`: `authorization` is the value of the header, `query` that of the route.
pub(super) async fn answer_get(
    authenticator: &Authenticator,
    authorization: Option<&HeaderValue>,
    query: &Pairs,
    client: IpAddr,
    visibility_of: &(dyn Fn(&Scope) -> Visibility + Sync),
) -> Answer {
    let credentials = Credentials::parse(authorization.map(HeaderValue::as_bytes));
    let request = TokenRequest { credentials, scopes: scopes_of(query), client };
    answer(authenticator, &request, visibility_of).await
}

/// Answers `POST /token`: `form` is what [`read_form`] read.
pub(super) async fn answer_post(
    authenticator: &Authenticator,
    form: &Pairs,
    client: IpAddr,
    visibility_of: &(dyn Fn(&Scope) -> Visibility + Sync),
) -> Answer {
    let value = |name: &str| first(form, name).unwrap_or_default();
    if value("grant_type") != "password" {
        let message =
            "only grant_type=password is known here: no refresh token was ever issued. Log in again";
        let status = StatusCode::NOT_FOUND;
        return Err(Problem::new(status, ErrorCode::Unsupported, "grant", message));
    }
    let credentials = Credentials::of_password(value("username"), value("password"));
    let request = TokenRequest { credentials, scopes: scopes_of(form), client };
    answer(authenticator, &request, visibility_of).await
}

/// Reads a form (`application/x-www-form-urlencoded`), whatever type it says it has.
pub(super) async fn read_form<B>(body: B) -> Result<Vec<(String, String)>, Problem>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let refuse = |reason: String| {
        let message = format!("the form cannot be read: {reason}");
        Problem::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, "form", message)
    };
    let body: Bytes = match Limited::new(body, MAX_FORM_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Err(refuse(error.to_string())),
    };
    let text = std::str::from_utf8(&body).map_err(|error| refuse(error.to_string()))?;
    // A form has `+` for a space, and an escape for a plus.
    Ok(decode_query(&text.replace('+', "%20")))
}

async fn answer(
    authenticator: &Authenticator,
    request: &TokenRequest,
    visibility_of: &(dyn Fn(&Scope) -> Visibility + Sync),
) -> Answer {
    match authenticator.issue(request, visibility_of).await {
        Ok(issued) => Ok(tell(&issued)),
        // A challenge that led here would lead in a circle.
        Err(AuthenticationError::Refused(refused @ Refused::WrongCredentials)) => {
            Err(Problem { extra: Extra::Challenge(BASIC), ..challenge::refuse(refused, None, None) })
        }
        Err(error) => Err(challenge::fail(&error, None, None)),
    }
}

/// Both names of the token, because clients look for either; and always how long it is good for, because some keep one
/// that does not say so for ever.
fn tell(issued: &IssuedToken) -> Response<ResponseBody> {
    let token = issued.token.expose();
    let body = serde_json::json!({
        "token": token,
        "access_token": token,
        "expires_in": issued.expires_in.as_secs(),
        "issued_at": issued.issued_at.to_rfc3339(),
    });
    let mut response = Response::new(ResponseBody::whole(body.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn scopes_of(pairs: &Pairs) -> AskedScopes {
    let scopes = pairs.iter().filter(|(name, _)| name == "scope");
    AskedScopes::parse(scopes.map(|(_, value)| value.as_str()))
}

fn first<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// A name, a password, and scopes.
const MAX_FORM_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
