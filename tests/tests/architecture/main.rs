//! The shape of the workspace, as tests: who may import whom, what `sync-core` may depend on, and a few habits.

mod imports;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use imports::{IO, Import, imports, tokens};

/// What one module may import. A file of a module without a rule fails, so that each new module gets one.
struct Rule {
    module: &'static str,
    /// Modules of the same crate, or parts of them.
    ours: &'static [&'static str],
    /// The same of `sync_core`.
    core: &'static [&'static str],
    /// Crates that do I/O or speak to the outside; other crates are free to everybody.
    drivers: &'static [&'static str],
}

const fn rule(
    module: &'static str,
    ours: &'static [&'static str],
    core: &'static [&'static str],
    drivers: &'static [&'static str],
) -> Rule {
    Rule { module, ours, core, drivers }
}

/// Stands for every module.
const ANY: &[&str] = &["*"];

const CORE_RULES: &[Rule] = &[
    rule("model", &[], &[], &[]),
    rule("protocol", &["model"], &[], &[]),
    rule("policy", &["model"], &[], &[]),
    rule("delta", &["model", "policy"], &[], &[]),
    rule("conflict", &["model", "policy", "delta"], &[], &[]),
    rule("merge", &["model", "policy", "delta", "conflict"], &[], &[]),
    rule("client", &["model", "policy", "delta", "conflict", "merge", "protocol"], &[], &[]),
    rule("device", &["model", "policy", "conflict", "merge", "protocol", "client"], &[], &["rusqlite", "std::fs"]),
    rule("vectors", &["model", "policy", "delta", "conflict", "merge", "protocol", "client"], &[], &[]),
];

const SERVER_RULES: &[Rule] = &[
    rule("config", &[], &["model"], IO),
    rule("clock", &[], &["model"], IO),
    rule("causes", &[], &[], &[]),
    rule("error", &[], &["model", "protocol"], &["axum"]),
    rule("telemetry", &["config"], &[], IO),
    rule("metrics", &[], &[], &[]),
    rule("checks", &[], &[], &[]),
    rule("fingerprint", &[], &[], &[]),
    rule("hex", &[], &[], &[]),
    rule("backup", &["data_folder", "store::StoreError"], &[], &["clap", "std::fs", "std::process"]),
    rule("copy", &["store"], &["model", "merge::push::Commit", "merge::push::Head"], &[]),
    // All other modules know a store by its contract.
    rule("open", &["config", "data_folder", "metrics::StoreUnits", "store"], &[], &[]),
    rule("trace", &["clock", "hex"], &[], &[]),
    // The library of ciphers is named after AWS too.
    rule("tls", &[], &[], &["aws", "std::fs"]),
    rule("data_folder", &[], &[], IO),
    rule(
        "auth",
        &["config", "causes", "clock", "data_folder", "error", "fingerprint", "hex"],
        &["model"],
        &["axum", "jsonwebtoken", "reqwest", "std::fs"],
    ),
    // The conformance suite is a test, which plans what it has the store carry out.
    rule("store::conformance", &["store", "store_conformance", "copy"], ANY, &["std::fs"]),
    rule(
        "store",
        &["causes", "clock", "error", "metrics"],
        PLANS,
        &["rusqlite", "sqlx", "aws", "std::fs", "std::thread"],
    ),
    rule(
        "service",
        &["store", "auth::policy", "causes", "clock", "error", "fingerprint", "metrics"],
        &["model", "policy", "delta", "conflict", "merge", "protocol"],
        &[],
    ),
    rule(
        "hook",
        &["service::hook", "config", "causes", "clock", "error", "hex", "trace"],
        &["model", "merge::push::Review"],
        &["reqwest"],
    ),
    rule(
        "fanout",
        &["service", "store::DatasetAddress", "causes", "clock", "config", "hex", "metrics"],
        &["model"],
        &["redis"],
    ),
    rule("deps", &["auth", "clock", "config", "error", "service", "store"], &["model"], &[]),
    rule(
        "http",
        &[
            "service",
            "store::DatasetAddress",
            "store::devices",
            "store::directory",
            "auth",
            "causes",
            "clock",
            "config",
            "deps",
            "error",
            "metrics",
            "tls",
            "trace",
        ],
        &["model", "protocol"],
        &["axum", "hyper", "tower", "std::io", "std::net"],
    ),
    rule(
        "cli",
        &["config", "causes", "clock", "telemetry"],
        ANY,
        &["clap", "indicatif", "reqwest", "std::fs", "std::env"],
    ),
];

