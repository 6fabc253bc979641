//! A real nginx as the server behind a gateway: it says of every message what it read.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::wait::eventually;

/// A running nginx; killed on drop. It answers everything with `ok` and the header `x-nginx`.
pub struct Nginx {
    _child: Child,
    directory: TempDir,
    address: SocketAddr,
    /// Bytes of its log that were looked at.
    looked_at: u64,
}

/// A message as nginx read it.
#[derive(Clone, Debug)]
pub struct Read(Value);

impl Read {
    /// A part of it, such as `method`, `target`, `host`, `body`, `status`, or `routed`, which is the header
    /// `x-routed`.
    pub fn part(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }
}

impl Nginx {
    /// Starts one.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [outer, inner] = [(); 2].map(|()| free_address());
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, configuration(directory.path(), outer, inner)).expect("write");
        let mut command = Command::new("nginx");
        // Debian has it where only root looks.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin")).arg("-p").arg(directory.path()).arg("-c").arg(&file);
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("start nginx: install nginx-light (.ci/install --tests does)");
        eventually(|| TcpStream::connect(outer)).await;
        Self { _child: child, directory, address: outer, looked_at: 0 }
    }

    /// As the registry writes it.
    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The messages that it read since this was asked the last time, once one has this target, which is
    /// not among them.
    pub async fn read_until(&mut self, target: &str) -> Vec<Read> {
        let file = self.directory.path().join("read.log");
        let from = usize::try_from(self.looked_at).expect("a short log");
        let (read, to) = eventually(|| async {
            let text = tokio::fs::read(&file).await.map_err(|error| error.to_string())?;
            let lines: Vec<_> = text[from..].split_inclusive(|byte| *byte == b'\n').collect();
            let whole = lines.iter().filter(|line| line.ends_with(b"\n"));
            let read: Vec<_> = whole.map(|line| Read(parse(line))).collect();
            let last = read.iter().position(|read| read.part("target") == target);
            let last = last.ok_or_else(|| format!("nginx read no {target}: {read:?}"))?;
            let length: usize = lines[..=last].iter().map(|line| line.len()).sum();
            Ok::<_, String>((read[..last].to_vec(), from + length))
        })
        .await;
        self.looked_at = to as u64;
        read
    }
}

fn parse(line: &[u8]) -> Value {
    let text = String::from_utf8_lossy(line);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("nginx wrote {text}: {error}"))
}

/// The inner server is there because nginx only tells of a body that it passes on.
fn configuration(directory: &Path, outer: SocketAddr, inner: SocketAddr) -> String {
    let directory = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("    {kind}_temp_path {directory}/{kind};\n"))
        .collect();
    format!(
        r#"daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
{temporary}    log_format read escape=json '{{"method":"$request_method","target":"$request_uri","host":"$http_host",'
        '"body":"$request_body","status":"$status","routed":"$http_x_routed"}}';
    client_body_buffer_size 256k;
    server {{
        listen {outer};
        access_log {directory}/read.log read;
        location / {{
            proxy_pass http://{inner};
        }}
    }}
    server {{
        listen {inner};
        access_log off;
        location / {{
            add_header x-nginx 1;
            return 200 ok;
        }}
    }}
}}
"#
    )
}

/// One that was free a moment ago: nginx cannot be asked which one it took.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket")
}
