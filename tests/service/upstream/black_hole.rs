//! A port that swallows those who want to connect, as a firewall does that drops packets.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A port whose queue of connections is full: the system drops what comes.
pub(crate) struct BlackHole {
    _listener: Socket,
    _fillers: Vec<TcpStream>,
}

impl BlackHole {
    /// Takes a port that nobody listens on.
    pub(super) async fn open(address: SocketAddr) -> Self {
        tokio::task::spawn_blocking(move || {
            let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            listener.set_reuse_address(true).unwrap();
            listener.bind(&address.into()).unwrap();
            listener.listen(0).unwrap();
            let mut fillers = Vec::new();
            while let Ok(filler) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
                fillers.push(filler);
                assert!(fillers.len() < 100, "the queue does not fill");
            }
            Self { _listener: listener, _fillers: fillers }
        })
        .await
        .unwrap()
    }
}
