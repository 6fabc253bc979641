//! nginx and HAProxy, as plain reverse proxies with kept-alive upstream connections; and HAProxy with
//! a stick table, which does what the gateway does: every client stays on its server.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use tempfile::TempDir;

use crate::usage;

/// A running peer; ended on drop.
pub(crate) struct Peer {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Peer {
    /// nginx in front of these origins; none when it is not installed.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub(crate) fn nginx(origins: &[SocketAddr]) -> anyhow::Result<Option<Self>> {
        let servers: String = origins.iter().map(|origin| format!("server {origin};\n")).collect();
        start("nginx", |directory, address| {
            let config = format!(
                "daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit;\n\
                 events {{ worker_connections 4096; }}\n\
                 http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;\n\
                 client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
                 upstream origin {{ {servers} keepalive 256; keepalive_requests 1000000000; }}\n\
                 server {{ listen {address}; location /chat/ {{ proxy_pass http://origin/;\n\
                 proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
            );
            (config, ["-p".to_owned(), directory.to_owned(), "-c".to_owned(), "config".to_owned()].into())
        })
    }

    /// HAProxy in front of these origins; none when it is not installed.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub(crate) fn haproxy(origins: &[SocketAddr]) -> anyhow::Result<Option<Self>> {
        Self::haproxy_with(origins, "")
    }

    /// HAProxy that keeps every client on its server, by the header that names it.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub(crate) fn sticky_haproxy(origins: &[SocketAddr]) -> anyhow::Result<Option<Self>> {
        let table =
            "  stick-table type string len 64 size 1m expire 30m\n  stick on req.hdr(message-flow-client)\n";
        Self::haproxy_with(origins, table)
    }

    fn haproxy_with(origins: &[SocketAddr], stick: &str) -> anyhow::Result<Option<Self>> {
        let servers = origins.iter().enumerate().map(|(at, origin)| format!("  server s{at} {origin}\n"));
        let servers: String = servers.collect();
        start("haproxy", |directory, address| {
            let config = format!(
                "global\n  nbthread 1\n  maxconn 4096\n\
                 defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  http-reuse always\n\
                 frontend f\n  bind {address}\n  default_backend b\n\
                 backend b\n  balance roundrobin\n{stick}{servers}"
            );
            (config, ["-db".to_owned(), "-f".to_owned(), format!("{directory}/config")].into())
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every process of it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        usage::family(self.child.id())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // nginx ends its worker on SIGTERM, and would orphan it on SIGKILL.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn start(
    name: &str,
    plan: impl Fn(&str, SocketAddr) -> (String, Vec<String>),
) -> anyhow::Result<Option<Peer>> {
    let Some(program) = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"].iter().find_map(|place| {
        let path = Path::new(place).join(name);
        path.exists().then_some(path)
    }) else {
        println!("{name} is not installed (.ci/install --benchmark does that): its row is left out");
        return Ok(None);
    };
    let directory = tempfile::tempdir()?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (config, arguments) = plan(&directory.path().display().to_string(), address);
    fs::write(directory.path().join("config"), config)?;
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program).args(arguments).current_dir(directory.path());
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("run taskset")?;
    let mut peer = Peer { child, address, _directory: directory };
    let end = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(address).is_err() {
        anyhow::ensure!(Instant::now() < end, "{name} does not listen");
        anyhow::ensure!(peer.child.try_wait()?.is_none(), "{name} ended at once");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(peer))
}
