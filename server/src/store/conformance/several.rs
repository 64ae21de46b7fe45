//! What holds if several servers write at the same time, over lines that may break.

use std::sync::Arc;

use futures_util::future::join_all;
use sync_core::model::{SyncCount, Value};

use crate::store::conformance::draft::{Draft, dataset, live};
use crate::store::{CommitOutcome, Store, StoreError};

/// Whoever is overtaken reads again; no increment is lost or counts twice, and no two commits share a count. The stores
/// are connections to one. Says how often one of them was unavailable: a commit of which nothing was heard is found by
/// what its writer remembers of it.
pub async fn increments_at_several_servers_count_once(stores: &[Arc<dyn Store>], increments: i64) -> usize {
    const WRITERS: u64 = 8;
    let writer = |number: u64| {
        let store = Arc::clone(&stores[number as usize % stores.len()]);
        async move {
            let (counters, own) = (dataset("counters"), format!("w{number}"));
            let (mut draft, mut unavailable, mut written) = (Draft::of(number), 0, 0);
            while written < increments {
                let step = async {
                    let view = store.view(&counters, &live(&format!("n {own}"))).await?;
                    let find = |name: &str| match view.records.iter().find(|(key, _)| key.as_str() == name) {
                        Some((_, record)) => record.value().cloned(),
                        None => Some(Value::Int(0)),
                    };
                    let (Some(Value::Int(n)), Some(Value::Int(mine))) = (find("n"), find(&own)) else {
                        panic!("somebody else writes to {counters:?}");
                    };
                    assert!((written..=written + 1).contains(&mine), "{mine} after {written}");
                    if mine > written {
                        return Ok(CommitOutcome::Written);
                    }
                    let mut commit = draft.next(&view.head);
                    draft.put(&mut commit, "n", Value::Int(n + 1));
                    draft.put(&mut commit, &own, Value::Int(written + 1));
                    store.commit(&counters, commit).await
                };
                match step.await {
                    Ok(CommitOutcome::Written) => written += 1,
                    Ok(CommitOutcome::Stale) => {}
                    Err(StoreError::Unavailable(_)) => unavailable += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }
            unavailable
        }
    };
    let unavailable = join_all((0..WRITERS).map(writer)).await.into_iter().sum();
    let total = WRITERS as i64 * increments;
    let view = loop {
        match stores[0].view(&dataset("counters"), &live("n")).await {
            Err(StoreError::Unavailable(_)) => {}
            view => break view.unwrap(),
        }
    };
    assert_eq!(view.head.lineage.count, SyncCount(total as u64));
    assert_eq!(view.records.values().next().unwrap().value(), Some(&Value::Int(total)));
    unavailable
}
