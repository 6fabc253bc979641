//! Opens connections to servers, never to addresses that no server of a user's can have.
//!
//! A name may resolve to anything, so every *resolved* address is checked at the time of dialling,
//! see [`crate::forbidden`]. Each address of a name gets an attempt of its own, begun while those
//! before it are still under way (RFC 8305, "happy eyeballs"): the first connection is taken.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rustix::io::Errno;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{Endpoint, name::Address};
use crate::forbidden::is_forbidden;

/// An attempt that has not come to anything after this is joined by the next (RFC 8305, section 8,
/// recommends it), or earlier if there would else be no time for all.
const STAGGER: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name means nothing.
    #[error("`{0}` cannot be resolved")]
    Resolve(String, #[source] Arc<io::Error>),
    /// The name means nothing that may be dialled.
    #[error("{0} is not dialled: link-local, metadata, unspecified and multicast addresses are no servers")]
    Forbidden(IpAddr),
    /// The name means this router.
    #[error("{0} is this router's own API, which is not reached through the proxy")]
    Own(SocketAddr),
    /// The last address tried.
    #[error("{0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// This router lacks what a connection takes, whatever the server.
    #[error("this router has no means to open a connection")]
    Local(#[source] io::Error),
    /// All of it together.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// Connected, but HTTP did not begin.
    #[error("HTTP did not begin")]
    Handshake(#[source] h2::Error),
}

impl DialError {
    /// Whether the reason is this router's own and says nothing of the server.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}

/// Whether an error of a socket is this router's own: no descriptor, no port, no memory, or a rule
/// of its own firewall.
pub fn is_local(error: &io::Error) -> bool {
    const LOCAL: [Errno; 10] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::ADDRNOTAVAIL,
        Errno::ADDRINUSE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::AGAIN,
        Errno::PERM,
        Errno::ACCESS,
        Errno::NETDOWN,
    ];
    error.raw_os_error().is_some_and(|code| LOCAL.iter().any(|local| local.raw_os_error() == code))
}

/// Opens a TCP connection within `limit`.
pub async fn dial(endpoint: &Endpoint, limit: Duration) -> Result<TcpStream, DialError> {
    match timeout(limit, dial_any(endpoint, limit)).await {
        Ok(dialled) => dialled,
        Err(_) => Err(DialError::Timeout(limit)),
    }
}

async fn dial_any(endpoint: &Endpoint, limit: Duration) -> Result<TcpStream, DialError> {
    let Some(name) = &endpoint.name else {
        let address = endpoint.host.parse().map_err(|_| unresolved(endpoint, io::ErrorKind::InvalidInput))?;
        let address = SocketAddr::new(address, endpoint.port);
        return if endpoint.is_own(address) { Err(DialError::Own(address)) } else { dial_one(address).await };
    };
    let found = name.addresses().await.map_err(|error| match out_of_descriptors() {
        // A resolver that cannot open a file says only that there is no such name.
        Some(own) => DialError::Local(own),
        None => DialError::Resolve(endpoint.host.to_string(), error),
    })?;
    if let Some(own) = found.iter().find(|address| endpoint.is_own(address.socket)) {
        return Err(DialError::Own(own.socket));
    }
    let stagger = STAGGER.min(limit.mul_f64(0.75) / u32::try_from(found.len()).unwrap_or(u32::MAX).max(1));
    race(found, stagger).await.unwrap_or_else(|| Err(unresolved(endpoint, io::ErrorKind::NotFound)))
}

fn unresolved(endpoint: &Endpoint, kind: io::ErrorKind) -> DialError {
    DialError::Resolve(endpoint.host.to_string(), Arc::new(kind.into()))
}

fn out_of_descriptors() -> Option<io::Error> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
    socket.err().filter(is_local)
}

/// The first connection to any of these addresses, or what the worst of them says. None: there is none.
async fn race(addresses: Vec<Arc<Address>>, stagger: Duration) -> Option<Result<TcpStream, DialError>> {
    let mut waiting = addresses.into_iter();
    let (mut attempts, mut begun) = (FuturesUnordered::new(), Vec::new());
    let mut failed = None;
    loop {
        if let Some(address) = waiting.next() {
            begun.push(Arc::clone(&address));
            attempts.push(async move { (dial_one(address.socket).await, address) });
        }
        let ended = tokio::select! {
            ended = attempts.next() => match ended {
                None => return failed.map(Err),
                ended => ended,
            },
            () = sleep(stagger), if waiting.len() > 0 => None,
        };
        match ended {
            Some((Ok(stream), winner)) => {
                // They had more time, and did not need to be waited for.
                begun
                    .iter()
                    .take_while(|slower| !Arc::ptr_eq(slower, &winner))
                    .for_each(|it| it.is_trouble());
                winner.is_well();
                return Some(Ok(stream));
            }
            Some((Err(error), address)) => {
                if !error.is_local() {
                    address.is_trouble();
                }
                failed = Some(worse(failed, error));
            }
            None => {}
        }
    }
}

/// What says more of the server.
fn worse(one: Option<DialError>, other: DialError) -> DialError {
    match (one, other) {
        (Some(one), other) if other.is_local() && !one.is_local() => one,
        (Some(one), DialError::Forbidden(_)) => one,
        (_, other) => other,
    }
}

async fn dial_one(address: SocketAddr) -> Result<TcpStream, DialError> {
    if is_forbidden(address.ip()) {
        return Err(DialError::Forbidden(address.ip()));
    }
    let stream = TcpStream::connect(address).await.map_err(|error| match is_local(&error) {
        true => DialError::Local(error),
        false => DialError::Connect(address, error),
    })?;
    // Only fails on a socket that is dead already.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loopback addresses at which these listen, on one port that they share, and those that do not.
    async fn addresses(
        listening: &[&str],
        all: &[&str],
    ) -> (Vec<tokio::net::TcpListener>, Vec<Arc<Address>>) {
        let first = tokio::net::TcpListener::bind((listening[0], 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        let mut listeners = vec![first];
        for host in &listening[1..] {
            listeners.push(tokio::net::TcpListener::bind((*host, port)).await.unwrap());
        }
        let found = all.iter().map(|host| Address::at(SocketAddr::new(host.parse().unwrap(), port)));
        (listeners, found.collect())
    }

    #[tokio::test]
    async fn every_address_gets_an_attempt() {
        let (_listeners, all) = addresses(&["127.0.0.9"], &["127.0.0.7", "127.0.0.8", "127.0.0.9"]).await;
        let stream = race(all, Duration::from_secs(60)).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip().to_string(), "127.0.0.9", "the others refuse at once");
    }

    #[tokio::test]
    async fn forbidden_addresses_are_passed_over() {
        let (_listeners, all) = addresses(&["127.0.0.9"], &["169.254.169.254", "127.0.0.9"]).await;
        assert!(race(all, Duration::from_secs(60)).await.unwrap().is_ok());
        let (_listeners, all) = addresses(&["127.0.0.9"], &["169.254.169.254", "fd00:ec2::254"]).await;
        assert!(matches!(race(all, STAGGER).await, Some(Err(DialError::Forbidden(_)))));
        assert!(race(Vec::new(), STAGGER).await.is_none());
    }

    #[tokio::test]
    async fn one_that_does_not_answer_holds_nobody_up_for_long() {
        // A listener whose backlog is full: connections to it are neither made nor refused.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let silent = socket.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(300), TcpStream::connect(silent)).await {
            queued.push(stream);
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let all = [silent, listener.local_addr().unwrap()].map(Address::at);
        let stream = race(all.to_vec(), Duration::from_millis(50)).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert!(all[0].is_troubled() && !all[1].is_troubled());
    }

    #[test]
    fn what_the_router_lacks_is_told_from_what_servers_do() {
        for (error, local) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::NOMEM, true),
            (Errno::NOBUFS, true),
            (Errno::CONNREFUSED, false),
            (Errno::CONNRESET, false),
            (Errno::TIMEDOUT, false),
            (Errno::HOSTUNREACH, false),
            (Errno::NETUNREACH, false),
        ] {
            assert_eq!(is_local(&io::Error::from_raw_os_error(error.raw_os_error())), local, "{error}");
        }
        let (lacks, refused) = (
            || DialError::Local(io::ErrorKind::Other.into()),
            || DialError::Connect("127.0.0.1:1".parse().unwrap(), io::ErrorKind::ConnectionRefused.into()),
        );
        assert!(!worse(Some(refused()), lacks()).is_local());
        assert!(!worse(Some(lacks()), refused()).is_local());
        assert!(worse(Some(lacks()), lacks()).is_local());
    }
}
