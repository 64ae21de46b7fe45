//! A first pull into a device's file over HTTP, beside an insert of the same rows into the same table.

use std::time::Instant;

use rusqlite::{Connection, params};
use tests::harness::{Device, Folder, Server};

use crate::data::{RECORDS, generated, put_lines};
use crate::report::{Aim, Report, median};

const ROUNDS: usize = 5;

/// Key, count, value, device, and both times of a record.
type Row = (Vec<u8>, i64, Vec<u8>, Option<Vec<u8>>, i64, i64);

pub(crate) fn measure(report: &mut Report) {
    let folder = Folder::new();
    let server = Server::start(&folder.path("server"));
    let token = server.token("ada");
    let device = |name: &str| Device::new(&folder, name).at(server.url()).with_token(&token);
    let source = device("source");
    for lines in generated().chunks(1_000).map(put_lines) {
        source.ok_with_input(&["apply", "items", "-"], &lines);
    }
    source.sync();
    let (mut ours, mut below) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        below.push(raw(&source, &folder, round));
        let reader = device(&format!("reader{round}"));
        // What a process costs that asks and finds nothing new is not the pull's.
        reader.ok(&["sync", "nothing"]);
        let begun = Instant::now();
        reader.ok(&["sync", "nothing"]);
        let idle = begun.elapsed();
        let begun = Instant::now();
        reader.ok(&["sync", "items"]);
        ours.push((begun.elapsed().saturating_sub(idle)).as_secs_f64() * 1e3);
    }
    let name = format!("first pull of {RECORDS} records");
    report.beside(name, "ms", median(ours), median(below), Aim::TimesAtMost(5.0));
}

/// Milliseconds of an insert of all rows that the source holds, in one transaction, into an empty file of a device. It
/// is closed as a device's process closes it: the log goes into the database.
fn raw(source: &Device, folder: &Folder, round: usize) -> f64 {
    let name = format!("raw{round}");
    let empty = Device::new(folder, &name);
    empty.ok(&["status"]);
    let mut connection = Connection::open(folder.path(&format!("{name}.db"))).expect("it opens");
    connection.execute_batch("PRAGMA synchronous = FULL").expect("the setting is taken");
    let attach = "ATTACH ?1 AS source";
    connection.execute(attach, [source.file().to_str().expect("a path in UTF-8")]).expect("it is attached");
    let mut select = connection
        .prepare("SELECT key, count, value, modified_by, modified_at, device_time FROM source.base")
        .expect("it is a statement");
    let found = select.query_map([], |row| row.try_into()).expect("it is read");
    let rows: Vec<Row> = found.map(|row| row.expect("it is a row")).collect();
    drop(select);
    assert_eq!(rows.len(), RECORDS);
    let begun = Instant::now();
    let transaction = connection.transaction().expect("it begins");
    let insert = "INSERT INTO main.base (replica_id, key, count, value, modified_by, modified_at, device_time)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut insert = transaction.prepare(insert).expect("it is a statement");
    for (key, count, value, by, at, time) in &rows {
        insert.execute(params![1, key, count, value, by, at, time]).expect("it is inserted");
    }
    drop(insert);
    transaction.commit().expect("it is durable");
    connection.close().expect("it closes");
    begun.elapsed().as_secs_f64() * 1e3
}
