//! How a connection is closed: this end says that it sends no more, and reads for a while what the
//! other still sends. A socket that is closed with bytes that nobody read resets its connection, and
//! that takes from the other end what it has not read yet (RFC 9112, section 9.6).

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{Stop, socket::Socket};

/// An end that was told that nothing more comes, and sends nothing for so long, has read it, or never
/// will.
pub(super) const SILENCE: Duration = Duration::from_secs(2);
/// However much the other end sends, it is read no longer than this.
const LONGEST: Duration = Duration::from_secs(5);
/// Read at once, and thrown away.
const PIECE: usize = 4 << 10;

/// Closes a socket on which everything was said.
pub(super) async fn close(mut socket: Socket, stop: &Stop) {
    let leave = async {
        if socket.shutdown().await.is_err() {
            return;
        }
        let mut unwanted = [0; PIECE];
        while let Ok(Ok(1..)) = timeout(SILENCE, socket.read(&mut unwanted)).await {}
    };
    tokio::select! {
        _ = timeout(LONGEST, leave) => {}
        () = stop.aborting() => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_comes_late_takes_nothing_from_the_other_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"the answer").await.unwrap();
        client.write_all(b"a request that nobody reads").await.unwrap();
        let closing = tokio::spawn(async move { close(Socket::Plain(server), &Stop::default()).await });
        client.write_all(b"and another").await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "the answer");
        drop(client);
        closing.await.unwrap();
    }
}
