//! `tidegate serve`: runs the server.

use anyhow::Context as _;

use super::{ConfigFile, Failure};
use crate::config::{Config, Flags};

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  \
                        tidegate serve --config /etc/tidegate/tidegate.toml\n  \
                        tidegate serve --listen 127.0.0.1:0 --data /var/lib/tidegate\n\n\
                        SIGHUP reads the configuration again, SIGTERM lets running pulls finish.")]
pub(super) struct ServeArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// The address of the registry API; may be given several times [default: 127.0.0.1:5000].
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// The address of metrics, health and the admin API [default: 127.0.0.1:5001].
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
    /// The directory of cached blobs and embedded metadata [default: data].
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
}

pub(super) fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let ServeArguments { file, listen, admin_listen, data } = arguments;
    let listen = (!listen.is_empty()).then(|| listen.join(","));
    let sources = file.into_sources(Flags { listen, admin_listen, data });
    let loaded = Config::load(&sources)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .map_err(Failure::Failed)?;
    let served = runtime.block_on(crate::app::serve(loaded, sources)).map_err(Failure::Failed);
    // Threads that a stuck disk holds cannot be called back: the end of the process ends them.
    runtime.shutdown_background();
    served
}
