//! Reads visible records in order of their keys, in bounded memory.

use std::ops::ControlFlow;

use rusqlite::Connection;

use crate::device::replica::StoredReplica;
use crate::device::{DeviceError, bytes};
use crate::merge::stack::visible;
use crate::model::{RecordKey, Value};

/// Calls `each` with every visible record whose key begins with `prefix` and comes after `after`, until it breaks.
pub(super) fn scan<E: From<DeviceError>>(
    connection: &Connection,
    replica: i64,
    prefix: &str,
    after: Option<&RecordKey>,
    mut each: impl FnMut(RecordKey, Value) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let stored = StoredReplica::with_id(connection, Some(replica));
    let (from, to) = range(prefix, after);
    let mut select = connection.prepare_cached(SELECT).map_err(DeviceError::from)?;
    let mut rows = select.query((replica, from, to)).map_err(DeviceError::from)?;
    while let Some(row) = rows.next().map_err(DeviceError::from)? {
        let read = || -> Result<(RecordKey, Option<Value>), DeviceError> {
            let key = bytes::key(row.get(0)?)?;
            let value = match row.get_ref(1)?.as_blob_or_null().map_err(bytes::corrupt)? {
                Some(value) => Some(bytes::value(&key, value)?),
                None => visible(&stored, &key)?,
            };
            Ok((key, value))
        };
        let (key, value) = read()?;
        if let Some(value) = value
            && each(key, value)?.is_break()
        {
            break;
        }
    }
    Ok(())
}

/// Keys without layers, with the value of the base; and those with layers, without a value. Both in order of an index,
/// so that SQLite merges them as it goes.
pub(super) const SELECT: &str = "
    SELECT key, value FROM base WHERE replica_id = ?1 AND key >= ?2 AND key < ?3
        AND NOT EXISTS (SELECT 1 FROM patch WHERE patch.replica_id = ?1 AND patch.key = base.key)
    UNION ALL
    SELECT key, NULL FROM patch WHERE replica_id = ?1 AND key >= ?2 AND key < ?3
        AND NOT EXISTS (SELECT 1 FROM patch AS upper WHERE upper.replica_id = ?1 AND upper.key = patch.key
            AND upper.group_id > patch.group_id)
    ORDER BY key
";

/// The bytes at which the keys begin, and those before which they end.
fn range(prefix: &str, after: Option<&RecordKey>) -> (Vec<u8>, Vec<u8>) {
    let from = prefix.as_bytes().to_vec();
    let mut to = from.clone();
    // No byte of UTF-8 is 0xff.
    match to.last_mut() {
        Some(last) => *last += 1,
        None => to.push(0xff),
    }
    // The next key in order is one longer.
    let next = after.map(|after| [after.as_str().as_bytes(), &[0]].concat());
    (next.map_or_else(|| from.clone(), |next| next.max(from.clone())), to)
}
