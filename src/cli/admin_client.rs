//! Talks to the administrator's API of a running server: small questions, small answers, one at a time.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http::Uri;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use serde_json::Value;

use super::Failure;
use crate::config::{Secret, check_token};
use crate::upstream::load_native_roots;

/// Where a server on this machine answers if nothing else is configured.
const DEFAULT_SERVER: &str = "http://127.0.0.1:5001";

/// The variables that stand in for flags.
const SERVER_VARIABLE: &str = "TIDEGATE_SERVER";
const TOKEN_VARIABLE: &str = "TIDEGATE_TOKEN";
const TOKEN_FILE_VARIABLE: &str = "TIDEGATE_TOKEN_FILE";

/// The longest wait for a connection, and for the next byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Which server, and who asks.
#[derive(Debug, Default, clap::Args)]
pub(super) struct ServerArguments {
    #[arg(
        long,
        value_name = "URL",
        help = "The server's administrator API [default: TIDEGATE_SERVER, or http://127.0.0.1:5001]"
    )]
    server: Option<String>,
    #[arg(
        long,
        value_name = "FILE",
        help = "A file with the API's token [default: TIDEGATE_TOKEN, or the file TIDEGATE_TOKEN_FILE]"
    )]
    token_file: Option<PathBuf>,
}

impl ServerArguments {
    /// The client that these arguments, and variables where they say nothing, mean.
    pub(super) fn client(&self, environment: &HashMap<String, String>) -> Result<AdminClient, Failure> {
        self.try_client(environment).map_err(Failure::Usage)
    }

    fn try_client(&self, environment: &HashMap<String, String>) -> anyhow::Result<AdminClient> {
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let url = self.server.as_ref().or_else(|| variable(SERVER_VARIABLE));
        let mut client = AdminClient::new(url.map_or(DEFAULT_SERVER, String::as_str))?;
        let (token, source) =
            match (&self.token_file, variable(TOKEN_VARIABLE), variable(TOKEN_FILE_VARIABLE)) {
                (Some(path), ..) => (read_token(path)?, path.display().to_string()),
                (None, Some(token), _) => (token.clone(), TOKEN_VARIABLE.to_owned()),
                (None, None, Some(path)) => (read_token(Path::new(path))?, path.clone()),
                (None, None, None) => return Ok(client),
            };
        let token = token.trim();
        check_token(token).map_err(|problem| anyhow!("{source}: {problem}"))?;
        client.token = Some(Secret::new(token));
        Ok(client)
    }
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read the token from {}", path.display()))
}

/// The environment of this process, as far as it is text.
pub(super) fn read_environment() -> HashMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The administrator's API of one server.
#[derive(Debug)]
pub(super) struct AdminClient {
    /// Scheme, host and port, to be shown.
    url: String,
    /// Host and port, as in a URL.
    authority: String,
    host: String,
    port: u16,
    is_secure: bool,
    token: Option<Secret>,
}

