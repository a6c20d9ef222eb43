//! The program under test: started as a user starts it, and asked how clients are to be configured.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::child::{Owned, command, run, run_text};
use crate::http::send;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate");

/// How long Tidegate takes a tag for what it was.
#[derive(Clone, Copy)]
pub(crate) enum Freshness {
    /// Longer than any test runs: upstream is not asked again.
    Lasting,
    /// Not at all: upstream is asked each time, and what is cached is served when it cannot answer.
    None,
}

impl Freshness {
    fn as_toml(self) -> &'static str {
        match self {
            Self::Lasting => "fresh_for = \"1h\"",
            Self::None => "fresh_for = \"0s\"\nstale_while_revalidate = \"0s\"\nnegative_for = \"0s\"",
        }
    }
}

/// A running Tidegate with a cache of its own.
pub(crate) struct Tidegate {
    process: Owned,
    directory: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) admin_address: SocketAddr,
}

impl Tidegate {
    /// Starts it with its configuration, cache and log in `directory`; a cache that is there is taken over.
    ///
    /// `upstreams` are `[[upstream]]` tables without their clocks.
    pub(crate) fn start(directory: &Path, upstreams: &[String], freshness: Freshness) -> Self {
        fs::create_dir_all(directory).expect("create the directory of Tidegate");
        let mut text =
            format!("[storage]\npath = {:?}\n\n[logging]\nformat = \"json\"\n", directory.join("data"));
        for upstream in upstreams {
            text.extend(["\n[[upstream]]\n", upstream.trim(), "\n", freshness.as_toml(), "\n"]);
        }
        let configuration = directory.join("tidegate.toml");
        fs::write(&configuration, text).expect("write the configuration of Tidegate");
        let log = directory.join("tidegate.log");
        let mut process = Owned::start("tidegate", Path::new(PROGRAM), &log, |command| {
            command.arg("serve").arg("--config").arg(&configuration);
            command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        });
        let (address, admin_address) = process.wait_for("the addresses it listens on", find_addresses);
        Self { process, directory: directory.to_path_buf(), address, admin_address }
    }

    /// The base URL that clients use.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What `tidegate client-config` prints for a client.
    pub(crate) fn client_config(&self, client: &str) -> String {
        run_text(self.client_config_command(client).as_mut())
    }

    /// Has `tidegate client-config` write a client's files below `directory`.
    pub(crate) fn write_client_config(&self, client: &str, directory: &Path) {
        run(self.client_config_command(client).arg("--output-dir").arg(directory));
    }

    /// The password of the first administrator, whom the first run made.
    pub(crate) fn administrator_password(&self) -> String {
        let file = self.directory.join("data/initial-administrator-password");
        fs::read_to_string(file).expect("read the password of the administrator").trim().to_owned()
    }

    /// Has the administrator create a namespace for what is pushed here.
    pub(crate) fn create_namespace(&self, name: &str) {
        let order = serde_json::json!({"name": name, "anonymous_pull": true}).to_string();
        let headers = [("Content-Type", "application/json")];
        let length = order.len() as u64;
        let mut body = order.as_bytes();
        let answer = send(self.admin_address, "POST", "/api/v1/namespaces", &headers, length, &mut body);
        assert!(matches!(answer.status, 200 | 201), "{}", String::from_utf8_lossy(&answer.body));
    }

    /// Stops it as a service manager does.
    pub(crate) fn stop(mut self) {
        self.process.stop();
    }

    fn client_config_command(&self, client: &str) -> Box<std::process::Command> {
        let mut command = command(PROGRAM);
        command.args(["client-config", client, "--url", &self.url(), "--config"]);
        command.arg(self.directory.join("tidegate.toml"));
        Box::new(command)
    }
}

/// The addresses in the line that says that Tidegate is ready.
fn find_addresses(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let field = |name: &str| line.get(name).or_else(|| line.get("fields")?.get(name)).cloned();
        let admin = field("admin.address")?.as_str()?.parse().ok()?;
        // The listeners stand in one text or in a list.
        let listening = match field("server.addresses")? {
            Value::Array(addresses) => addresses.first()?.as_str()?.to_owned(),
            Value::String(text) => text,
            _ => return None,
        };
        let first = listening.trim_matches(['[', ']']).split([',', ' ']).next()?;
        Some((first.parse().ok()?, admin))
    })
}