/// What a store carries out: values, and no planner.
const PLANS: &[&str] = &[
    "model",
    "merge::push::Answer",
    "merge::push::Commit",
    "merge::push::Head",
    "merge::push::Outcome",
    "merge::push::Refusal",
    "merge::push::RememberedPush",
    "merge::push::View",
];

/// Which members of the workspace each member may depend on, in any section of its manifest.
const CRATES: &[(&str, &[&str])] = &[
    ("sync-core", &[]),
    ("server", &["sync-core"]),
    ("mobile-ffi", &["sync-core"]),
    ("web-wasm", &["sync-core"]),
    ("tests", &["sync-core", "server", "mobile-ffi", "web-wasm"]),
];

/// All crates under `sync-core` without features, in the browser.
const CORE_CRATES: &str = "base64 block-buffer cfg-if const-oid crypto-common digest hybrid-array itoa memchr num-traits \
    proc-macro2 quote rmp rmp-serde serde serde_core serde_derive serde_json sha2 similar syn sync-core thiserror \
    thiserror-impl typenum unicode-ident zmij";
/// Those that come with a native target.
const NATIVE_CRATES: &str = "cpufeatures";
/// Those that come with the feature `device`.
const DEVICE_CRATES: &str = "bitflags fallible-iterator fallible-streaming-iterator foldhash hashbrown hashlink \
    libsqlite3-sys rusqlite smallvec";

const FILE_LINES_MAX: usize = 800;

/// Hosts that a URL in a tracked file may name, with all their subdomains. Registries and mirrors don't belong here:
/// they differ from machine to machine.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "0.0.0.0",
    "localhost",
    "example",
    "example.com",
    "example.net",
    "example.org",
    "invalid",
    "test",
    "amazonaws.com",
    "apache.org",
    "docs.aws.amazon.com",
    "docs.rs",
    "github.com",
    "ietf.org",
    "json-schema.org",
    "keepachangelog.com",
    "mozilla.org",
    "openid.net",
    "opensource.org",
    "rfc-editor.org",
    "rust-lang.org",
    "semver.org",
    "sqlite.org",
    "w3.org",
];

/// Hosts and folders that no tracked file may name even without a scheme, each in two halves so that this file does
/// not name them either.
const MACHINE_NAMES: &[(&str, &str)] = &[
    (".debian", ".org"),
    (".npmjs", ".org"),
    ("pypi", ".org"),
    (".crates", ".io"),
    ("proxy.golang", ".org"),
    (".maven", ".org"),
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("/ho", "me/"),
];

#[test]
fn modules_of_sync_core_import_only_what_they_may() {
    check_imports("sync-core", CORE_RULES);
}

#[test]
fn modules_of_the_server_import_only_what_they_may() {
    check_imports("server", SERVER_RULES);
}

#[test]
fn crates_depend_only_on_the_members_that_they_may() {
    let mut problems = Vec::new();
    for name in members() {
        let Some((_, allowed)) = CRATES.iter().find(|(krate, _)| *krate == name) else {
            problems.push(format!("{name}: a new member; say in CRATES what it may depend on"));
            continue;
        };
        for dependency in dependencies(&read(&root().join(&name).join("Cargo.toml"))) {
            if CRATES.iter().any(|(krate, _)| *krate == dependency) && !allowed.contains(&dependency.as_str()) {
                problems.push(format!("{name}/Cargo.toml: must not depend on {dependency}; share by way of sync-core"));
            }
        }
    }
    report(&problems);
}