impl AdminClient {
    /// Takes the URL of `server.admin_listen`, or of what stands before it.
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let remedy = "write it such as http://127.0.0.1:5001 (server.admin_listen)";
        let uri: Uri = url.parse().with_context(|| format!("\"{url}\" is not a URL: {remedy}"))?;
        let is_secure = uri.scheme_str() == Some("https");
        let authority = uri.authority().filter(|_| is_secure || uri.scheme_str() == Some("http"));
        let Some(authority) = authority.filter(|authority| !authority.as_str().contains('@')) else {
            bail!("\"{url}\" is not the URL of a server's administrator API: {remedy}");
        };
        if !matches!(uri.path(), "" | "/") {
            bail!("\"{url}\" has a path: {remedy}");
        }
        Ok(Self {
            url: format!("{}://{authority}", if is_secure { "https" } else { "http" }),
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            is_secure,
            token: None,
        })
    }

    /// Asks, and reads the JSON of the answer. An answer that is an error is one, in the server's words.
    pub(super) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let server = &self.url;
        let answer = self.exchange(method, path, body).with_context(|| {
            format!("ask the server at {server}; does it run, and is this its server.admin_listen?")
        })?;
        let (status, body) = split(&answer).ok_or_else(|| anyhow!("{server} answers no HTTP"))?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(body)
                .with_context(|| format!("{server} answers no JSON to {method} {path}"));
        }
        let told: Option<Value> = serde_json::from_slice(body).ok();
        let reason = told.as_ref().and_then(|told| told["error"].as_str()).map(str::to_owned);
        let reason = reason.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
        bail!("the server at {server} refuses ({status}): {reason}")
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Vec<u8>> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.authority);
        // Writing to a `String` cannot fail.
        if let Some(token) = &self.token {
            let _ = write!(request, "authorization: Bearer {}\r\n", token.expose());
        }
        if !body.is_empty() {
            request.push_str("content-type: application/json\r\n");
        }
        let _ = write!(request, "content-length: {}\r\n\r\n{body}", body.len());
        let stream = self.connect()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        if self.is_secure { Ok(ask(self.secure(stream)?, &request)?) } else { Ok(ask(stream, &request)?) }
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        let mut last_error = None;
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return Ok(stream),
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.map_or_else(|| anyhow!("{} has no address", self.host), Into::into))
    }

    /// Speaks TLS with who has a certificate that this machine trusts.
    fn secure(&self, stream: TcpStream) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(load_native_roots())
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone())?;
        Ok(StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, stream))
    }
}

/// Sends a request and reads its answer. Not until the other side closes: not everybody does.
fn ask(mut stream: impl Read + Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let (mut answer, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    while split(&answer).is_none() && answer.len() < MAX_ANSWER_BYTES {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Closed without a farewell of TLS.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// The status and the body of an answer. The API gives every answer with its length.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    // A body that was cut is no answer.
    Some((status, answer[end + 4..].get(..length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_of_the_administrators_listener() {
        let client = AdminClient::new("http://[::1]:5001/").unwrap();
        assert_eq!((client.host.as_str(), client.port), ("::1", 5001));
        let client = AdminClient::new("https://a.test").unwrap();
        assert_eq!((client.is_secure, client.port, client.url.as_str()), (true, 443, "https://a.test"));
        for bad in ["127.0.0.1:5001", "", "http://a/api/v1", "http://me@a", "ftp://a"] {
            assert!(AdminClient::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_token_comes_from_the_flag_or_a_variable_and_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "token-of-the-file-1\n").unwrap();
        let path = file.to_str().unwrap().to_owned();
        let token = |flag: Option<&Path>, variables: &[(&str, &str)]| {
            let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let arguments = ServerArguments { server: None, token_file: flag.map(Path::to_owned) };
            let client = arguments.try_client(&variables.iter().map(pair).collect());
            client.map(|client| client.token.map(|token| token.expose().to_owned()))
        };
        let of_file = Some("token-of-the-file-1".to_owned());
        assert_eq!(token(None, &[]).unwrap(), None);
        assert_eq!(token(None, &[(TOKEN_VARIABLE, "")]).unwrap(), None);
        assert_eq!(token(None, &[(TOKEN_FILE_VARIABLE, &path)]).unwrap(), of_file);
        let both = [(TOKEN_FILE_VARIABLE, path.as_str()), (TOKEN_VARIABLE, "token-of-variable")];
        assert_eq!(token(None, &both).unwrap().as_deref(), Some("token-of-variable"));
        assert_eq!(token(Some(&file), &both).unwrap(), of_file);
        let fault = token(None, &[(TOKEN_VARIABLE, "a secret\r\nx: y z")]).unwrap_err().to_string();
        assert!(fault.starts_with(TOKEN_VARIABLE) && !fault.contains("a secret"), "{fault}");
        assert!(token(Some(Path::new("/nowhere/token")), &[]).is_err());
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(split(answer), Some((200, &b"{}"[..])));
        for bad in [&answer[..answer.len() - 1], b"", b"HTTP/1.1 200 OK\r\n\r\n{}", b"SSH-2.0\r\n\r\n"] {
            assert_eq!(split(bad), None);
        }
    }
}
