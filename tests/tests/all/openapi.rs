//! `/v1/openapi.json` as programs read it: a validator, and a generator whose client registers a service.

use std::path::{Path, PathBuf};

use message_flow_tests::{Gateway, Upstream, within};
use tokio::process::Command;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);

fn tool(name: &str) -> Command {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is below the top");
    Command::new(tools.join("target/openapi/bin").join(name))
}

async fn succeeds(command: &mut Command) -> String {
    let output = within(PATIENCE, "a tool", command.kill_on_drop(true).output()).await;
    let output =
        output.unwrap_or_else(|error| panic!("{command:?} does not start ({error}): run .ci/install"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

async fn document(gateway: &Gateway, place: &Path) -> PathBuf {
    let file = place.join("openapi.json");
    let document = gateway.ask("GET", "/v1/openapi.json").send().await.expect(200);
    std::fs::write(&file, document.body).expect("write the document");
    file
}

#[tokio::test]
async fn the_document_is_valid() {
    let gateway = Gateway::start().await;
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = document(&gateway, place.path()).await;
    let said = succeeds(tool("openapi-spec-validator").args(["--subschema-errors", "all"]).arg(&file)).await;
    assert!(said.contains("OK"), "{said}");
}

/// The README's first service, then the same as objects, a condition, and a problem, through generated code alone.
const CLIENT: &str = r#"
import sys
from message_flow import Client
from message_flow.api.services import delete_service, list_services, put_service, show_service
from message_flow.models import Problem, ServerObject, ShownService, WrittenService

api, servers = sys.argv[1], sys.argv[2:]
client = Client(base_url=api)
hello = WrittenService(servers=servers)
put = put_service.sync_detailed("hello", client=client, body=hello)
assert put.status_code == 201, put
assert isinstance(put.parsed, ShownService), put
assert sorted(server.uri for server in put.parsed.servers) == sorted(servers), put
shown = show_service.sync("hello", client=client)
assert isinstance(shown, ShownService) and shown.sticky.to_dict() == {"ttl": "30m"}, shown
tag = put.headers["etag"]
again = WrittenService(servers=[ServerObject(uri=servers[0], id="one", weight=3), servers[1]])
put = put_service.sync_detailed("hello", client=client, body=again, if_match=tag)
assert put.status_code == 200, put
assert {server.id: server.weight for server in put.parsed.servers}["one"] == 3, put
put = put_service.sync_detailed("hello", client=client, body=hello, if_match=tag)
assert put.status_code == 412 and isinstance(put.parsed, Problem), put
assert put.parsed.type_ == "urn:message-flow:problem:condition-failed", put
missing = show_service.sync("nobody", client=client)
assert isinstance(missing, Problem) and missing.status == 404, missing
assert [service.service for service in list_services.sync(client=client)] == ["hello"]
print("registered")
"#;

#[tokio::test]
async fn a_generated_client_registers_a_service() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let gateway = Gateway::start().await;
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = document(&gateway, place.path()).await;
    // Else it formats what it made with a tool of its own.
    let options = place.path().join("options.yml");
    std::fs::write(&options, "post_hooks: []\n").expect("write the options");
    let mut generator = tool("openapi-python-client");
    generator.args(["generate", "--fail-on-warning", "--meta", "none", "--path"]).arg(&file);
    generator.arg("--config").arg(&options).arg("--output-path").arg(place.path().join("message_flow"));
    succeeds(&mut generator).await;

    let program = place.path().join("register.py");
    std::fs::write(&program, CLIENT).expect("write a program");
    let mut python = tool("python");
    python.arg(program).arg(format!("http://{}", gateway.api())).args([blue.uri(), green.uri()]);
    python.env("PYTHONPATH", place.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    assert_eq!(succeeds(&mut python).await.trim(), "registered");
    let name = gateway.get("/hello/").client("ann").send().await.expect(200).text();
    assert!(["blue", "green"].contains(&name.as_str()), "{name}");
}