#[test]
fn sync_core_pulls_in_only_the_listed_crates() {
    let linux = "x86_64-unknown-linux-gnu";
    for (arguments, lists) in [
        (["--target", "wasm32-unknown-unknown"].as_slice(), [CORE_CRATES].as_slice()),
        (&["--target", linux], &[CORE_CRATES, NATIVE_CRATES]),
        (&["--target", linux, "--features", "device"], &[CORE_CRATES, NATIVE_CRATES, DEVICE_CRATES]),
    ] {
        let tree = ["tree", "--locked", "--package", "sync-core", "--edges", "normal", "--prefix", "none"];
        let output = run(Command::new(env!("CARGO")).args(tree).args(arguments));
        let found: BTreeSet<&str> = output.lines().filter_map(|line| line.split(' ').next()).collect();
        let listed: BTreeSet<&str> = lists.iter().flat_map(|list| list.split_whitespace()).collect();
        let new: Vec<_> = found.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&found).collect();
        assert!(
            new.is_empty() && gone.is_empty(),
            "the crates under sync-core {arguments:?} are not those listed in {}.\n\
             new: {new:?} (every phone and browser will carry them: do without, or list them)\n\
             gone: {gone:?} (take them off the list)",
            file!()
        );
    }
}

#[test]
fn crates_share_the_lints_and_the_libraries_forbid_unsafe_code() {
    let mut problems = Vec::new();
    for name in members() {
        if !read(&root().join(&name).join("Cargo.toml")).contains("[lints]\nworkspace = true") {
            problems.push(format!("{name}/Cargo.toml: add `[lints]` with `workspace = true`"));
        }
    }
    for name in ["sync-core", "server"] {
        let library = read(&root().join(name).join("src/lib.rs"));
        for attribute in ["#![forbid(unsafe_code)]", "#![warn(missing_docs)]"] {
            if !library.contains(attribute) {
                problems.push(format!("{name}/src/lib.rs: add `{attribute}`"));
            }
        }
    }
    report(&problems);
}

#[test]
fn source_files_are_short_finished_and_named_after_their_module() {
    let mut problems = Vec::new();
    for file in tracked_files().iter().filter(|file| file.ends_with(".rs")) {
        let source = read(&root().join(file));
        let lines = source.lines().count();
        if file.contains("src/") && lines > FILE_LINES_MAX {
            problems.push(format!("{file}: {lines} lines; it is probably two things, split it"));
        }
        if file.ends_with("/mod.rs") {
            problems.push(format!("{file}: name it after its folder, beside the folder"));
        }
        let tokens = tokens(&source);
        for window in tokens.windows(2) {
            let line = window[0].line;
            match (window[0].text, window[1].text) {
                (name @ ("todo" | "unimplemented"), "!") => {
                    problems.push(format!("{file}:{line}: finish what `{name}!` stands for, or leave it out"));
                }
                ("[", "ignore") => problems.push(format!("{file}:{line}: run the test or remove it: no `#[ignore]`")),
                _ => {}
            }
        }
    }
    report(&problems);
}

#[test]
fn tracked_files_name_no_registry_and_no_folder_of_one_machine() {
    let mut problems = Vec::new();
    for file in tracked_files() {
        let Ok(text) = fs::read_to_string(root().join(&file)) else {
            continue; // Not text.
        };
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            for host in url_hosts(line) {
                if !HOSTS.iter().any(|known| host == *known || host.ends_with(&format!(".{known}"))) {
                    problems
                        .push(format!("{file}:{number}: a URL to `{host}`; list it in HOSTS if anybody may know it"));
                }
            }
            for (start, end) in MACHINE_NAMES {
                if contains_name(line, &format!("{start}{end}")) {
                    problems
                        .push(format!("{file}:{number}: `{start}{end}` differs by machine; find it out at run time"));
                }
            }
        }
    }
    report(&problems);
}

