//! What is read before pushes are planned: all views that wait, at one moment and in few statements.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::mysql::MySqlPool;
use sqlx::{MySqlConnection, QueryBuilder};
use sync_core::merge::push::{RememberedPush, View};
use sync_core::model::{ChangeId, DeviceId, Record, RecordKey, SyncCount, limits};

use crate::store::mysql::failure::Failure;
use crate::store::mysql::lanes::Job;
use crate::store::mysql::lists::{any_of, filled_up};
use crate::store::mysql::owners;
use crate::store::mysql::rows::{self, FoundHead};
use crate::store::mysql::transaction::{begin_reading, end_reading};
use crate::store::{DatasetAddress, Touched};

/// A view that somebody waits for.
pub(super) struct WantedView {
    pub(super) dataset: DatasetAddress,
    pub(super) touched: Touched,
}

impl Job for WantedView {
    type Done = View;
    const TOGETHER_MAX: usize = 64;
    const SIZE_MAX: usize = 1_024;

    fn dataset(&self) -> &DatasetAddress {
        &self.dataset
    }

    /// How many rows it may have.
    fn size(&self) -> usize {
        let Touched { keys, pushes, changes } = &self.touched;
        keys.len() + pushes.len() + changes.len()
    }

    async fn do_together(readers: &MySqlPool, views: &[Self]) -> Result<Vec<Result<View, Failure>>, Failure> {
        let mut moment = begin_reading(readers).await?;
        let views = read_together(&mut moment, views).await;
        end_reading(moment, views).await
    }
}

/// A view, and the dataset that it is of.
struct Found<'a> {
    wanted: &'a WantedView,
    at: &'a FoundHead,
}

async fn read_together(
    moment: &mut MySqlConnection,
    wanted: &[WantedView],
) -> Result<Vec<Result<View, Failure>>, Failure> {
    let heads = heads(moment, wanted).await?;
    let found: Vec<Found<'_>> =
        wanted.iter().filter_map(|wanted| heads.get(&wanted.dataset).map(|at| Found { wanted, at })).collect();
    let mut pushes = pushes(moment, &found).await?;
    let mut records = records(moment, &found).await?;
    let mut changes = changes(moment, &found).await?;
    let mut views = Vec::new();
    for WantedView { dataset, .. } in wanted {
        views.push(match heads.get(dataset) {
            Some(FoundHead { id, head, next_change: _ }) => Ok(View {
                head: head.clone(),
                records: records.remove(id).unwrap_or_default(),
                pushes: pushes.remove(id).unwrap_or_default(),
                changes: changes.remove(id).unwrap_or_default(),
            }),
            None => match owners::check(moment, &dataset.owner).await {
                Ok(()) => Ok(View::default()),
                Err(Failure::Moved) => Err(Failure::Moved),
                Err(failure) => return Err(failure),
            },
        });
    }
    Ok(views)
}

async fn heads(
    moment: &mut MySqlConnection,
    wanted: &[WantedView],
) -> Result<BTreeMap<DatasetAddress, FoundHead>, Failure> {
    let mut heads = BTreeMap::new();
    for wanted in filled_up(wanted) {
        let mut query = QueryBuilder::new("SELECT ");
        query.push(rows::HEAD).push(", d.owner, d.name FROM syncline_dataset AS d WHERE ");
        any_of(&mut query, &wanted, |query, WantedView { dataset, .. }| {
            query.push("d.owner = ").push_bind(dataset.owner.as_str().as_bytes());
            query.push(" AND d.name = ").push_bind(dataset.name.as_str().as_bytes());
        });
        for row in query.build().fetch_all(&mut *moment).await? {
            heads.insert(rows::address(&row, rows::HEAD_COLUMNS)?, rows::head(&row)?);
        }
    }
    Ok(heads)
}

type ByDataset<K, V> = BTreeMap<i64, BTreeMap<K, V>>;

