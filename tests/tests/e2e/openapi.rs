//! The OpenAPI document: valid by a public validator, true by a tester that tries what it describes, and readable.

use std::path::PathBuf;
use std::process::Command;

use tests::harness::{Folder, Server, installed};

/// A document of the server's, as text.
async fn fetch(server: &Server, path: &str) -> String {
    let response = reqwest::get(format!("{}{path}", server.url())).await.and_then(reqwest::Response::error_for_status);
    response.expect("it is served").text().await.expect("it is text")
}

/// Runs a program of the virtual environment that `./dev install` makes. Its caches go to the folder.
fn run(program: &str, arguments: &[&str], folder: &Folder) -> Result<(), String> {
    let tools: PathBuf = installed("SYNCLINE_SCHEMATHESIS", "schemathesis-");
    let mut command = Command::new(tools.join("bin").join(program));
    let output = command.args(arguments).current_dir(folder.path("")).output();
    let output = output.expect("`./dev install` has brought it");
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(()) } else { Err(told) }
}

/// What every answer has to pass. Schemas cannot say all that is asked of a request (`after` is of an earlier answer),
/// so that one which fits them may still be refused; one which does not has to be.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,negative_data_rejection,missing_required_header,\
    unsupported_method,allow_header_conformance,use_after_free";

#[tokio::test]
async fn the_server_answers_as_its_document_says_and_never_fails() {
    let folder = Folder::new();
    let server = Server::start(&folder.path("server"));
    let document = format!("{}/openapi.json", server.url());
    let json = fetch(&server, "/openapi.json").await;
    let file = folder.write("openapi.json", &json);
    if let Err(told) = run("openapi-spec-validator", &[file.to_str().expect("a path in UTF-8")], &folder) {
        panic!("the document is not valid:\n{told}");
    }
    let (user, job) = (server.token("ada"), server.service_token("job"));
    // A stream has no end that could be waited for: only those who may not listen try it here.
    let callers = [
        // A user, who reaches their own datasets.
        (&*user, "^/v1/(datasets|devices|identity)", "40"),
        // A back-end job, which reaches those of all owners.
        (&*job, "^/v1/(identity|owners/.*/(datasets|devices))", "40"),
        // Somebody who is not signed in.
        ("none", "^/v1/", "2"),
    ];
    for (token, paths, examples) in callers {
        let authorization = format!("Authorization: Bearer {token}");
        let what = ["run", &*document, "--header", &*authorization, "--include-path-regex", paths];
        let how = ["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", examples];
        // With its database it would begin with what once failed elsewhere.
        let same = ["--seed", "1", "--generation-database", "none", "--request-timeout", "20", "--no-color"];
        if let Err(told) = run("schemathesis", &[&what[..], &how, &same].concat(), &folder) {
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
