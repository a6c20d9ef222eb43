//! A private object store: moto's server, which speaks like S3, keeps everything in memory and wants no account.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use http::Method;

use crate::client::{Answer, Client};

/// A running server with one bucket; dropping it ends it.
pub(crate) struct ObjectStore {
    child: Child,
    address: SocketAddr,
}

impl ObjectStore {
    /// Starts a server; `None`, loudly, where it is not installed, which fails in CI.
    pub(crate) async fn start() -> Option<Self> {
        let mut command = Command::new("moto_server");
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            super::skip("moto_server");
            return None;
        };
        let output = child.stderr.take().unwrap();
        let found = tokio::task::spawn_blocking(move || {
            let mut lines = BufReader::new(output).lines();
            let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
                line.split_once("Running on http://").map(|(_, address)| address.trim().to_owned())
            });
            // Read to its end, so that the server is never held up by what it logs.
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            address
        });
        let found = super::within_patience("the object store", found).await.unwrap();
        let address = found.expect("the server says where it listens").parse().unwrap();
        let store = Self { child, address };
        let made = Client::new(address).call(Method::PUT, "/bucket").send().await;
        assert_eq!(made.status, 200, "{made:?}");
        Some(store)
    }

    /// The line of `[storage]` that has blobs kept here; `more` are further keys.
    pub(crate) fn line(&self, more: &str) -> String {
        format!(
            "object_store = {{ url = \"s3://bucket/hosted\", endpoint = \"http://{}\", region = \"us-east-1\", \
             access_key_id = \"id\", secret_access_key = \"hidden-from-all\"{more} }}",
            self.address
        )
    }

    /// The keys of all objects.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let listing = self.get("/bucket?list-type=2").await;
        let text = String::from_utf8(listing.body.to_vec()).unwrap();
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        keys.map(ToOwned::to_owned).collect()
    }

    /// What it answers to anybody.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        Client::new(self.address).get(path).send().await
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.stop();
    }
}
