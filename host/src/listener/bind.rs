//! The sockets that workers listen on: one for each, so that the kernel divides the connections among
//! them, and those that another process has handed over.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{ListenError, ListenerOptions};

/// What there is to listen on.
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    /// Those of each worker: one, or several where the process before had more workers.
    pub(super) sockets: Vec<Vec<TcpListener>>,
}

/// Sockets for every worker. Of those that are inherited each is used, or connections that wait in
/// one would be lost.
pub(super) fn sockets(options: &ListenerOptions, inherited: Vec<TcpListener>) -> Result<Bound, ListenError> {
    let mut address = options.listen;
    let failed = |address| move |source| ListenError::Bind { address, source };
    let is_wanted = |socket: &TcpListener| {
        let bound = socket.local_addr();
        bound.is_ok_and(|at| at.ip() == address.ip() && (at.port() == address.port() || address.port() == 0))
    };
    let mut all: Vec<TcpListener> = inherited.into_iter().filter(is_wanted).collect();
    match all.first() {
        Some(first) => address = first.local_addr().map_err(failed(address))?,
        // With SO_REUSEPORT alone, a second process would silently take half of the connections.
        None => bind(address, Share::Alone).map(drop).map_err(failed(address))?,
    }
    let workers = options.worker_count();
    while all.len() < workers {
        let socket = listen(address, options.backlog).map_err(failed(address))?;
        // Port 0: the others join the port that the first was given.
        address = socket.local_addr().map_err(failed(address))?;
        all.push(socket);
    }
    let mut sockets: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for (number, socket) in all.into_iter().enumerate() {
        socket.set_nonblocking(true).map_err(failed(address))?;
        sockets[number % workers].push(socket);
    }
    Ok(Bound { address, sockets })
}

#[derive(PartialEq)]
enum Share {
    Alone,
    WithWorkers,
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = bind(address, Share::WithWorkers)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn bind(address: SocketAddr, share: Share) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share == Share::WithWorkers {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(listen: &str, workers: usize) -> ListenerOptions {
        ListenerOptions { listen: listen.parse().unwrap(), workers, ..ListenerOptions::default() }
    }

    fn count(bound: &Bound) -> Vec<usize> {
        bound.sockets.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_second_process_gets_no_share() {
        let first = sockets(&options("127.0.0.1:0", 2), Vec::new()).unwrap();
        assert_eq!(count(&first), [1, 1]);
        let taken = first.address.to_string();
        assert!(matches!(sockets(&options(&taken, 1), Vec::new()), Err(ListenError::Bind { .. })));
    }

    #[test]
    fn all_that_is_inherited_is_used() {
        for (workers, expect) in [(1, vec![3]), (2, vec![2, 1]), (3, vec![1, 1, 1]), (4, vec![1, 1, 1, 1])] {
            let first = sockets(&options("127.0.0.1:0", 3), Vec::new()).unwrap();
            let at = first.address;
            let inherited = first.sockets.into_iter().flatten().collect();
            let second = sockets(&options(&at.to_string(), workers), inherited).unwrap();
            assert_eq!((count(&second), second.address), (expect, at));
        }
    }

    #[test]
    fn what_is_elsewhere_is_not() {
        let first = sockets(&options("127.0.0.1:0", 1), Vec::new()).unwrap();
        let (elsewhere, at) = (first.sockets.into_iter().flatten().collect(), first.address);
        let second = sockets(&options("[::1]:0", 1), elsewhere).unwrap();
        assert_ne!(second.address, at);
        // Any port is any port, so that of the process before will do.
        let inherited = second.sockets.into_iter().flatten().collect();
        assert_eq!(sockets(&options("[::1]:0", 1), inherited).unwrap().address, second.address);
    }
}
