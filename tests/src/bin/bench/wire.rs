//! Bytes on the wire, counted by a proxy: bodies as they travel, compressed.

use flate2::Compression;
use flate2::write::GzEncoder;
use tests::harness::{Device, Fault, Folder, Proxy, Server, movies};

use crate::data::{edits, generated, put_lines};
use crate::report::{Aim, Report};

pub(crate) fn measure(report: &mut Report) {
    let folder = Folder::new();
    let server = Server::start(&folder.path("server"));
    let token = server.token("ada");
    let proxy = Proxy::start(server.url(), |_| Fault::Pass);
    let device = |name: &str| Device::new(&folder, name).at(&proxy.url()).with_token(&token);
    let writer = device("writer");

    let records = generated();
    records.chunks(1_000).map(put_lines).for_each(|lines| drop(writer.ok_with_input(&["apply", "items", "-"], &lines)));
    let films: Vec<serde_json::Value> = serde_json::from_str(&movies()).expect("it is JSON");
    let films: Vec<_> = films.into_iter().enumerate().map(|(at, film)| (format!("{at:05}"), film)).collect();
    films.chunks(1_000).map(put_lines).for_each(|lines| drop(writer.ok_with_input(&["apply", "films", "-"], &lines)));
    writer.sync();

    for (dataset, what, records, zstd, gzip) in
        [("items", "the generated set", &records, 690.0, 730.0), ("films", "movies.json", &films, 128.0, 128.0)]
    {
        let rows = gzipped_rows(records) as f64 / 1e3;
        for (encoding, most) in [("zstd", zstd), ("gzip", gzip)] {
            let reader = device(&format!("{dataset}-{encoding}"));
            proxy.accept_only(Some(encoding));
            let before = proxy.bytes();
            reader.ok(&["sync", dataset]);
            let kilobytes = (proxy.bytes().answers - before.answers) as f64 / 1e3;
            let name = format!("first pull of {what}, {encoding}, beside its rows as JSON with gzip");
            report.beside(name, "KB", kilobytes, rows, Aim::AtMost(most));
        }
    }
    proxy.accept_only(None);

    let reader = device("items-zstd");
    let edits = edits(&records);
    writer.ok_with_input(&["apply", "items", "-"], &put_lines(&edits));
    let before = proxy.bytes();
    writer.ok(&["sync", "items"]);
    let pushed = (proxy.bytes().requests - before.requests) as f64 / 1e3;
    report.figure("push of 1,000 edits of a number, one transaction", "KB", pushed, Some(Aim::AtMost(7.0)));
    let before = proxy.bytes();
    reader.ok(&["sync", "items"]);
    let pulled = (proxy.bytes().answers - before.answers) as f64 / 1e3;
    report.figure("pull of them by another device", "KB", pulled, None);
    // What it would be if only changed fields travelled: a pull of records that have nothing else.
    let fields: Vec<_> =
        edits.iter().map(|(key, value)| (key.clone(), serde_json::json!({ "n": value["n"] }))).collect();
    writer.ok_with_input(&["apply", "fields", "-"], &put_lines(&fields));
    writer.sync();
    let before = proxy.bytes();
    reader.ok(&["sync", "fields"]);
    let pulled = (proxy.bytes().answers - before.answers) as f64 / 1e3;
    report.figure("pull of them, if only the changed field travelled", "KB", pulled, None);

    // Of one length, as ids are.
    let many: Vec<_> = (0..100).map(|number| format!("many{number:02}")).collect();
    for name in &many {
        writer.ok(&["put", name, "a", "1"]);
    }
    writer.sync();
    for (names, most) in [(&many[..1], 200.0), (&many[..], 3_000.0)] {
        let before = proxy.bytes();
        let names: Vec<_> = std::iter::once("sync").chain(names.iter().map(String::as_str)).collect();
        writer.ok(&names);
        let after = proxy.bytes();
        let bytes = (after.requests - before.requests + after.answers - before.answers) as f64;
        report.figure(format!("in-sync check, datasets: {}", names.len() - 1), "bytes", bytes, Some(Aim::AtMost(most)));
    }
}

/// Bytes of the records, keys too, as a list of JSON that gzip compresses.
fn gzipped_rows(records: &[(String, serde_json::Value)]) -> usize {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    serde_json::to_writer(&mut gzip, records).expect("it is JSON");
    gzip.finish().expect("memory takes all").len()
}
