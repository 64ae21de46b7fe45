//! Programs and data that `./dev install` brings.

use std::path::PathBuf;

/// Where a part is: where the variable says, or in the newest of the folders of the tools that begin with this name.
///
/// # Panics
/// If it is missing.
pub fn installed(variable: &str, prefix: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).or_else(|| newest(prefix));
    let path = path.unwrap_or_else(|| panic!("{prefix} is missing: run `./dev install`"));
    assert!(path.exists(), "{} is missing: run `./dev install`", path.display());
    path
}

fn newest(prefix: &str) -> Option<PathBuf> {
    let tools = std::env::var_os("SYNCLINE_TOOLS").map(PathBuf::from);
    let tools = tools.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/syncline-tools")))?;
    let entries = std::fs::read_dir(tools).ok()?.flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.map(|entry| entry.path()).max()
}