async fn records(moment: &mut MySqlConnection, found: &[Found<'_>]) -> Result<ByDataset<RecordKey, Record>, Failure> {
    let keys: Vec<(i64, &RecordKey)> =
        found.iter().flat_map(|Found { wanted, at }| wanted.touched.keys.iter().map(|key| (at.id, key))).collect();
    let mut records = ByDataset::<_, Record>::new();
    for keys in filled_up(&keys) {
        let mut query = QueryBuilder::new("SELECT ");
        query.push(rows::RECORD).push(", r.dataset FROM syncline_record AS r FORCE INDEX (PRIMARY) WHERE ");
        any_of(&mut query, &keys, |query, (dataset, key)| {
            query.push("r.dataset = ").push_bind(*dataset);
            query.push(" AND r.`key` = ").push_bind(key.as_str().as_bytes());
        });
        for row in query.build().fetch_all(&mut *moment).await? {
            let record = rows::record(&row, 0)?;
            let dataset = rows::column(&row, rows::RECORD_COLUMNS)?;
            records.entry(dataset).or_default().insert(record.key.clone(), record);
        }
    }
    Ok(records)
}

/// Of each device its newest push, and those that are wanted. Of what is there only the latest count.
async fn pushes(
    moment: &mut MySqlConnection,
    found: &[Found<'_>],
) -> Result<ByDataset<DeviceId, Vec<RememberedPush>>, Failure> {
    let devices: Vec<(i64, DeviceId)> = found
        .iter()
        .flat_map(|Found { wanted, at }| wanted.touched.pushes.keys().map(|device| (at.id, *device)))
        .collect();
    let mut pushes = ByDataset::<_, Vec<_>>::new();
    for devices in filled_up(&devices) {
        let mut query = QueryBuilder::new("");
        for (at, (dataset, device)) in devices.iter().enumerate() {
            query.push(if at == 0 { "(SELECT " } else { ") UNION ALL (SELECT " }).push(rows::PUSH);
            query.push(", dataset, device FROM syncline_push WHERE dataset = ").push_bind(*dataset);
            query.push(" AND device = ").push_bind(device.as_bytes().as_slice());
            query.push(" ORDER BY sequence DESC LIMIT 1");
        }
        query.push(")");
        for row in query.build().fetch_all(&mut *moment).await? {
            let device = DeviceId::from_bytes(rows::array(&row, rows::PUSH_COLUMNS + 1)?);
            let dataset = rows::column(&row, rows::PUSH_COLUMNS)?;
            pushes.entry(dataset).or_default().insert(device, vec![rows::push(&row)?]);
        }
    }
    for Found { wanted, at } in found {
        for (device, sequences) in &wanted.touched.pushes {
            let remembered = pushes.get_mut(&at.id).and_then(|pushes| pushes.get_mut(device));
            let Some(remembered) = remembered else { continue };
            let newest = remembered.last().map(|push| push.sequence);
            // A device that goes on asks for what comes behind the newest one.
            if sequences.iter().any(|sequence| Some(*sequence) < newest) {
                *remembered = older_pushes(moment, at.id, *device, sequences).await?;
            }
        }
    }
    Ok(pushes)
}

/// The newest push of a device and the wanted ones, oldest first.
async fn older_pushes(
    moment: &mut MySqlConnection,
    dataset: i64,
    device: DeviceId,
    wanted: &BTreeSet<u64>,
) -> Result<Vec<RememberedPush>, Failure> {
    let mut query = QueryBuilder::new("SELECT ");
    query.push(rows::PUSH).push(" FROM syncline_push WHERE dataset = ").push_bind(dataset);
    query.push(" AND device = ").push_bind(device.as_bytes().as_slice());
    query.push(" ORDER BY sequence DESC LIMIT ").push_bind(limits::PUSHES_REMEMBERED_MAX as i64);
    let rows = query.build().fetch_all(moment).await?;
    let mut remembered = rows.iter().map(rows::push).collect::<Result<Vec<_>, _>>()?;
    remembered.reverse();
    let newest = remembered.last().map(|push| push.sequence);
    remembered.retain(|push| Some(push.sequence) == newest || wanted.contains(&push.sequence));
    Ok(remembered)
}

/// Which of the changes are known. Of what is there only the latest count.
async fn changes(moment: &mut MySqlConnection, found: &[Found<'_>]) -> Result<ByDataset<ChangeId, SyncCount>, Failure> {
    let changes: Vec<(&FoundHead, &ChangeId)> =
        found.iter().flat_map(|Found { wanted, at }| wanted.touched.changes.iter().map(|id| (*at, id))).collect();
    let mut known = ByDataset::new();
    for changes in filled_up(&changes) {
        let mut query = QueryBuilder::new(
            "SELECT dataset, change_id, sync_count FROM syncline_change FORCE INDEX (syncline_change_by_id) WHERE ",
        );
        any_of(&mut query, &changes, |query, (at, change)| {
            query.push("dataset = ").push_bind(at.id);
            query.push(" AND change_id = ").push_bind(change.as_bytes().as_slice());
            query.push(" AND number >= ").push_bind(at.next_change - limits::CHANGES_REMEMBERED_MAX as i64);
        });
        for row in query.build().fetch_all(&mut *moment).await? {
            let change = ChangeId::from_bytes(rows::array(&row, 1)?);
            known.entry(rows::column(&row, 0)?).or_insert_with(BTreeMap::new).insert(change, rows::count(&row, 2)?);
        }
    }
    Ok(known)
}
