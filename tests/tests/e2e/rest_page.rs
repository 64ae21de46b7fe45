//! The page of examples for back-end jobs, run as it stands: its commands, its PHP, and what they print.

use std::path::Path;
use std::process::{Command, Stdio};

use tests::harness::{Folder, Server, syncline};

use crate::pages::blocks;

const PAGE: &str = include_str!("../../../server/REST.md");
/// Stands before and after each block of commands, to part what they print.
const MARK: &str = "-----8<-----";

/// Whether a printed line is the expected one, in which `…` stands for anything.
fn fits(printed: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(rest) = printed.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut rest = rest;
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        let found = if is_last { rest.ends_with(part).then(|| rest.len() - part.len()) } else { rest.find(part) };
        let Some(at) = found else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[test]
fn the_examples_for_curl_and_php_do_what_the_page_says() {
    let folder = Folder::new();
    let server = Server::start(&folder.path("server"));
    let blocks = blocks(PAGE);
    let mut script = String::new();
    let mut expected: Vec<Vec<&str>> = Vec::new();
    for block in &blocks {
        match block.language.split_once(' ') {
            Some(("php", file)) => drop(folder.write(file, &block.content)),
            _ if block.language == "sh" => {
                script +=
                    &format!("echo '{MARK}'\n{}\n# What they print may not end in a line feed.\necho\n", block.content);
                expected.push(Vec::new());
            }
            _ if block.language == "text" => {
                let printed = expected.last_mut().expect("what is printed comes after what prints it");
                printed.extend(block.content.lines());
            }
            _ => panic!("the page has a block of {}", block.language),
        }
    }
    let script = folder.write("page.sh", &script);
    let output = run(&script, &folder, &server);
    let printed: Vec<Vec<&str>> = output
        .split(&format!("{MARK}\n"))
        .skip(1)
        .map(|block| block.lines().filter(|line| !line.is_empty()).collect())
        .collect();
    assert_eq!(printed.len(), expected.len(), "all blocks ran:\n{output}");
    for (printed, expected) in printed.iter().zip(&expected) {
        // Bodies of answers end without a line feed, so that several stand in one line.
        let (printed, expected) = (printed.concat(), expected.concat());
        assert!(fits(&printed, &expected), "the page says\n{expected}\nand there came\n{printed}");
    }
}

fn run(script: &Path, folder: &Folder, server: &Server) -> String {
    let binaries = syncline().parent().expect("the binary is in a folder");
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").expect("there is a path"));
    let output = Command::new("bash")
        .args(["-euo", "pipefail"])
        .arg(script)
        .current_dir(script.parent().expect("it is in a folder"))
        .env("PATH", path)
        .env("SERVER", server.url())
        .env("SYNCLINE__SERVER__DATA", folder.path("server"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "the page's commands failed:\n{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).expect("UTF-8 is printed")
}

#[test]
fn a_placeholder_stands_for_anything_and_the_rest_for_itself() {
    for (printed, expected, fit) in [
        ("abc", "abc", true),
        ("abc", "a…c", true),
        ("ac", "a…c", true),
        ("abcd", "a…c", false),
        ("axbxc", "a…b…c", true),
        ("abc", "…", true),
        ("abc", "ab", false),
    ] {
        assert_eq!(fits(printed, expected), fit, "{printed} {expected}");
    }
}
