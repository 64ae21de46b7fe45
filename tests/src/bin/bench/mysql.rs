//! Pushes per second over MariaDB, durable, beside batched inserts of the same rows on as many connections.

use std::sync::Arc;
use std::time::Instant;

use sqlx::mysql::{MySqlConnection, MySqlPool, MySqlPoolOptions};
use sqlx::{Executor as _, MySql, QueryBuilder};
use syncline_server::store::mysql::MysqlStore;
use tests::harness::{Folder, MariaDb, Server, migrate};
use tokio::runtime::Runtime;

use crate::pushes::{DEVICES_MAX, DURATION, LINEAGE, Load, ROUNDS, Row, SHARE, SIZES, pushes, rows};
use crate::report::{Aim, Report, median};

/// Connections that write at once, as the server has.
const CONNECTIONS: usize = 2;

pub(crate) fn measure(report: &mut Report) {
    let runtime = Runtime::new().expect("threads start");
    let folder = Folder::new();
    let database = MariaDb::start();
    let url = database.database();
    let settings =
        folder.write("syncline.toml", &format!("[rates]\nrequests_per_second = 0\n[store]\nurl = \"{url}\"\n"));
    migrate(&settings);
    let server = Server::start_configured(&folder.path("server"), &settings);
    let tokens = server.tokens((0..DEVICES_MAX).map(|number| format!("user{number}")));
    let client = reqwest::Client::builder().no_gzip().no_zstd().build().expect("a client can be made");
    let sync = format!("{}/v1/sync", server.url());
    let mut number = 0;
    for shared in [false, true] {
        for devices in [1, DEVICES_MAX] {
            for size in SIZES {
                let to = if shared { "one dataset" } else { "a dataset each" };
                let name = format!("server over MariaDB: {devices} devices push {size} to {to}");
                if (shared && devices < DEVICES_MAX) || !report.wants(&name) {
                    continue;
                }
                let (mut ours, mut below) = (Vec::new(), Vec::new());
                for _ in 0..ROUNDS {
                    number += 1;
                    below.push(runtime.block_on(raw(&database.database(), devices, size, shared)));
                    let load = Load { client: client.clone(), sync: sync.clone(), dataset: format!("d{number}"), size };
                    let tokens = (0..devices).map(|device| tokens[if shared { 0 } else { device }].clone()).collect();
                    ours.push(runtime.block_on(pushes(Arc::new(load), tokens)));
                }
                let aim = (devices == DEVICES_MAX).then_some(Aim::ShareAtLeast(SHARE));
                report.beside(name, "records/s", median(ours), median(below), aim);
            }
        }
    }
}

/// Records per second of transactions that hold the rows of a push of each device, into the server's own tables.
async fn raw(url: &str, devices: usize, size: usize, shared: bool) -> f64 {
    MysqlStore::migrate(url).await.expect("it has tables");
    let pool = MySqlPoolOptions::new().max_connections(CONNECTIONS as u32).connect(url).await.expect("it connects");
    for dataset in 1..=devices as i64 {
        let insert =
            "INSERT INTO syncline_dataset (id, owner, name, sync_count, floor, is_live, records, bytes, digest,
            modified_at, next_change, lineage) VALUES (?, ?, 'd', 0, 0, TRUE, 0, 0, REPEAT('0', 16), 0, 0, '')";
        let query = sqlx::query(insert).bind(dataset).bind(format!("local:{dataset}").into_bytes());
        query.execute(&pool).await.expect("it is inserted");
    }
    // Whoever writes to one dataset has its lock, so more connections would wait for it.
    let connections = if shared { 1 } else { CONNECTIONS.min(devices) };
    let begun = Instant::now();
    let lane = |lane: usize| {
        let pool = pool.clone();
        let devices: Vec<usize> = (0..devices).filter(|device| device % connections == lane).collect();
        tokio::spawn(async move { write(&pool, &devices, size, shared, begun).await })
    };
    let lanes: Vec<_> = (0..connections).map(lane).collect();
    let mut records = 0;
    for lane in lanes {
        records += lane.await.expect("it writes");
    }
    let rate = records as f64 / begun.elapsed().as_secs_f64();
    pool.close().await;
    rate
}

