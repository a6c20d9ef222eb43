//! Grants: the value of `Authorization` for one repository, fetched once for all who wait.
//!
//! The dance is that of the distribution token specification: a 401 names a realm, the realm gives
//! a token, the token is used until shortly before it expires. A realm gets credentials only if it
//! belongs to the registry's site or is trusted; anything else would let a registry (or whoever
//! speaks for it) collect this node's password elsewhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use moka::future::Cache;
use serde::Deserialize;

use super::answer::{encode, retry_after};
use super::body::CountedBody;
use super::challenge::Challenge;
use super::credentials::{CredentialSource, Login};
use super::error::Fault;
use super::guard::Guard;
use super::logins::Logins;
use super::metrics::UpstreamMetrics;
use super::origin::{Origin, is_same_site};
use super::transport::{Pool, Transport};
use crate::runtime::{Clock, Joined, SingleFlight, Tasks, Timestamp};

/// What a grant is for. Tokens of one upstream, repository and credential are never used for
/// another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct GrantKey {
    origin: Origin,
    repository: String,
    credential_version: u64,
}

/// An authorization, and how to get the next one.
#[derive(Debug)]
pub(super) struct Grant {
    value: HeaderValue,
    scheme: Scheme,
    granted_at: Timestamp,
    lifetime: Duration,
}

/// What a registry asks for.
#[derive(Clone, Debug)]
pub(super) enum Scheme {
    Basic,
    Bearer(Arc<TokenRequest>),
}

/// What a Bearer challenge says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenRequest {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Grant {
    pub(super) const fn value(&self) -> &HeaderValue {
        &self.value
    }

    pub(super) const fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// How long ago it was given.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        now.since(self.granted_at)
    }

    /// Renewed at nine tenths of its life, so that it does not expire under way.
    fn is_due(&self, now: Timestamp) -> bool {
        self.age(now) >= self.lifetime.mul_f64(0.9)
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        self.age(now) >= self.lifetime
    }
}

impl Scheme {
    /// Chooses among challenges: Bearer, or Basic. `own_scope` stands in where none is named
    /// (quay.io). `None` where no challenge can be answered.
    pub(super) fn choose(challenges: &[Challenge], own_scope: Option<&str>) -> Option<Self> {
        let bearer =
            challenges.iter().find(|challenge| challenge.scheme() == "bearer").and_then(|challenge| {
                let find = |name| {
                    challenge.find_parameter(name).filter(|value| !value.is_empty()).map(str::to_owned)
                };
                let (realm, service) = (find("realm")?, find("service"));
                let scope = find("scope").or_else(|| own_scope.map(str::to_owned));
                Some(Self::Bearer(Arc::new(TokenRequest { realm, service, scope })))
            });
        bearer.or_else(|| {
            challenges.iter().any(|challenge| challenge.scheme() == "basic").then_some(Self::Basic)
        })
    }
}

/// Gets and keeps the grants of one upstream.
pub(super) struct Authorizer {
    grants: Cache<GrantKey, Arc<Grant>>,
    flights: SingleFlight<GrantKey, Result<Arc<Grant>, Fault>>,
    desk: Arc<Desk>,
}

/// What a fetch needs; it goes on when its caller is dropped.
struct Desk {
    upstream: String,
    transport: Arc<Transport>,
    guard: Arc<Guard>,
    credentials: CredentialSource,
    clock: Clock,
    logins: Logins,
    metrics: UpstreamMetrics,
}

impl Authorizer {
    pub(super) fn new(
        upstream: String,
        transport: Arc<Transport>,
        guard: Arc<Guard>,
        credentials: CredentialSource,
        (clock, tasks, metrics): (Clock, Tasks, UpstreamMetrics),
    ) -> Self {
        let logins = Logins::new(upstream.clone(), metrics.clone(), clock.clone());
        Self {
            grants: Cache::builder().max_capacity(MAX_GRANTS).time_to_idle(MAX_LIFETIME).build(),
            flights: SingleFlight::new(tasks),
            desk: Arc::new(Desk { upstream, transport, guard, credentials, clock, logins, metrics }),
        }
    }

    /// The key for a repository at an origin, with the credentials of now.
    pub(super) fn key(&self, origin: &Origin, repository: &str) -> GrantKey {
        GrantKey {
            origin: origin.clone(),
            repository: repository.to_owned(),
            credential_version: self.desk.credentials.version(),
        }
    }

    /// How a token was asked for at an origin, for another repository than this one.
    pub(super) fn find_other_scheme(&self, origin: &Origin, repository: &str) -> Option<Scheme> {
        let is_other = |key: &GrantKey, grant: &Grant| {
            key.origin == *origin
                && key.repository != repository
                && !key.repository.is_empty()
                && matches!(grant.scheme, Scheme::Bearer(_))
        };
        self.grants.iter().find(|(key, grant)| is_other(key, grant)).map(|(_, grant)| grant.scheme.clone())
    }

