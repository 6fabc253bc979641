//! Pages that are services, in a real browser: with the JavaScript client module and an access token, and with
//! the library Primus.
//!
//! The page has no other way to say what it heard than to put it into its service's metadata.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use message_flow_tests::{Gateway, Service, eventually, websocket::WebSocket, within};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
/// With the hash of `reader`, the token of the page and of the test.
const ACCESS: &str = "[discovery]\ngrace = \"1s\"\n[[access]]\n\
    token_sha256 = \"3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30\"\n\
    actions = [\"admin\"]\nnames = [\"*\"]\n";

#[tokio::test]
async fn a_page_is_a_service() {
    let gateway = Gateway::setup().config(ACCESS).start().await;
    let (site, _server) = Site::with(&page(&gateway)).serve().await;
    let profile = tempfile::tempdir().expect("a temporary directory");
    let _browser = browse(&site, profile.path());

    let mut explosion = explosion(&gateway, 8003).await;
    hears(&gateway, "explosion-service:8003").await;
    explosion.say(json!({ "type": "deregister" })).await;
    hears(&gateway, "explosion-service:8003 lost:explosion-service").await;

    // The gateway dies and comes back at the same address: the page comes back by itself.
    let address = gateway.api().to_string();
    let gateway = gateway.kill().await.api_at(&address).start().await;
    let _explosion = self::explosion(&gateway, 8004).await;
    hears(&gateway, "explosion-service:8003 lost:explosion-service explosion-service:8004").await;
    assert!(!gateway.log().contains("reader"), "a token is not logged");
}

#[tokio::test]
async fn a_page_that_speaks_primus_is_a_service() {
    let gateway = Gateway::setup().config("[discovery]\nping = \"1s\"\n").start().await;
    let site = Site::with(&primus_page(&gateway));
    primus_library(&site.0.path().join("primus.js")).await;
    let (site, _server) = site.serve().await;
    let origin = site.trim_end_matches('/');
    let write = |origin: &str| {
        let call = gateway.ask("PUT", "/v1/services/other").header("origin", origin);
        call.json(&json!({ "server": "http://127.0.0.1:1" }))
    };
    write(origin).send().await.problem(403);
    gateway.reconfigure(format!("[api]\norigins = [\"{origin}\"]\n[discovery]\nping = \"1s\"\n"));
    gateway.until(write(origin), 201).await;
    let profile = tempfile::tempdir().expect("a temporary directory");
    let _browser = browse(&site, profile.path());

    let mut explosion = explosion(&gateway, 8003).await;
    hears(&gateway, "required-service:8003").await;
    explosion.say(json!({ "type": "deregister" })).await;
    hears(&gateway, "required-service:8003 required-service-lost:").await;
}

/// What a server of Primus gives its pages.
async fn primus_library(file: &Path) {
    const MAKE: &str = "const Primus = require('primus');
        const server = new (require('events'))();
        const primus = new Primus(server, { transformer: 'websockets', pingInterval: false });
        require('fs').writeFileSync(process.argv[2], primus.library());";
    let place = crate::client_examples::javascript_packages();
    let program = place.path().join("make.cjs");
    fs::write(&program, MAKE).expect("write a program");
    let made = Command::new("node").arg(program).arg(file).status().await.expect("node: run .ci/install");
    assert!(made.success(), "the library is made");
}

fn primus_page(gateway: &Gateway) -> String {
    let router = Value::from(format!("http://{}", gateway.api()));
    format!(
        "<!doctype html><title>page</title><script src=\"primus.js\"></script><script>
        const heard = [];
        const primus = new Primus({router}, {{ pingTimeout: 20000 }});
        const define = () => primus.write({{
          name: 'page', port: 1, requires: ['explosion-service'], metadata: {{ heard: heard.join(' ') }},
        }});
        primus.on('open', define);
        primus.on('data', ({{ type, payload }}) => {{
          heard.push(`${{type}}:${{payload.port ?? ''}}`);
          define();
        }});
        for (const event of ['offline', 'end']) primus.on(event, () => heard.push(event));
        </script>"
    )
}

async fn explosion(gateway: &Gateway, port: u16) -> Service {
    let socket = WebSocket::open_as(gateway.api(), "/v1/connect", "reader").await.expect("a handshake");
    let mut service = Service::from(socket);
    service.say(json!({ "name": "explosion-service", "port": port })).await;
    service
}

/// Waits until the page has heard exactly this.
async fn hears(gateway: &Gateway, wanted: &str) {
    eventually(async || {
        let call = gateway.ask("GET", "/v1/services/page").header("authorization", "Bearer reader");
        let service = call.send().await.json();
        let heard = service["servers"][0]["metadata"]["heard"].as_str().unwrap_or_default();
        if heard == wanted { Ok(()) } else { Err(format!("the page heard {heard:?}: {service}")) }
    })
    .await;
}

fn page(gateway: &Gateway) -> String {
    let router = Value::from(format!("ws://{}", gateway.api()));
    format!(
        "<!doctype html><title>page</title><script type=\"module\">
        import {{ connect }} from './index.js';
        const heard = [];
        const definition = {{ name: 'page', port: 1, requires: ['explosion-service'] }};
        const service = connect({router}, definition, {{ token: 'reader' }});
        const note = (what) => {{
          heard.push(what);
          service.define({{ metadata: {{ heard: heard.join(' ') }} }});
        }};
        service.on('required', ({{ name, port }}) => note(`${{name}}:${{port}}`));
        service.on('lost', ({{ name }}) => note(`lost:${{name}}`));
        </script>"
    )
}

/// The page and the client module beside it, as files.
struct Site(TempDir);

impl Site {
    fn with(page: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/javascript");
        for module in ["index.js", "backoff.js"] {
            fs::copy(sources.join(module), directory.path().join(module)).expect("copy the module");
        }
        fs::write(directory.path().join("index.html"), page).expect("write the page");
        Self(directory)
    }

    /// Its address, and what serves it while it is held.
    async fn serve(self) -> (String, (Child, TempDir)) {
        let mut server = Command::new("python3");
        server.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]).current_dir(self.0.path());
        server.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut server = server.spawn().expect("python3: run .ci/install");
        let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
        let line = within(PATIENCE, "a web server", lines.next_line()).await.expect("its output");
        let line = line.expect("the web server says where it is");
        let address = line.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("no address: {line}"));
        (address.to_owned(), (server, self.0))
    }
}

/// Ends with the result.
fn browse(site: &str, profile: &Path) -> Child {
    let mut browser = Command::new(chromium());
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    browser.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    browser.arg("--remote-debugging-port=0").arg(format!("--user-data-dir={}", profile.display())).arg(site);
    browser.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    browser.spawn().expect("a browser")
}

fn chromium() -> PathBuf {
    let found = ["/usr/bin/chromium", "/usr/bin/google-chrome"].map(PathBuf::from);
    found.into_iter().find(|path| path.exists()).expect("chromium: run .ci/install --tests")
}
