//! Tells a service manager that asked to be told, as systemd does with `Type=notify`, that this process
//! serves and is the one to watch from now on (sd_notify(3)).

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{ffi::OsStrExt, net::SocketAddr, net::UnixDatagram},
    },
};

/// Says it, if there is anybody to say it to.
pub(crate) fn ready() {
    let Some(to) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = say(&to, &format!("READY=1\nMAINPID={}\n", std::process::id())) {
        tracing::warn!(%error, "the service manager was not told that this process serves");
    }
}

fn say(to: &OsStr, text: &str) -> io::Result<()> {
    let address = match to.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(to)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_heard_at_a_path_and_at_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("message-flow-test-{}", std::process::id());
        let at = [
            (path.clone().into_os_string(), SocketAddr::from_pathname(&path).unwrap()),
            (format!("@{name}").into(), SocketAddr::from_abstract_name(name).unwrap()),
        ];
        for (written, address) in at {
            let manager = UnixDatagram::bind_addr(&address).unwrap();
            say(&written, "READY=1\n").unwrap();
            let mut heard = [0; 16];
            let length = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1\n");
        }
    }
}