    /// Forgets a grant, so that the next one comes from the realm.
    pub(super) async fn forget(&self, key: &GrantKey) {
        self.grants.invalidate(key).await;
    }

    /// The grant in force, renewed first where that is due. `None` where nothing was ever asked.
    pub(super) async fn current(&self, key: &GrantKey) -> Result<Option<Arc<Grant>>, Fault> {
        let Some(grant) = self.grants.get(key).await else { return Ok(None) };
        let now = self.desk.clock.now();
        if !grant.is_due(now) {
            return Ok(Some(grant));
        }
        // Nobody rejected it.
        match self.renew(key, grant.scheme().clone(), None).await {
            Ok(next) => Ok(Some(next)),
            Err(_) if !grant.is_expired(now) => Ok(Some(grant)),
            Err(fault) => Err(fault),
        }
    }

    /// Gets a grant other than the rejected one: that which somebody else got meanwhile, or a new
    /// one, fetched once for all who wait.
    pub(super) async fn renew(
        &self,
        key: &GrantKey,
        scheme: Scheme,
        rejected: Option<&Arc<Grant>>,
    ) -> Result<Arc<Grant>, Fault> {
        let (desk, grants) = (Arc::clone(&self.desk), self.grants.clone());
        let (key, rejected) = (key.clone(), rejected.cloned());
        let flight_key = key.clone();
        let flight = self.flights.run(flight_key, move || async move {
            let other = grants.get(&key).await.filter(|known| {
                !rejected.as_ref().is_some_and(|rejected| Arc::ptr_eq(known, rejected))
                    && !known.is_due(desk.clock.now())
            });
            if let Some(other) = other {
                return Ok(other);
            }
            let grant = Arc::new(desk.obtain(&key, scheme, rejected.as_deref()).await?);
            // Under the version of now: the fetch may have found that the credentials changed.
            let key = GrantKey { credential_version: desk.credentials.version(), ..key };
            grants.insert(key, Arc::clone(&grant)).await;
            Ok(grant)
        });
        flight.await.map_or_else(|| Err(Fault::broken("fetching a token failed")), Joined::into_inner)
    }
}

impl Desk {
    async fn obtain(&self, key: &GrantKey, scheme: Scheme, rejected: Option<&Grant>) -> Result<Grant, Fault> {
        // What a redirect leads to is not who the credentials are for.
        let is_own = self.guard.is_own(&key.origin);
        let login = if is_own { self.credentials.current().await? } else { None };
        match scheme {
            Scheme::Basic => self.obtain_basic(login, rejected).await,
            Scheme::Bearer(request) => self.obtain_token(&key.origin, request, login).await,
        }
    }

    async fn obtain_basic(
        &self,
        login: Option<Arc<Login>>,
        rejected: Option<&Grant>,
    ) -> Result<Grant, Fault> {
        let mut login = login.ok_or(Fault::LoginWanted)?;
        let mut value = login.to_basic().ok_or_else(|| unusable_login("Basic"))?;
        if rejected.is_some_and(|rejected| rejected.value == value) {
            login = self.credentials.find_other_than(&login).await?.ok_or(Fault::LoginRefused)?;
            value = login.to_basic().ok_or_else(|| unusable_login("Basic"))?;
        }
        // Short, so that changed credentials are noticed without a rejection.
        Ok(Grant { value, scheme: Scheme::Basic, granted_at: self.clock.now(), lifetime: BASIC_LIFETIME })
    }

    async fn obtain_token(
        &self,
        origin: &Origin,
        request: Arc<TokenRequest>,
        login: Option<Arc<Login>>,
    ) -> Result<Grant, Fault> {
        let (realm, realm_origin) = self.check_realm(origin, &request.realm, login.is_some())?;
        let asked_at = self.logins.admit(&realm_origin)?;
        let mut answer = self.ask(&realm, &request, login.as_deref()).await?;
        if let (401 | 403, Some(rejected)) = (answer.status().as_u16(), &login)
            && let Some(other) = self.credentials.find_other_than(rejected).await?
        {
            answer = self.ask(&realm, &request, Some(&other)).await?;
        }
        self.logins.observe(&realm_origin, asked_at, answer.status(), answer.headers());
        self.check_answer(&answer, login.is_some())?;
        let timeouts = self.transport.timeouts();
        let body = CountedBody::new(
            answer.into_body(),
            timeouts.silence,
            self.metrics.bytes_of(&self.upstream),
            self.transport.switch().clone(),
        );
        let body = tokio::time::timeout(
            timeouts.first_byte.max(timeouts.silence),
            body.read_whole(MAX_ANSWER_BYTES),
        )
        .await
        .map_err(|_elapsed| Fault::unreachable("the token service is too slow"))??;
        read_grant(&body, request, self.clock.now())
    }

