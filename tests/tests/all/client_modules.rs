//! The client modules' own tests, each in its language; `.ci/clients` installs what they stand on.

use std::path::{Path, PathBuf};

use message_flow_tests::within;
use tokio::process::Command;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is below the top").to_owned()
}

async fn succeeds(command: &mut Command) {
    let output = within(PATIENCE, "the tests of a client module", command.kill_on_drop(true).output()).await;
    let output =
        output.unwrap_or_else(|error| panic!("{command:?} does not start ({error}): run .ci/install"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

/// The packages of `target/javascript` are found from below it only, so the module is copied there.
#[tokio::test]
async fn javascript() {
    let packages = repository().join("target/javascript");
    let copy = tempfile::tempdir_in(&packages).expect("target/javascript: run .ci/install");
    let sources = repository().join("sdk/javascript");
    succeeds(Command::new("cp").arg("-r").arg(sources).arg(copy.path())).await;
    succeeds(Command::new("node").arg("--test").current_dir(copy.path().join("javascript"))).await;
}

#[tokio::test]
async fn python() {
    let mut tests = Command::new(repository().join("target/python/bin/python"));
    tests.args(["-m", "unittest", "discover", "tests"]).env("PYTHONPATH", "src");
    tests.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(repository().join("sdk/python"));
    succeeds(&mut tests).await;
}
