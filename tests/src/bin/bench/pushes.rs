//! Pushes per second, durable, beside batched transactions of rusqlite that write the same rows.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use reqwest::Client;
use rusqlite::{Connection, params};
use sync_core::model::{
    ChangeId, Compare, DatasetName, DeviceId, Group, PatchOp, Position, RecordKey, RecordPatch, SyncCount, Timestamp,
    Value,
};
use sync_core::protocol::{
    DatasetRequest, Format, GroupStatus, PROTOCOL_VERSION, Push, SyncRequest, SyncResponse, decode, encode,
};
use syncline_server::clock::{Draw, SystemRandom};
use syncline_server::store::sqlite::SqliteStore;
use tests::harness::{Folder, Server};

use crate::report::{Aim, Report, median};

const DEVICES: [usize; 3] = [1, 8, DEVICES_MAX];
pub(crate) const DEVICES_MAX: usize = 64;
pub(crate) const SIZES: [usize; 3] = [1, 10, 100];
pub(crate) const DURATION: Duration = Duration::from_millis(1_500);
pub(crate) const ROUNDS: usize = 3;
/// As long as the line of a dataset whose pushes are many: it has 64 tags, of small counts here.
pub(crate) const LINEAGE: [u8; 840] = [4; 840];
/// The share of the limit that we want of the most devices.
pub(crate) const SHARE: f64 = 0.5;

pub(crate) fn measure(report: &mut Report) {
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    let folder = Folder::new();
    let settings = folder.write("syncline.toml", "[rates]\nrequests_per_second = 0\n");
    let server = Server::start_configured(&folder.path("server"), &settings);
    let tokens = server.tokens((0..DEVICES_MAX).map(|number| format!("user{number}")));
    let sync = format!("{}/v1/sync", server.url());
    let client = Client::builder().no_gzip().no_zstd().build().expect("a client can be made");
    let mut number = 0;
    for shared in [false, true] {
        for devices in DEVICES {
            for size in SIZES {
                let to = if shared { "one dataset" } else { "a dataset each" };
                let name = format!("server: {devices} devices push {size} to {to}");
                if (shared && devices < DEVICES_MAX) || !report.wants(&name) {
                    continue;
                }
                let (mut ours, mut below, mut empty) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..ROUNDS {
                    number += 1;
                    below.push(raw(&folder.path(&format!("raw{number}.db")), devices, size, shared));
                    let load = Load { client: client.clone(), sync: sync.clone(), dataset: format!("d{number}"), size };
                    let load = Arc::new(load);
                    if devices == DEVICES_MAX {
                        empty.push(runtime.block_on(nothing(Arc::clone(&load), devices)));
                    }
                    let tokens = (0..devices).map(|device| tokens[if shared { 0 } else { device }].clone()).collect();
                    ours.push(runtime.block_on(pushes(load, tokens)));
                }
                let aim = (devices == DEVICES_MAX).then_some(Aim::ShareAtLeast(SHARE));
                let ours = median(ours);
                report.beside(name.clone(), "records/s", ours, median(below), aim);
                if devices == DEVICES_MAX {
                    let name = format!("{name}, beside an empty axum handler");
                    report.beside(name, "records/s", ours, median(empty), None);
                }
            }
        }
    }
}

/// What devices push, and where.
pub(crate) struct Load {
    pub(crate) client: Client,
    pub(crate) sync: String,
    pub(crate) dataset: String,
    pub(crate) size: usize,
}

/// Records per second that devices get acknowledged; each pushes again when it is answered.
pub(crate) async fn pushes(load: Arc<Load>, tokens: Vec<String>) -> f64 {
    let begun = Instant::now();
    let device = |(number, token)| device(Arc::clone(&load), number, token, begun);
    rate(tokens.into_iter().enumerate().map(device), begun).await
}

/// Records per second of devices that work at once, each of which says how many it pushed.
pub(crate) async fn rate<D: Future<Output = usize> + Send + 'static>(
    devices: impl Iterator<Item = D>,
    begun: Instant,
) -> f64 {
    let devices: Vec<_> = devices.map(tokio::spawn).collect();
    let mut records = 0;
    for device in devices {
        records += device.await.expect("a device found something");
    }
    records as f64 / begun.elapsed().as_secs_f64()
}