    /// The realm's URL and its host, if this node may ask there with what it has to show.
    fn check_realm(&self, origin: &Origin, realm: &str, has_login: bool) -> Result<(Uri, Origin), Fault> {
        let url: Option<Uri> = realm.split('#').next().and_then(|realm| realm.parse().ok());
        let Some((url, target)) = url.and_then(|url| Origin::of(&url).map(|target| (url, target))) else {
            return Err(Fault::broken("its token realm is no http URL"));
        };
        if origin.secure && !target.secure {
            return Err(Fault::broken(format!("its token realm {target} is not https")));
        }
        let is_trusted = is_same_site(&origin.host, &target.host)
            || self.guard.is_trusted(&target.host, target.port)
            || self.guard.is_own(&target);
        if has_login && !is_trusted {
            return Err(Fault::broken(format!(
                "its token realm {target} is of another site and gets no credentials; name it in trusted_hosts if it is right"
            )));
        }
        Ok((url, target))
    }

    async fn ask(
        &self,
        realm: &Uri,
        request: &TokenRequest,
        login: Option<&Login>,
    ) -> Result<Response<Incoming>, Fault> {
        tracing::debug!(
            upstream.name = %self.upstream, realm.host = realm.host().unwrap_or_default(), "fetching a token"
        );
        let request = if let Some(Login::IdentityToken(secret)) = login {
            refresh_request(realm, request, secret.expose())
        } else {
            let basic = login.map(|login| login.to_basic().ok_or_else(|| unusable_login("a header")));
            token_request(realm, request, basic.transpose()?)
        };
        let request = request.map_err(|_unshown| Fault::broken("its token realm cannot be asked"))?;
        self.transport.send("token", Pool::Api, request).await
    }

    fn check_answer(&self, answer: &Response<Incoming>, had_login: bool) -> Result<(), Fault> {
        match answer.status().as_u16() {
            200 => Ok(()),
            401 if had_login => Err(Fault::LoginRefused),
            403 if had_login => Err(Fault::Forbidden(Fault::LoginRefused.summary())),
            401 | 403 => Err(Fault::Forbidden("its token service refuses anonymous access".to_owned())),
            429 => Err(Fault::Throttled(retry_after(answer.headers(), self.clock.now()))),
            status => Err(Fault::broken(format!("its token service answers {status}"))),
        }
    }
}

/// `GET realm?service=…&scope=…`, with Basic where there is a login.
fn token_request(
    realm: &Uri,
    request: &TokenRequest,
    basic: Option<HeaderValue>,
) -> http::Result<Request<Full<Bytes>>> {
    let parameters = scope_parameters(request);
    let separator = if realm.query().is_some() { '&' } else { '?' };
    let url = if parameters.is_empty() {
        realm.to_string()
    } else {
        format!("{realm}{separator}{}", parameters.join("&"))
    };
    let mut built = Request::builder().method(Method::GET).uri(url);
    if let Some(basic) = basic {
        built = built.header(AUTHORIZATION, basic);
    }
    built.body(Full::default())
}

/// `service=…` and `scope=…`, those that the challenge names.
fn scope_parameters(request: &TokenRequest) -> Vec<String> {
    let named = [("service", &request.service), ("scope", &request.scope)];
    let parameter =
        |(name, value): (&str, &Option<String>)| Some(format!("{name}={}", encode(value.as_ref()?)));
    named.into_iter().filter_map(parameter).collect()
}

/// `POST realm` with a refresh token (RFC 6749, section 6).
fn refresh_request(realm: &Uri, request: &TokenRequest, secret: &str) -> http::Result<Request<Full<Bytes>>> {
    let grant = format!("grant_type=refresh_token&client_id=tidegate&refresh_token={}", encode(secret));
    let form = [vec![grant], scope_parameters(request)].concat().join("&");
    Request::builder()
        .method(Method::POST)
        .uri(realm.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(form.into()))
}