fn check_imports(name: &str, rules: &[Rule]) {
    let source_folder = root().join(name).join("src");
    let mut problems = Vec::new();
    for path in rust_files(&source_folder) {
        let relative = path.strip_prefix(&source_folder).expect("a file of the folder").with_extension("");
        let module: Vec<&str> = relative.iter().map(|part| part.to_str().expect("a name in UTF-8")).collect();
        // The roots wire everything together, and tests may import what they test with.
        if matches!(module[..], ["lib" | "main"]) || module.contains(&"tests") {
            continue;
        }
        let file = format!("{name}/src/{}.rs", module.join("/"));
        let path_of_module = module.join("::");
        let Some(rule) = rules.iter().find(|rule| is_inside(&path_of_module, rule.module)) else {
            problems.push(format!("{file}: module `{}` has no rule; say what it may import", module[0]));
            continue;
        };
        for Import { from, name, line } in imports(&tokens(&read(&path)), &module) {
            let allowed = match from {
                "crate" if name.split("::").next() == Some(rule.module) => continue,
                "crate" => rule.ours,
                "sync_core" => rule.core,
                _ => rule.drivers,
            };
            let listed = |it: &&str| is_inside(&name, it);
            if allowed != ANY && !allowed.iter().any(listed) {
                let from = if from == "driver" { "" } else { &format!("{from}::") };
                let module = rule.module;
                problems.push(format!("{file}:{line}: `{module}` may not import `{from}{name}`, only {allowed:?}"));
            }
        }
    }
    if !problems.is_empty() {
        problems.push(
            "name modules, not what lib.rs exports; the rules are in tests/tests/architecture/main.rs".to_owned(),
        );
    }
    report(&problems);
}

/// Whether a path names a module or something in it.
fn is_inside(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The names in the sections of a manifest that list dependencies.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').ends_with("dependencies");
        } else if let (true, Some((key, _))) = (inside, line.split_once('=')) {
            names.push(key.trim().split('.').next().unwrap_or_default().to_owned());
        }
    }
    names
}

/// The hosts of the URLs in `line`; what is filled in at run time is none.
fn url_hosts(line: &str) -> Vec<&str> {
    let behind_scheme =
        line.split("http").skip(1).filter_map(|rest| rest.strip_prefix('s').unwrap_or(rest).strip_prefix("://"));
    behind_scheme
        .map(|rest| &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && !".-".contains(c)).unwrap_or(rest.len())])
        .filter(|host| !host.is_empty() && *host != "HOST" && !host.ends_with('-'))
        .collect()
}

/// Whether `line` has `name`, and not only inside a longer path or word.
fn contains_name(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        name.starts_with('.') || !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/})".contains(c))
    })
}

fn members() -> Vec<String> {
    let entries = fs::read_dir(root()).expect("the workspace's folder can be read").flatten();
    let names = entries.filter(|entry| entry.path().join("Cargo.toml").exists()).map(|entry| entry.file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    names
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let prefix = folder.strip_prefix(root()).expect("a folder of the workspace").to_str().expect("a name in UTF-8");
    let files: Vec<String> = tracked_files();
    let ours = files.iter().filter(|file| file.starts_with(prefix) && file.ends_with(".rs"));
    let ours: Vec<PathBuf> = ours.map(|file| root().join(file)).collect();
    assert!(!ours.is_empty(), "{prefix} has no Rust files");
    ours
}

/// What git tracks or would track after `git add`.
fn tracked_files() -> Vec<String> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let output = run(Command::new("git").args(list));
    let files = output.lines().filter(|file| root().join(file).is_file());
    files.map(str::to_owned).collect()
}

/// What a command prints; a command that fails, fails the test.
fn run(command: &mut Command) -> String {
    let output = command.current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the command prints UTF-8")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a workspace around it")
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}
