//! The records of a page.

use crate::model::{DeviceId, Record, RecordState, RemovalReason, SyncCount, Timestamp, Value};
use crate::protocol::columns::reader::Reader;
use crate::protocol::columns::writer::Writer;
use crate::protocol::columns::{Columns, InvalidBlock, values};

const VALUE: u8 = 0;
const REMOVED: u8 = 1;
const LEFT: u8 = 2;
const UNKNOWN: u8 = 3;
/// Later versions may know more reasons.
const STATES: u8 = 16;

const fn state(record: &Record) -> u8 {
    match &record.state {
        RecordState::Value(_) => VALUE,
        RecordState::Removed(RemovalReason::Removed) => REMOVED,
        RecordState::Removed(RemovalReason::Left) => LEFT,
        RecordState::Removed(RemovalReason::Unknown) => UNKNOWN,
    }
}

impl Columns for Record {
    fn write(rows: &[Self], to: &mut Writer) {
        to.count_values(rows.len());
        to.length(rows.len());
        to.keys(rows.iter().map(|record| record.key.as_str()));
        to.kinds(rows.iter().map(state));
        values::write(&rows.iter().filter_map(Self::value).collect::<Vec<_>>(), to);
        to.integers(&rows.iter().map(|record| record.sync_count.0 as i64).collect::<Vec<_>>());
        // Nobody is written as no bytes.
        to.texts(rows.iter().map(|record| record.modified_by.as_ref().map_or(&[][..], |device| device.as_bytes())));
        to.integers(&rows.iter().map(|record| record.modified_at.0).collect::<Vec<_>>());
        to.integers(&rows.iter().map(|record| record.device_time.0).collect::<Vec<_>>());
    }

    fn read(from: &mut Reader<'_>) -> Result<Vec<Self>, InvalidBlock> {
        let count = from.length()?;
        from.take_values(count)?;
        let keys = from.keys(count)?;
        let states = from.kinds(count, STATES)?;
        let live = states.iter().filter(|state| **state == VALUE).count();
        let mut values = values::read(live, Value::DEPTH_MAX, from)?.into_iter();
        let counts = from.integers(count)?;
        let by = from.texts(count)?;
        let modified_at = from.integers(count)?;
        let device_time = from.integers(count)?;
        let mut records = Vec::with_capacity(count);
        for (at, key) in keys.into_iter().enumerate() {
            let state = match states[at] {
                VALUE => RecordState::Value(values.next().ok_or(InvalidBlock::Short)?),
                REMOVED => RecordState::Removed(RemovalReason::Removed),
                LEFT => RecordState::Removed(RemovalReason::Left),
                _ => RecordState::Removed(RemovalReason::Unknown),
            };
            let modified_by = match &*by[at] {
                [] => None,
                id => Some(DeviceId::parse_bytes(id).map_err(|_| InvalidBlock::Wrong("an id of another length"))?),
            };
            let negative = |_| InvalidBlock::Wrong("a negative count");
            let sync_count = SyncCount(u64::try_from(counts[at]).map_err(negative)?);
            let (modified_at, device_time) = (Timestamp(modified_at[at]), Timestamp(device_time[at]));
            records.push(Self { key, state, sync_count, modified_by, modified_at, device_time });
        }
        Ok(records)
    }
}