async fn write(pool: &MySqlPool, devices: &[usize], size: usize, shared: bool, begun: Instant) -> usize {
    let mut connection = pool.acquire().await.expect("it connects");
    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.expect("it is set");
    let (mut records, mut sequence) = (0, 0_i64);
    while begun.elapsed() < DURATION {
        sequence += 1;
        connection.execute("START TRANSACTION").await.expect("it begins");
        transaction(&mut connection, devices, size, shared, sequence).await.expect("it is written");
        connection.execute("COMMIT").await.expect("it is durable");
        records += devices.len() * size;
    }
    records
}

async fn transaction(
    connection: &mut MySqlConnection,
    devices: &[usize],
    size: usize,
    shared: bool,
    sequence: i64,
) -> Result<(), sqlx::Error> {
    let dataset = |device: usize| if shared { 1 } else { device as i64 + 1 };
    let count = |device: usize| if shared { sequence * 64 + device as i64 } else { sequence };
    let heads = if shared { &devices[..1] } else { devices };
    let mut query = QueryBuilder::<MySql>::new(
        "INSERT INTO syncline_dataset (id, owner, name, epoch, sync_count, tag, floor, is_live, records, bytes, digest,
            modified_at, modified_by, next_change, lineage) ",
    );
    query.push_values(heads, |mut row, device| {
        row.push_bind(dataset(*device)).push_bind(format!("local:{}", dataset(*device)).into_bytes()).push("'d'");
        row.push_bind(vec![1_u8; 16]).push_bind(count(*device)).push_bind(vec![2_u8; 8]).push("0, TRUE, 1000, 50000");
        row.push_bind(vec![3_u8; 16]).push_bind(1_i64 << 40).push_bind(vec![1_u8; 16]);
        row.push_bind(count(*device)).push_bind(LINEAGE.as_slice());
    });
    query.push(
        " ON DUPLICATE KEY UPDATE epoch = VALUES(epoch), sync_count = VALUES(sync_count), tag = VALUES(tag),
            modified_at = VALUES(modified_at), next_change = VALUES(next_change), lineage = VALUES(lineage)",
    );
    query.build().execute(&mut *connection).await?;

    let records: Vec<_> =
        devices.iter().flat_map(|device| rows(*device, sequence as u64, size).map(move |row| (*device, row))).collect();
    for records in records.chunks(256) {
        let mut query = QueryBuilder::<MySql>::new(
            "INSERT INTO syncline_record (dataset, `key`, sync_count, modified_by, modified_at, device_time, bytes, value) ",
        );
        query.push_values(records, |mut row, (device, Row { key, bytes, json, .. })| {
            row.push_bind(dataset(*device)).push_bind(key.as_bytes()).push_bind(count(*device));
            row.push_bind(vec![1_u8; 16]).push_bind(1_i64 << 40).push_bind(1_i64);
            row.push_bind(bytes.as_slice()).push_bind(json.as_str());
        });
        query.push(
            " ON DUPLICATE KEY UPDATE sync_count = VALUES(sync_count), removal = NULL, modified_by = VALUES(modified_by),
                modified_at = VALUES(modified_at), device_time = VALUES(device_time), bytes = VALUES(bytes),
                value = VALUES(value)",
        );
        query.build().execute(&mut *connection).await?;
    }

    let mut query = QueryBuilder::<MySql>::new("INSERT INTO syncline_push (dataset, device, sequence, hash, answer) ");
    query.push_values(devices, |mut row, device| {
        row.push_bind(dataset(*device)).push_bind(vec![*device as u8; 16]).push_bind(sequence);
        row.push_bind(vec![5_u8; 32]).push_bind(vec![7_u8; 120]);
    });
    query.build().execute(&mut *connection).await?;

    let mut query = QueryBuilder::<MySql>::new("INSERT INTO syncline_change (dataset, number, change_id, sync_count) ");
    query.push_values(devices, |mut row, device| {
        let mut id = [*device as u8; 16];
        id[8..].copy_from_slice(&sequence.to_be_bytes());
        row.push_bind(dataset(*device)).push_bind(count(*device)).push_bind(id.to_vec()).push_bind(count(*device));
    });
    query.build().execute(&mut *connection).await?;
    Ok(())
}
