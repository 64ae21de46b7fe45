//! The binary under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::harness::CREDENTIALS;

/// The `syncline` binary of this workspace, built once in the profile of the tests; or the one that `SYNCLINE_BINARY`
/// names, to test what is installed somewhere.
///
/// # Panics
/// If it does not build.
pub fn syncline() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("SYNCLINE_BINARY").map_or_else(build, PathBuf::from))
}

/// Makes the tables of the store that a file of configuration names.
///
/// # Panics
/// If that fails.
pub fn migrate(config: &Path) {
    let mut command = Command::new(syncline());
    let output = command.args(["migrate", "--config"]).arg(config).envs(CREDENTIALS).output();
    let output = output.expect("the binary starts");
    assert!(output.status.success(), "no tables: {}", String::from_utf8_lossy(&output.stderr));
}

fn build() -> PathBuf {
    // The whole workspace, so that cargo chooses the features of dependencies as it did for the tests.
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--workspace", "--bin", "syncline", "--message-format=json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    if std::env::var_os("CI").is_some_and(|set| !set.is_empty()) {
        command.arg("--locked");
    }
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).stderr(Stdio::inherit());
    let output = command.output().expect("cargo starts");
    assert!(output.status.success(), "`{command:?}` failed");
    let messages = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut binaries = messages.filter_map(|message| match &message["executable"] {
        Value::String(path) if message["target"]["name"] == "syncline" => Some(PathBuf::from(path)),
        _ => None,
    });
    binaries.next().expect("cargo says where the binary is")
}
