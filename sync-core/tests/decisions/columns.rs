//! Pages and pushes by column: what is written is read again, in few bytes, and a block that lies is refused.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use sync_core::model::{Record, RecordKey, RecordState, SyncCount, Timestamp, Value, limits};
use sync_core::protocol::{Format, InvalidMessage, Page, decode, encode};

use crate::arbitrary::{config, mutate};

/// Makes the value of a field from a number.
type Field = fn(u64) -> Value;

/// Fields that are alike in all rows, as those of apps are.
const FIELDS: [Field; 12] = [
    |seed| Value::Int(seed as i64),
    |seed| Value::Int(1_700_000_000_000 + (seed % 1_000) as i64),
    |seed| Value::from_f64((seed % 10_000) as f64 / 100.0).unwrap(),
    |seed| Value::from_f64(1.0 / (1 + seed % 7) as f64).unwrap(),
    |seed| Value::Text(["red", "green", "blue"][(seed % 3) as usize].to_owned()),
    |seed| Value::Text(format!("{seed:032x}")),
    |seed| Value::Text(uuid(seed)),
    |seed| Value::Text(format!("number {seed}")),
    |seed| Value::Bool(seed.is_multiple_of(2)),
    |seed| Value::List(vec![Value::Int((seed % 5) as i64); (seed % 4) as usize]),
    |seed| Value::Map(BTreeMap::from([(format!("id{seed}"), Value::Null)])),
    |seed| if seed.is_multiple_of(2) { Value::Null } else { Value::Bytes(seed.to_be_bytes().to_vec()) },
];

fn uuid(seed: u64) -> String {
    format!("{:08x}-{:04x}-8000-8000-{:012x}", seed >> 32, seed & 0xffff, seed >> 16)
}

/// Pages of records that are alike; some lack a field, some are something else altogether.
fn pages() -> impl Strategy<Value = Page> {
    let fields = vec(prop::sample::select(FIELDS.to_vec()), 0..6);
    (fields, vec(any::<u64>(), 0..120), any::<bool>()).prop_map(|(fields, seeds, uuids)| {
        let value = |seed: u64| {
            if seed.is_multiple_of(23) {
                return Value::Int(1);
            }
            let there = fields.iter().enumerate().filter(|(at, _)| seed >> at & 3 > 0);
            Value::Map(there.map(|(at, make)| (format!("field {at}"), make(seed))).collect())
        };
        let record = |(at, seed): (usize, u64)| Record {
            key: RecordKey::parse(if uuids { uuid(seed) } else { format!("item/{at:05}") }).unwrap(),
            state: RecordState::Value(value(seed)),
            sync_count: SyncCount(at as u64 / 10),
            modified_by: None,
            modified_at: Timestamp(1_700_000_000_000 + at as i64),
            device_time: Timestamp(1_700_000_000_000),
        };
        page(seeds.into_iter().enumerate().map(record).collect())
    })
}

fn page(records: Vec<Record>) -> Page {
    let floor = SyncCount::ZERO;
    Page { total: 0, records, position: None, next: None, line: None, tags: Vec::new(), floor, digest: None }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn records_that_are_alike_are_read_as_written(page in pages()) {
        let bytes = encode(&page, Format::MessagePack);
        prop_assert_eq!(&decode::<Page>(&bytes, Format::MessagePack).unwrap(), &page);
        prop_assert_eq!(encode(&page, Format::MessagePack), bytes);
    }

    #[test]
    fn no_changed_block_breaks_the_reader(
        page in pages(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..6),
    ) {
        let changed = mutate(encode(&page, Format::MessagePack), changes);
        drop(decode::<Page>(&changed, Format::MessagePack).map(|page| encode(&page, Format::MessagePack)));
    }
}

/// A page whose records are this block.
fn with_block(block: &[u8]) -> Vec<u8> {
    let mut message = vec![0x81, 0xa7];
    message.extend(b"records");
    message.extend([0xc7, block.len() as u8, 0x43]);
    message.extend(block);
    message
}

#[track_caller]
fn check_refused(block: &[u8], error: &str) {
    let refused = decode::<Page>(&with_block(block), Format::MessagePack).unwrap_err();
    assert!(refused.to_string().contains(error), "{block:?}: {refused}");
}

/// Version, values, bytes; one record `a` without a device: its key, its state, its value, and five integers.
const NULL_AT_A: [u8; 18] = [1, 2, 1, 1, 0, 0, 1, b'a', 0x10, 0x10, 0, 6, 0, 0, 0, 2, 0, 2];

#[test]
fn a_block_is_what_the_page_on_the_format_says() {
    let one: Page = decode(&with_block(&NULL_AT_A), Format::MessagePack).unwrap();
    let record = &one.records[0];
    assert_eq!((record.key.as_str(), record.value(), record.sync_count), ("a", Some(&Value::Null), SyncCount(3)));
    assert_eq!((record.modified_at, record.device_time), (Timestamp(1), Timestamp(1)));
    assert_eq!(encode(&one, Format::MessagePack), with_block(&NULL_AT_A));
}

#[test]
fn a_block_that_lies_about_itself_is_refused() {
    let whole = &NULL_AT_A[..];
    let with = |at: usize, byte: u8| {
        let mut block = whole.to_vec();
        block[at] = byte;
        block
    };
    check_refused(&[], "ends too early");
    check_refused(&with(0, 2), "is of version 2");
    check_refused(&with(1, 1), "more values than it says");
    check_refused(&with(1, 3), "something left over");
    check_refused(&with(2, 0), "more bytes than it says");
    check_refused(&with(2, 2), "something left over");
    check_refused(&with(3, 0), "something left over");
    check_refused(&with(4, 9), "a way of writing that is not known");
    check_refused(&with(5, 1), "a key that shares more than there is");
    check_refused(&with(7, 0xff), "a text that is not UTF-8");
    check_refused(&with(8, 0x20), "a run of kinds that cannot be");
    check_refused(&with(9, 0x1a), "a run of kinds that cannot be");
    check_refused(&[whole, &[0]].concat(), "something left over");
    check_refused(&whole[..17], "ends too early");
    check_refused(&[1, 0x82, 0], "a number that is not written as it must be");
}

#[test]
fn what_would_unfold_to_more_than_memory_is_set_aside_for_is_refused_before_it_is_read() {
    let refused = |block: &[u8]| decode::<Page>(&with_block(block), Format::MessagePack).unwrap_err();
    let mut many = vec![1];
    leb128(&mut many, limits::MESSAGE_VALUES_MAX);
    many.push(0);
    assert_eq!(refused(&many), InvalidMessage::TooManyValues);
    let mut large = vec![1, 0];
    leb128(&mut large, limits::MESSAGE_BYTES_MAX + 1);
    assert_eq!(refused(&large), InvalidMessage::TooLarge);
    let mut endless = vec![1, 1, 1];
    leb128(&mut endless, usize::MAX);
    check_refused(&endless, "more values than it says");
}

fn leb128(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