async fn device(load: Arc<Load>, number: usize, token: String, begun: Instant) -> usize {
    let mut random = Draw(&SystemRandom);
    let id = DeviceId::random(&mut random);
    let mut cursor = None;
    let mut records = 0;
    for sequence in 1.. {
        if begun.elapsed() > DURATION {
            break;
        }
        let answer = ask(&load, &token, push(&load, id, cursor, sequence, patches(number, sequence, load.size))).await;
        let dataset = &answer.datasets[0];
        let pushed = dataset.push.as_ref().unwrap_or_else(|| panic!("not pushed: {dataset:?}"));
        assert!(matches!(pushed.groups[0].status, GroupStatus::Applied | GroupStatus::Merged), "{:?}", pushed.groups);
        cursor = pushed.ack.or(cursor);
        records += load.size;
    }
    records
}

/// Sends a request, and waits for its answer.
pub(crate) async fn ask(load: &Load, token: &str, body: Vec<u8>) -> SyncResponse {
    let asked =
        load.client.post(&load.sync).bearer_auth(token).header("Content-Type", Format::MessagePack.media_type());
    let answer = asked.body(body).send().await.expect("the server answers");
    assert_eq!(answer.status(), 200);
    let answer = answer.bytes().await.expect("all of it arrives");
    decode(&answer, Format::MessagePack).expect("it is an answer")
}

/// A request that pushes patches in one group.
pub(crate) fn push(
    load: &Load,
    device: DeviceId,
    cursor: Option<Position>,
    sequence: u64,
    patches: Vec<RecordPatch>,
) -> Vec<u8> {
    let groups = vec![Group::new(ChangeId::random(&mut Draw(&SystemRandom)), patches)];
    request(load, device, cursor, Some(Push { device, sequence, groups }), Some(1))
}

/// A request that pulls what is behind a cursor.
pub(crate) fn pull(load: &Load, device: DeviceId, cursor: Option<Position>) -> Vec<u8> {
    request(load, device, cursor, None, None)
}

fn request(
    load: &Load,
    device: DeviceId,
    cursor: Option<Position>,
    push: Option<Push>,
    pull_limit: Option<u32>,
) -> Vec<u8> {
    let dataset = DatasetRequest {
        owner: None,
        name: DatasetName::parse(load.dataset.clone()).expect("a name"),
        cursor,
        snapshot: false,
        page: None,
        push,
        delete: false,
        pull_limit,
    };
    about(device, dataset)
}

/// A request about one dataset.
pub(crate) fn about(device: DeviceId, dataset: DatasetRequest) -> Vec<u8> {
    let request = SyncRequest {
        version: PROTOCOL_VERSION,
        device,
        app: None,
        limits_version: Some(0),
        list: false,
        datasets: vec![dataset],
    };
    encode(&request, Format::MessagePack)
}

/// Records per second that an axum handler takes which reads the same bodies and does nothing with them.
async fn nothing(load: Arc<Load>, devices: usize) -> f64 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}/v1/sync", listener.local_addr().expect("the port is known"));
    let router =
        axum::Router::new().route("/v1/sync", axum::routing::post(|_: axum::body::Bytes| async { [0_u8; 200] }));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let begun = Instant::now();
    let device = |number| {
        let (load, url) = (Arc::clone(&load), url.clone());
        async move {
            let mut pushes = 0;
            while begun.elapsed() < DURATION {
                let id = DeviceId::random(&mut Draw(&SystemRandom));
                let body = push(&load, id, None, pushes as u64, patches(number, pushes as u64, load.size));
                let answer = load.client.post(&url).body(body).send().await.expect("the handler answers");
                answer.bytes().await.expect("all of it arrives");
                pushes += 1;
            }
            pushes * load.size
        }
    };
    let taken = rate((0..devices).map(device), begun).await;
    serving.abort();
    taken
}

/// A record as it is pushed, and as a row has it.
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) bytes: Vec<u8>,
    pub(crate) json: String,
}

/// Records of a device.
pub(crate) const RECORDS: usize = 1_000;
/// Devices that have records.
const WRITERS: usize = 100;

/// The records of each device, made before anything is measured.
static ROWS: LazyLock<Vec<Vec<Row>>> = LazyLock::new(|| {
    let row = |device: usize, number: usize| {
        let json = format!("{{\"title\":\"Record {number}\",\"n\":{number},\"done\":false}}");
        let value = Value::parse_json(&json).expect("a value");
        Row { key: format!("{device}/{number}"), bytes: value.to_bytes(), json: value.to_json(), value }
    };
    (0..WRITERS).map(|device| (0..RECORDS).map(|number| row(device, number)).collect()).collect()
});

