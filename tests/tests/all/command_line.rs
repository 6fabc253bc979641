//! `check`, and configurations that are wrong.

use message_flow_tests::{Gateway, guests};

#[tokio::test]
async fn check_accepts_what_is_right() {
    let setup =
        Gateway::setup().config("[proxy]\nlisten = \"127.0.0.1:0\"\n").plugin("gate", guests::wasm("gate"));
    let (status, said) = setup.run("check").await;
    assert_eq!(status.code(), Some(0), "{said}");
}

#[tokio::test]
async fn check_tells_every_error_with_its_line() {
    let config = "[proxy]\nlisten = \"nowhere\"\nclient_id = [\"haeder:x\"]\n\n[apii]\nlisten = \"127.0.0.1:1\"\n\n\
                  [plugin.geo]\nmemory = \"much\"\non_error = \"shut\"\n\n[service.chat]\nsticky = { ttl = 5 }\n";
    let (status, said) = Gateway::setup().config(config).run("check").await;
    assert_eq!(status.code(), Some(64), "{said}");
    for (line, named) in
        [(2, "nowhere"), (3, "haeder"), (5, "apii"), (9, "much"), (10, "shut"), (13, "sticky")]
    {
        assert!(said.contains(named), "{named} is not named:\n{said}");
        assert!(
            said.contains(&format!(":{line}:")) || said.contains(&format!("line {line}")),
            "line {line}:\n{said}"
        );
    }
}

#[tokio::test]
async fn check_looks_at_plugins_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, b"this is no WebAssembly").expect("write");
    let setup = Gateway::setup().plugin("junk", garbage).plugin("needy", guests::wasm("needy"));
    let (status, said) = setup.run("check").await;
    assert_eq!(status.code(), Some(64), "{said}");
    assert!(said.contains("junk") && said.contains("needy") && said.contains("etcd"), "{said}");
}

#[tokio::test]
async fn a_wrong_configuration_does_not_start() {
    for config in
        ["[proxy", "[proxy]\nlisten = 5", "[plugin.x]\ngrant = [\"root\"]", "[[route]]\nservice = \"a b\""]
    {
        let said = Gateway::setup().config(config).try_start().await.err().expect("it is refused");
        assert!(said.contains("message-flow.toml"), "the file is named: {said}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let gateway = Gateway::start().await;
    let said =
        Gateway::setup().api_at(&gateway.api().to_string()).try_start().await.err().expect("it is refused");
    assert!(said.contains(&gateway.api().to_string()), "{said}");
}

#[tokio::test]
async fn completions_and_help_are_there() {
    let (status, said) = Gateway::setup().argument("--help").run("run").await;
    assert!(status.success() && said.contains("--plugins"), "{said}");
    let (status, said) = Gateway::setup().argument("bash").run("completions").await;
    assert!(status.success() && said.contains("message-flow"), "{said}");
}
