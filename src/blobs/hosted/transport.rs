//! How object stores are reached: HTTP/1.1 by the protocol engine of the rest of the node, each wait limited.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use rustls::ClientConfig;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a request, with all that it sends, may take until its answer begins. A part of an upload has the time.
const ANSWER: Duration = Duration::from_mins(2);

/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Makes clients for object stores.
#[derive(Debug)]
pub(super) struct Transport {
    tls: Arc<ClientConfig>,
}

#[derive(Debug)]
struct Service {
    client: Client<HttpsConnector<HttpConnector>, HttpRequestBody>,
}

impl Transport {
    /// `tls` names no protocols.
    pub(super) const fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }
}

impl object_store::client::HttpConnector for Transport {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let is_plain_allowed =
            options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let builder = HttpsConnectorBuilder::new().with_tls_config((*self.tls).clone());
        let builder = if is_plain_allowed { builder.https_or_http() } else { builder.https_only() };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(builder.enable_http1().wrap_connector(connector));
        Ok(HttpClient::new(Service { client }))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = tokio::time::timeout(ANSWER, self.client.request(request)).await;
        let answer = answer.map_err(|elapsed| HttpError::new(HttpErrorKind::Timeout, elapsed))?;
        let (parts, body) = answer.map_err(sort)?.into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// Says what may be tried again: what was never sent always, what was cut off if it may be repeated.
fn sort(error: hyper_util::client::legacy::Error) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, error)
}
