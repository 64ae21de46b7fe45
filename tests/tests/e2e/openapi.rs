//! The OpenAPI document: valid by a public validator, true by a tester that tries what it describes, and readable.

use std::path::PathBuf;
use std::process::Command;

use tests::harness::{Folder, Server, installed};

/// A document of the server's, as text.
async fn fetch(server: &Server, path: &str) -> String {
    let response = reqwest::get(format!("{}{path}", server.url())).await.and_then(reqwest::Response::error_for_status);
    response.expect("it is served").text().await.expect("it is text")
}

/// Runs a program of the virtual environment that `./dev install` makes.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let tools: PathBuf = installed("SYNCLINE_SCHEMATHESIS", "schemathesis-");
    let output = Command::new(tools.join("bin").join(program)).args(arguments).output();
    let output = output.expect("`./dev install` has brought it");
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(()) } else { Err(told) }
}

#[tokio::test]
async fn the_server_answers_as_its_document_says_and_never_fails() {
    let folder = Folder::new();
    let server = Server::start(&folder.path("server"));
    let document = format!("{}/openapi.json", server.url());
    let json = fetch(&server, "/openapi.json").await;
    let file = folder.write("openapi.json", &json);
    if let Err(told) = run("openapi-spec-validator", &[file.to_str().expect("a path in UTF-8")]) {
        panic!("the document is not valid:\n{told}");
    }
    // A user, who reaches their own datasets, and a back-end job, which reaches those of all owners.
    for (token, paths) in
        [(server.token("ada"), "^/v1/(datasets|identity)"), (server.service_token("job"), "^/v1/owners")]
    {
        let tried = run(
            "schemathesis",
            &[
                "run",
                &document,
                "--header",
                &format!("Authorization: Bearer {token}"),
                "--include-path-regex",
                paths,
                // A stream has no end that could be waited for; it has tests of its own.
                "--exclude-path-regex",
                "/events$",
                "--checks",
                "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
                "--phases",
                "examples,coverage,fuzzing",
                "--max-examples",
                "10",
                "--seed",
                "1",
                "--no-color",
            ],
        );
        if let Err(told) = tried {
            panic!("the server does not do what the document says:\n{told}");
        }
    }
}

#[tokio::test]
async fn the_page_of_the_document_names_every_path_and_asks_no_other_host() {
    let folder = Folder::new();
    let server = Server::start(&folder.path("server"));
    let json = fetch(&server, "/openapi.json").await;
    let document: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let page = fetch(&server, "/docs").await;
    for path in document["paths"].as_object().expect("it has paths").keys() {
        assert!(page.contains(&format!("<code>{path}</code>")), "{path} is missing");
    }
    for outside in ["://", "src=", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "the page has {outside}");
    }
}