/// Each push writes other records, of those that the device has.
pub(crate) fn rows(device: usize, sequence: u64, size: usize) -> impl Iterator<Item = &'static Row> {
    (0..size).map(move |at| &ROWS[device][(sequence as usize * size + at) % RECORDS])
}

pub(crate) fn patches(device: usize, sequence: u64, size: usize) -> Vec<RecordPatch> {
    let patch = |row: &Row| RecordPatch {
        key: RecordKey::parse(row.key.clone()).expect("a key"),
        op: PatchOp::Replace(row.value.clone(), Compare::Nothing),
        base: SyncCount::ZERO,
        device_time: Timestamp(1),
    };
    rows(device, sequence, size).map(patch).collect()
}

/// Records per second of transactions that each hold a savepoint for each device, into the server's own tables.
fn raw(file: &Path, devices: usize, size: usize, shared: bool) -> f64 {
    drop(SqliteStore::open(file).expect("the file can be made"));
    let connection = Connection::open(file).expect("it opens");
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -65536;")
        .expect("the settings are taken");
    let run = |sql: &str| connection.prepare_cached(sql).and_then(|mut it| it.execute([])).map(drop).expect("it runs");
    for dataset in 0..=devices {
        let insert =
            "INSERT INTO dataset (id, owner, name, sync_count, floor, is_live, records, bytes, digest, modified_at,
            next_change, lineage) VALUES (?1, ?2, 'd', 0, 0, 1, 0, 0, x'00', 0, 0, x'00')";
        connection.execute(insert, params![dataset as i64 + 1, format!("local:{dataset}")]).expect("it is inserted");
    }
    LazyLock::force(&ROWS);
    let begun = Instant::now();
    let (mut records, mut sequence) = (0, 0_i64);
    let answer = [7_u8; 120];
    while begun.elapsed() < DURATION {
        sequence += 1;
        run("BEGIN IMMEDIATE");
        for device in 0..devices {
            let dataset = if shared { 1 } else { device as i64 + 1 };
            let count = if shared { sequence * 64 + device as i64 } else { sequence };
            run("SAVEPOINT one");
            let update =
                "UPDATE dataset SET epoch = ?2, sync_count = ?3, tag = ?4, records = ?5, bytes = ?6, digest = ?7,
                modified_at = ?8, modified_by = ?2, next_change = next_change + 1, lineage = ?9 WHERE id = ?1";
            let head = params![dataset, [1_u8; 16], count, [2_u8; 8], 1_000, 50_000, [3_u8; 16], 1_i64 << 40, LINEAGE];
            connection.prepare_cached(update).and_then(|mut it| it.execute(head)).expect("it is written");
            let upsert = "INSERT INTO record (dataset, key, sync_count, modified_by, modified_at, device_time, value)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (dataset, key) DO UPDATE SET sync_count = ?3, removal = NULL,
                modified_by = ?4, modified_at = ?5, device_time = ?6, value = ?7";
            let mut upsert = connection.prepare_cached(upsert).expect("it is a statement");
            for Row { key, bytes, .. } in rows(device, sequence as u64, size) {
                let row = params![dataset, key, count, [1_u8; 16], 1_i64 << 40, 1, bytes];
                upsert.execute(row).expect("it is written");
            }
            drop(upsert);
            let mut id = [device as u8; 16];
            id[8..].copy_from_slice(&sequence.to_be_bytes());
            let push = "INSERT INTO push (dataset, device, sequence, hash, answer) VALUES (?1, ?2, ?3, ?4, ?5)";
            let row = params![dataset, [device as u8; 16], sequence, [5_u8; 32], answer];
            connection.prepare_cached(push).and_then(|mut it| it.execute(row)).expect("it is written");
            let forget = "DELETE FROM push WHERE dataset = ?1 AND device = ?2 AND sequence <= ?3";
            let row = params![dataset, [device as u8; 16], sequence - 64];
            connection.prepare_cached(forget).and_then(|mut it| it.execute(row)).expect("it is written");
            let change = "INSERT INTO change (dataset, number, change_id, sync_count) VALUES (?1, ?2, ?3, ?4)";
            let row = params![dataset, count, id, count];
            connection.prepare_cached(change).and_then(|mut it| it.execute(row)).expect("it is written");
            let forget = "DELETE FROM change WHERE dataset = ?1 AND number < ?2";
            connection
                .prepare_cached(forget)
                .and_then(|mut it| it.execute(params![dataset, count - 16_384]))
                .expect("it is written");
            run("RELEASE one");
            records += size;
        }
        run("COMMIT");
    }
    records as f64 / begun.elapsed().as_secs_f64()
}
