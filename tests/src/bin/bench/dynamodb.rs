//! DynamoDB, on an emulator: pushes per second beside transactions of as many items, and the units that pushes and pulls
//! are charged with, which are the same as those of the service.

use std::sync::Arc;
use std::time::Instant;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use sync_core::model::{DeviceId, Position};
use sync_core::protocol::SyncResponse;
use syncline_server::clock::{Draw, SystemRandom};
use tests::harness::{DynamoDb, Folder, Server, migrate};
use tokio::runtime::Runtime;

use crate::pushes::{
    DEVICES_MAX, DURATION, Load, RECORDS, ROUNDS, SHARE, ask, patches, pull, push, pushes, rate, rows,
};
use crate::report::{Aim, Report, median};

/// Records of a push. A transaction has 100 items at most, some of which are not records.
const SIZES: [usize; 3] = [1, 10, 90];
/// Records of the datasets in which units are counted.
const DATASETS: [usize; 2] = [100, 100_000];
/// What a push and a pull of one record may be charged with.
const WRITE_UNITS_MAX: f64 = 8.0;
const READ_UNITS_MAX: f64 = 2.0;

pub(crate) fn measure(report: &mut Report) {
    let runtime = Runtime::new().expect("threads start");
    let folder = Folder::new();
    let emulator = DynamoDb::start();
    let settings = format!(
        "[rates]\nrequests_per_second = 0\n[server]\nmetrics_listen = \"127.0.0.1:0\"\n[store]\nurl = \"{}\"\n",
        emulator.address()
    );
    let settings = folder.write("syncline.toml", &settings);
    migrate(&settings);
    let server = Server::start_configured(&folder.path("server"), &settings);
    let tokens = server.tokens((0..DEVICES_MAX).map(|number| format!("user{number}")));
    let client = reqwest::Client::builder().no_gzip().no_zstd().build().expect("a client can be made");
    let load = |dataset: String, size| Load {
        client: client.clone(),
        sync: format!("{}/v1/sync", server.url()),
        dataset,
        size,
    };
    let mut number = 0;
    for devices in [1, DEVICES_MAX] {
        for size in SIZES {
            let name = format!("server over DynamoDB (emulator): {devices} devices push {size} to a dataset each");
            if !report.wants(&name) {
                continue;
            }
            let (mut ours, mut below) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                number += 1;
                let raw = DynamoDb::client(&emulator.url());
                below.push(runtime.block_on(transactions(raw, emulator.table(), number, devices, size)));
                let load = Arc::new(load(format!("d{number}"), size));
                ours.push(runtime.block_on(pushes(load, tokens[..devices].to_vec())));
            }
            let aim = (devices == DEVICES_MAX).then_some(Aim::ShareAtLeast(SHARE));
            report.beside(name, "records/s", median(ours), median(below), aim);
        }
    }
    let log = server.log();
    let metrics = log.split("metrics at ").nth(1).and_then(|rest| rest.split("/metrics").next());
    let metrics = format!("{}/metrics", metrics.expect("the log says where they are"));
    for records in DATASETS {
        let name = format!("units over DynamoDB, {records} records");
        if report.wants(&name) {
            runtime.block_on(units(report, &name, &load(format!("u{records}"), 0), &tokens[0], &metrics, records));
        }
    }
}

/// Records per second of transactions that write a head, a push, a change id and records, each with a condition on the
/// head as a store would need it.
async fn transactions(client: Client, table: &'static str, round: usize, devices: usize, size: usize) -> f64 {
    let begun = Instant::now();
    let device = |device: usize| {
        let client = client.clone();
        async move {
            let mut transactions = 0;
            while begun.elapsed() < DURATION {
                let items = items(table, round, device, transactions, size);
                client.transact_write_items().set_transact_items(Some(items)).send().await.expect("it is written");
                transactions += 1;
            }
            transactions * size
        }
    };
    rate((0..devices).map(device), begun).await
}

fn items(table: &str, round: usize, device: usize, sequence: usize, size: usize) -> Vec<TransactWriteItem> {
    let text = |text: String| AttributeValue::S(text);
    let bytes = |bytes: Vec<u8>| AttributeValue::B(Blob::new(bytes));
    let home = format!("raw{round}|{device}");
    let put = |pk: String, sk: String| Put::builder().table_name(table).item("pk", text(pk)).item("sk", text(sk));
    let head = put(home.clone(), "D|".to_owned()).item("h", bytes(vec![1; 300])).item("w", bytes(vec![2; 8]));
    let head = head.condition_expression("attribute_not_exists(pk) OR attribute_exists(w)");
    let push = put(format!("{home}|m"), format!("P|{sequence:020}")).item("a", bytes(vec![3; 160]));
    let change = put(format!("{home}|m"), format!("C|{sequence:020}")).item("n", bytes(vec![4; 8]));
    let records = rows(device, sequence as u64, size).map(|row| {
        put(format!("{home}|r0"), row.key.clone())
            .item("ix", text(format!("{sequence:020}|{}", row.key)))
            .item("v", bytes(row.bytes.clone()))
            .item("m", bytes(vec![5; 34]))
    });
    [head, push, change]
        .into_iter()
        .chain(records)
        .map(|put| TransactWriteItem::builder().put(put.build().expect("it has a table")).build())
        .collect()
}

/// Units of single pushes, and of pulls of what they wrote, to and from a dataset of so many records.
async fn units(report: &mut Report, name: &str, load: &Load, token: &str, metrics: &str, records: usize) {
    let id = DeviceId::random(&mut Draw(&SystemRandom));
    let mut sequence = 0;
    let mut cursor: Option<Position> = None;
    let mut push_of = async |patches, cursor: &mut Option<Position>| {
        sequence += 1;
        let answer: SyncResponse = ask(load, token, push(load, id, *cursor, sequence, patches)).await;
        *cursor = answer.datasets[0].push.as_ref().and_then(|push| push.ack).or(*cursor);
    };
    for device in 0..records.div_ceil(RECORDS) {
        push_of(patches(device, 0, records.min(RECORDS)), &mut cursor).await;
    }
    // What the large push before left to do is done by the next one.
    push_of(patches(0, 1, 1), &mut cursor).await;
    for size in SIZES {
        let before = cursor;
        let start = counted(load, metrics).await;
        push_of(patches(0, 2, size), &mut cursor).await;
        let pushed = counted(load, metrics).await;
        let pulled: SyncResponse = ask(load, token, pull(load, id, before)).await;
        assert!(pulled.datasets[0].page.is_some(), "nothing was pulled: {pulled:?}");
        let after = counted(load, metrics).await;
        let aim = |most| (size == 1).then_some(Aim::AtMost(most));
        let name = format!("{name}: push of {size}");
        report.figure(format!("{name}, written"), "units", pushed.1 - start.1, aim(WRITE_UNITS_MAX));
        report.figure(format!("{name}, read"), "units", pushed.0 - start.0, None);
        report.figure(format!("{name}, then pulled"), "units", after.0 - pushed.0, aim(READ_UNITS_MAX));
    }
}

/// Units of reading and writing that the server has used so far.
async fn counted(load: &Load, metrics: &str) -> (f64, f64) {
    let answer = load.client.get(metrics).send().await.expect("the server tells");
    let text = answer.text().await.expect("all of it arrives");
    let sum = |kind: &str| {
        let name = format!("syncline_store_{kind}_units_total");
        let lines = text.lines().filter(|line| line.starts_with(&name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    (sum("read"), sum("write"))
}