fn read_grant(body: &[u8], request: Arc<TokenRequest>, now: Timestamp) -> Result<Grant, Fault> {
    let unusable = || Fault::broken("its token service gives no usable token");
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_unshown| unusable())?;
    let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
    let token = token.filter(|token| token.len() <= MAX_TOKEN_BYTES).ok_or_else(unusable)?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_unshown| unusable())?;
    value.set_sensitive(true);
    // "Defaults to 60 seconds" (distribution token specification).
    let lifetime = answer.expires_in.filter(|seconds| *seconds > 0.0).unwrap_or(60.0);
    let lifetime = Duration::from_secs_f64(lifetime.min(MAX_LIFETIME.as_secs_f64()));
    Ok(Grant { value, scheme: Scheme::Bearer(request), granted_at: now, lifetime })
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    /// Some services send a fraction.
    expires_in: Option<f64>,
}

fn unusable_login(place: &str) -> Fault {
    Fault::broken(format!("this node's credentials cannot stand in {place}"))
}

const MAX_GRANTS: u64 = 10_000;
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Servers take no longer headers.
const MAX_TOKEN_BYTES: usize = 64 * 1024;
const MAX_LIFETIME: Duration = Duration::from_hours(24);
const BASIC_LIFETIME: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::super::challenge::parse;
    use super::*;

    fn scheme_of(line: &str, own_scope: Option<&str>) -> Option<Scheme> {
        Scheme::choose(&parse([line]), own_scope)
    }

    #[test]
    fn bearer_wins_over_basic_and_missing_parts_are_filled_in() {
        let own = Some("repository:a:pull");
        for (line, service, scope) in [
            (
                r#"Basic realm="x", Bearer realm="https://r/t",service="s",scope="aws""#,
                Some("s"),
                Some("aws"),
            ),
            (r#"Bearer realm="https://r/t""#, None, own),
            (r#"Bearer realm="https://r/t",scope="""#, None, own),
        ] {
            let Some(Scheme::Bearer(request)) = scheme_of(line, own) else { panic!("{line}") };
            assert_eq!((request.service.as_deref(), request.scope.as_deref()), (service, scope), "{line}");
        }
        assert!(matches!(scheme_of("Bearer, Basic realm=x", own), Some(Scheme::Basic)));
        assert!(scheme_of("Negotiate", own).is_none());
    }

    #[test]
    fn what_a_challenge_says_cannot_leave_its_place_in_the_url() {
        let request = TokenRequest {
            realm: String::new(),
            service: Some("a b&scope=x".into()),
            scope: Some("repository:a/b:pull\r\nX: y#".into()),
        };
        let built = token_request(&"https://r/t?account=1".parse().unwrap(), &request, None).unwrap();
        let expected =
            "https://r/t?account=1&service=a%20b%26scope%3Dx&scope=repository:a/b:pull%0D%0AX:%20y%23";
        assert_eq!(built.uri().to_string(), expected);
    }

    #[tokio::test]
    async fn an_identity_token_is_exchanged_by_a_form() {
        use http_body_util::BodyExt;
        let request =
            TokenRequest { realm: String::new(), service: None, scope: Some("repository:a:pull".into()) };
        let built = refresh_request(&"https://r/t".parse().unwrap(), &request, "s&t").unwrap();
        assert_eq!((built.method(), built.uri().path(), built.uri().query()), (&Method::POST, "/t", None));
        let form = built.into_body().collect().await.unwrap().to_bytes();
        let expected =
            "grant_type=refresh_token&client_id=tidegate&refresh_token=s%26t&scope=repository:a:pull";
        assert_eq!(form, expected);
    }

    #[test]
    fn tokens_are_read_in_all_their_spellings() {
        let request = Arc::new(TokenRequest { realm: String::new(), service: None, scope: None });
        let now = Timestamp::from_millis(0);
        for (body, value, seconds) in [
            (r#"{"token":"t"}"#, "Bearer t", 60),
            (r#"{"access_token":"t","expires_in":300}"#, "Bearer t", 300),
            (r#"{"token":"","access_token":"a","expires_in":0}"#, "Bearer a", 60),
            (r#"{"token":"t","access_token":"a","expires_in":1e300,"issued_at":null}"#, "Bearer t", 86400),
        ] {
            let grant = read_grant(body.as_bytes(), Arc::clone(&request), now).unwrap();
            assert_eq!(
                (grant.value().to_str().unwrap(), grant.lifetime.as_secs()),
                (value, seconds),
                "{body}"
            );
            assert!(grant.value().is_sensitive());
            assert!(!grant.is_due(now) && grant.is_due(now.after(grant.lifetime)));
        }
        let long = format!(r#"{{"token":"{}"}}"#, "t".repeat(MAX_TOKEN_BYTES + 1));
        for body in ["", "{}", "[]", r#"{"token":"a\r\nX-Evil: 1"}"#, r#"{"token":7}"#, &long] {
            assert!(matches!(read_grant(body.as_bytes(), Arc::clone(&request), now), Err(Fault::Broken(_))));
        }
    }
}
