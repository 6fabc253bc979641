//! A cable between two sockets that a test can cut, mend, or let go silent.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Forwards connections to an address; ends on drop.
pub struct Relay {
    address: SocketAddr,
    line: Arc<watch::Sender<Line>>,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Open,
    /// Connections end, and new ones with them.
    Cut,
    /// Connections stay and nothing passes.
    Silent,
}

impl Relay {
    /// One to `target`, such as `127.0.0.1:2379`.
    pub async fn to(target: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let line = Arc::new(watch::Sender::new(Line::Open));
        let accepting = tokio::spawn(accept(listener, target.into(), line.subscribe()));
        Self { address, line, accepting }
    }

    /// Where to connect instead.
    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where to connect instead, without a scheme.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and each new one at once.
    pub fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    /// Lets nothing through any more, in either direction, without ending anything.
    pub fn silence(&self) {
        self.line.send_replace(Line::Silent);
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.line.send_replace(Line::Open);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.line.send_replace(Line::Cut);
    }
}

async fn accept(listener: TcpListener, target: String, line: watch::Receiver<Line>) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(forward(near, target.clone(), line.clone()));
    }
}

async fn forward(mut near: TcpStream, target: String, mut line: watch::Receiver<Line>) {
    if *line.borrow() == Line::Cut {
        return;
    }
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    loop {
        let now = *line.borrow_and_update();
        tokio::select! {
            // Dropping the copy in between loses what it had read: silence is never mended on a
            // connection without its loss being noticed.
            _ = tokio::io::copy_bidirectional(&mut near, &mut far), if now == Line::Open => return,
            changed = line.changed() => if changed.is_err() { return },
        }
        if *line.borrow() == Line::Cut {
            return;
        }
    }
}
