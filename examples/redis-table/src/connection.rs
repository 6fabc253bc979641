//! The connection of an instance to Redis: made when it is needed, given up at the first trouble.

use std::{cell::RefCell, net::SocketAddr};

use message_flow_sdk::{config, routing_table::TableError};
use wasip2::{
    io::streams::{InputStream, OutputStream},
    sockets::{
        instance_network::instance_network,
        network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress},
        tcp::TcpSocket,
        tcp_create_socket::create_tcp_socket,
    },
};

use crate::reply::{self, Reply};

struct Connection {
    // Streams go before the socket that they belong to.
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
}

/// `wasi:io` writes at most this at once.
const CHUNK: usize = 4096;
/// No answer is larger.
const ANSWER: usize = 32 << 20;

thread_local!(static HELD: RefCell<Option<Connection>> = const { RefCell::new(None) });

/// The prefix of every key.
pub(crate) fn prefix() -> String {
    config::get("prefix").unwrap_or_else(|| "message-flow".to_owned())
}

/// Runs a script over the prefix.
pub(crate) fn run(script: &str, arguments: &[&str]) -> Result<Reply, TableError> {
    let prefix = prefix();
    let mut words = vec!["EVAL", script, "1", &prefix];
    words.extend(arguments);
    ask(&words)
}

/// Sends a command and waits for its answer. On an old connection that Redis has closed meanwhile
/// nothing was carried out for sure only if nothing could be sent, so there is no second try.
pub(crate) fn ask(words: &[&str]) -> Result<Reply, TableError> {
    HELD.with_borrow_mut(|held| {
        let mut connection = match held.take() {
            Some(connection) => connection,
            None => Connection::open()?,
        };
        let answer = connection.ask(words)?;
        *held = Some(connection);
        match answer {
            Reply::Error(error) if error.starts_with("LOADING") => Err(TableError::Unavailable(error)),
            Reply::Error(error) => Err(TableError::Refused(format!("redis said: {error}"))),
            answer => Ok(answer),
        }
    })
}

impl Connection {
    fn open() -> Result<Self, TableError> {
        let text = config::get("address").unwrap_or_else(|| "127.0.0.1:6379".to_owned());
        let address: SocketAddr = text.parse().map_err(|_| {
            TableError::Invalid(format!("config.address: `{text}` is not an address: write IP:PORT"))
        })?;
        let mut connection = connect(address).map_err(|error| failed(address, error))?;
        if let Some(password) = config::get("password") {
            connection.greet(&["AUTH", &password])?;
        }
        if let Some(database) = config::get("database") {
            connection.greet(&["SELECT", &database])?;
        }
        Ok(connection)
    }

    fn greet(&mut self, words: &[&str]) -> Result<(), TableError> {
        match self.ask(words)? {
            Reply::Error(error) => Err(TableError::Refused(format!("redis said: {error}"))),
            _ => Ok(()),
        }
    }

    fn ask(&mut self, words: &[&str]) -> Result<Reply, TableError> {
        let lost = |what: &str| TableError::Unavailable(format!("redis: the connection was lost {what}"));
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
        }
        for chunk in command.chunks(CHUNK) {
            self.output.blocking_write_and_flush(chunk).map_err(|_| lost("before the command was sent"))?;
        }
        let mut bytes = Vec::new();
        loop {
            bytes.extend(self.input.blocking_read(64 << 10).map_err(|_| lost("before it answered"))?);
            match reply::parse(&bytes) {
                Ok(Some((answer, _))) => return Ok(answer),
                Ok(None) if bytes.len() < ANSWER => {}
                Ok(None) => return Err(TableError::Invalid("redis answered with too much".to_owned())),
                Err(reply::Malformed) => return Err(TableError::Invalid("this is no redis".to_owned())),
            }
        }
    }
}

fn connect(address: SocketAddr) -> Result<Connection, ErrorCode> {
    let (family, remote) = match address {
        SocketAddr::V4(address) => {
            let [a, b, c, d] = address.ip().octets();
            let remote = Ipv4SocketAddress { port: address.port(), address: (a, b, c, d) };
            (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(remote))
        }
        SocketAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.ip().segments();
            let remote = Ipv6SocketAddress {
                port: address.port(),
                flow_info: 0,
                address: (a, b, c, d, e, f, g, h),
                scope_id: 0,
            };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(remote))
        }
    };
    let socket = create_tcp_socket(family)?;
    socket.start_connect(&instance_network(), remote)?;
    let ready = socket.subscribe();
    loop {
        ready.block();
        match socket.finish_connect() {
            Err(ErrorCode::WouldBlock) => {}
            connected => {
                let (input, output) = connected?;
                drop(ready);
                return Ok(Connection { input, output, _socket: socket });
            }
        }
    }
}

fn failed(address: SocketAddr, error: ErrorCode) -> TableError {
    match error {
        ErrorCode::AccessDenied => TableError::Refused(format!(
            "{address} is not granted: write `grant = [\"tcp:{address}\"]` in the [plugin] section of this adapter"
        )),
        error => TableError::Unavailable(format!("redis at {address}: {error:?}")),
    }
}
