//! Requests to the one table. Each is made so that it may be sent twice, is tried again while that helps, and says what it
//! used.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, ConsumedCapacity, Delete, KeysAndAttributes, Put, ReturnConsumedCapacity,
    ReturnValue, TransactWriteItem, Update,
};

use futures_util::future::BoxFuture;
use tracing::debug;

use crate::clock::{RandomSource as _, SystemRandom};
use crate::metrics::{StoreOperation, StoreUnits};
use crate::store::attempts::Attempts;
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::lease::Lease;

/// An item: attributes by name.
pub(super) type Item = HashMap<String, AttributeValue>;

/// The table, and what one server remembers of it.
pub(super) struct Table {
    pub(super) client: Client,
    pub(super) name: String,
    /// Until when this server may write.
    pub(super) lease: Lease,
    /// Of which datasets this server has put the last commit into place.
    pub(super) placed: Placed,
    units: StoreUnits,
}

/// One operation of the store. When it ends, what it was charged with is counted, and said.
pub(super) struct Operation<'a> {
    table: &'a Table,
    operation: StoreOperation,
    charged: Mutex<Charged>,
}

/// Units.
#[derive(Default)]
struct Charged {
    read: f64,
    written: f64,
}

/// Requests that serve one operation.
#[derive(Clone, Copy)]
pub(super) struct Requests<'a> {
    pub(super) table: &'a Table,
    charged: &'a Mutex<Charged>,
    is_write: bool,
}

/// Which items of a partition are read.
#[derive(Clone, Debug)]
pub(super) struct Query<'q> {
    /// The index, or the table itself.
    pub(super) index: Option<Index>,
    /// The partition.
    pub(super) partition: &'q str,
    /// From here.
    pub(super) from: String,
    /// To here, inclusive.
    pub(super) to: String,
    /// At most so many items of a page are looked at.
    pub(super) limit: Option<usize>,
    /// The last ones first.
    pub(super) is_backward: bool,
    /// What was written a moment ago need not be seen.
    pub(super) is_relaxed: bool,
    /// Only these attributes; nothing: all.
    pub(super) only: Option<&'static str>,
}

/// An index of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Index {
    /// Records of a dataset by count and key.
    ByCount,
    /// Datasets, owners and tombstones of all partitions.
    ByKind,
}

/// A part of what a query finds.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) items: Vec<Item>,
    /// Where to go on, if there is more.
    pub(super) next: Option<Item>,
}

/// An expression, and the values in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Expression {
    text: String,
    values: Item,
}

/// What an update does, and when.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// `SET …`.
    pub(super) update: String,
    /// On which condition; empty: always.
    pub(super) condition: &'static str,
    /// Values for both.
    pub(super) values: Vec<(&'static str, AttributeValue)>,
}

/// For which datasets, by their homes, the commit of this version of the head is in place.
#[derive(Default)]
pub(super) struct Placed(Mutex<BTreeMap<String, [u8; 8]>>);

/// Names of keys and indexes.
pub(super) const PARTITION: &str = "pk";
pub(super) const SORT: &str = "sk";
pub(super) const BY_COUNT: &str = "ix";
pub(super) const KIND: &str = "g";
pub(super) const BY_KIND: &str = "gs";

/// Tries of one request: with the waits between them about five seconds at most.
const ATTEMPTS_MAX: u32 = 9;
/// Items of one request that reads by keys.
const KEYS_MAX: usize = 100;
/// Datasets that a server remembers to be in place; then it begins anew.
const PLACED_MAX: usize = 20_000;

impl Table {
    pub(super) fn new(client: Client, name: String, units: StoreUnits) -> Self {
        Self { client, name, units, lease: Lease::default(), placed: Placed::default() }
    }

    /// Begins an operation.
    pub(super) fn on(&self, operation: StoreOperation) -> Operation<'_> {
        Operation { table: self, operation, charged: Mutex::default() }
    }
}

impl Operation<'_> {
    /// Requests that read, or that only bring to an end what was written.
    pub(super) const fn requests(&self) -> Requests<'_> {
        Requests { table: self.table, charged: &self.charged, is_write: false }
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        let Charged { read, written } = *self.charged.get_mut().unwrap_or_else(PoisonError::into_inner);
        if read + written > 0.0 {
            self.table.units.used(self.operation, read, written);
            let operation = self.operation.label();
            debug!(operation, read_units = read, write_units = written, "DynamoDB charged an operation");
        }
    }
}

impl<'a> Requests<'a> {
    /// The same, to write: none is sent once the store is read-only.
    pub(super) const fn writing(self) -> Self {
        Self { is_write: true, ..self }
    }

    /// The item of a key.
    pub(super) fn get(self, partition: &'a str, sort: &'a str) -> BoxFuture<'a, Result<Option<Item>, Failure>> {
        Box::pin(async move {
            let request = self.table.client.get_item().table_name(&self.table.name).set_key(Some(key(partition, sort)));
            let request = request.consistent_read(true).return_consumed_capacity(ReturnConsumedCapacity::Total);
            let found = self.tried(|| request.clone().send()).await?;
            self.reads(found.consumed_capacity());
            Ok(found.item)
        })
    }

    /// The items of keys, as far as there are any, in no order.
    pub(super) fn get_all(self, keys: Vec<(String, String)>) -> BoxFuture<'a, Result<Vec<Item>, Failure>> {
        Box::pin(async move {
            let mut found = Vec::new();
            for keys in keys.chunks(KEYS_MAX) {
                let mut wanted: Vec<Item> = keys.iter().map(|(partition, sort)| key(partition, sort)).collect();
                let mut attempts = Attempts::up_to(ATTEMPTS_MAX);
                while !wanted.is_empty() {
                    let keys = KeysAndAttributes::builder().set_keys(Some(wanted)).consistent_read(true);
                    let keys = keys.build().map_err(Failure::corrupt)?;
                    let request = self.table.client.batch_get_item().request_items(&self.table.name, keys);
                    let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
                    let mut part = self.tried(|| request.clone().send()).await?;
                    part.consumed_capacity().iter().for_each(|used| self.reads(Some(used)));
                    found.extend(
                        part.responses.as_mut().and_then(|all| all.remove(&self.table.name)).unwrap_or_default(),
                    );
                    let left = part.unprocessed_keys.as_mut().and_then(|all| all.remove(&self.table.name));
                    wanted = left.map(|left| left.keys).unwrap_or_default();
                    if !wanted.is_empty() {
                        attempts.after(too_much()).await?;
                    }
                }
            }
            Ok(found)
        })
    }

    /// A page of what a query finds.
    pub(super) fn query(self, query: &'a Query<'_>, start: Option<Item>) -> BoxFuture<'a, Result<Page, Failure>> {
        Box::pin(async move {
            let (partition, sort) = match query.index {
                None => (PARTITION, SORT),
                Some(Index::ByCount) => (PARTITION, BY_COUNT),
                Some(Index::ByKind) => (KIND, BY_KIND),
            };
            let request = self
                .table
                .client
                .query()
                .table_name(&self.table.name)
                .set_index_name(query.index.map(|index| index.name().to_owned()))
                .key_condition_expression(format!("{partition} = :p AND {sort} BETWEEN :a AND :b"))
                .expression_attribute_values(":p", text(query.partition))
                .expression_attribute_values(":a", text(&query.from))
                .expression_attribute_values(":b", text(&query.to))
                .scan_index_forward(!query.is_backward)
                .consistent_read(!query.is_relaxed && query.index != Some(Index::ByKind))
                .set_limit(query.limit.map(|limit| i32::try_from(limit.max(1)).unwrap_or(i32::MAX)))
                .set_projection_expression(query.only.map(str::to_owned))
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let found = self.tried(|| request.clone().send()).await?;
            self.reads(found.consumed_capacity());
            Ok(Page { items: found.items.unwrap_or_default(), next: found.last_evaluated_key })
        })
    }

    /// All that a query finds.
    pub(super) fn query_all(self, query: &'a Query<'_>) -> BoxFuture<'a, Result<Vec<Item>, Failure>> {
        Box::pin(async move {
            let mut found = Vec::new();
            let mut start = None;
            loop {
                let page = self.query(query, start).await?;
                found.extend(page.items);
                start = page.next;
                if start.is_none() {
                    return Ok(found);
                }
            }
        })
    }

    /// Writes an item in place of what is there, if a condition holds; says whether it did. Whoever hears that it did not
    /// looks whether it was because the item is there already.
    pub(super) fn put(self, item: Item, condition: Option<Expression>) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async move {
            let mut request = self.table.client.put_item().table_name(&self.table.name).set_item(Some(item));
            if let Some(Expression { text, values }) = condition {
                request = request.condition_expression(text);
                request = request.set_expression_attribute_values(Some(values).filter(|values| !values.is_empty()));
            }
            let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
            match self.tried(|| request.clone().send()).await {
                Ok(done) => {
                    self.writes(done.consumed_capacity());
                    Ok(true)
                }
                Err(failure) if failure.is_refused() => Ok(false),
                Err(failure) => Err(failure),
            }
        })
    }

    /// Changes an item; says what it was before, or nothing if the condition did not hold.
    pub(super) fn update(
        self,
        partition: &'a str,
        sort: &'a str,
        change: Change,
    ) -> BoxFuture<'a, Result<Option<Item>, Failure>> {
        Box::pin(async move {
            let Change { update, condition, values } = change;
            let request = self
                .table
                .client
                .update_item()
                .table_name(&self.table.name)
                .set_key(Some(key(partition, sort)))
                .update_expression(update)
                .set_condition_expression(Some(condition.to_owned()).filter(|text| !text.is_empty()))
                .set_expression_attribute_values(Some(named(values)))
                .return_values(ReturnValue::AllOld)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            match self.tried(|| request.clone().send()).await {
                Ok(done) => {
                    self.writes(done.consumed_capacity());
                    Ok(Some(done.attributes.unwrap_or_default()))
                }
                Err(failure) if failure.is_refused() => Ok(None),
                Err(failure) => Err(failure),
            }
        })
    }

    /// Deletes an item, if it is there and a condition holds.
    pub(super) fn delete(
        self,
        partition: &'a str,
        sort: &'a str,
        condition: Option<Expression>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let mut request =
                self.table.client.delete_item().table_name(&self.table.name).set_key(Some(key(partition, sort)));
            if let Some(Expression { text, values }) = condition {
                request = request.condition_expression(text).set_expression_attribute_values(Some(values));
            }
            let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
            match self.tried(|| request.clone().send()).await {
                Ok(done) => {
                    self.writes(done.consumed_capacity());
                    Ok(())
                }
                Err(failure) if failure.is_refused() => Ok(()),
                Err(failure) => Err(failure),
            }
        })
    }

    /// Does all or nothing; says whether all conditions held. A repeat of the same request is known by its token.
    pub(super) fn transact(self, items: Vec<TransactWriteItem>) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async move {
            let mut token = [0; 16];
            SystemRandom.fill(&mut token);
            let request = self
                .table
                .client
                .transact_write_items()
                .set_transact_items(Some(items))
                .client_request_token(hex(&token))
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let mut attempts = Attempts::up_to(ATTEMPTS_MAX);
            loop {
                self.check_writable().await?;
                let failure = match request.clone().send().await {
                    Ok(done) => {
                        done.consumed_capacity().iter().for_each(|used| self.writes(Some(used)));
                        return Ok(true);
                    }
                    Err(error) => cancelled(error),
                };
                if failure.is_refused() {
                    return Ok(false);
                }
                attempts.after(failure).await?;
            }
        })
    }

    /// Sends a request until it is done, or it is not worth another try.
    async fn tried<T, E, R, F>(self, send: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, SdkError<E, R>>>,
        E: std::error::Error + ProvideErrorMetadata + 'static,
        R: fmt::Debug,
    {
        let mut attempts = Attempts::up_to(ATTEMPTS_MAX);
        loop {
            self.check_writable().await?;
            match send().await {
                Ok(done) => return Ok(done),
                Err(error) => attempts.after(Failure::of(error)).await?,
            }
        }
    }

    async fn check_writable(self) -> Result<(), Failure> {
        if self.is_write { Box::pin(self.table.lease.check(Self { is_write: false, ..self })).await } else { Ok(()) }
    }

    fn reads(self, used: Option<&ConsumedCapacity>) {
        let units = used.and_then(ConsumedCapacity::capacity_units).unwrap_or_default();
        self.charged().read += units;
    }

    fn writes(self, used: Option<&ConsumedCapacity>) {
        let units = used.and_then(ConsumedCapacity::capacity_units).unwrap_or_default();
        self.charged().written += units;
    }

    fn charged(&self) -> MutexGuard<'a, Charged> {
        self.charged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part of a transaction: writes an item.
    pub(super) fn putting(self, item: Item, condition: Option<Expression>) -> Result<TransactWriteItem, Failure> {
        let Expression { text, values } = condition.unwrap_or_default();
        let put = Put::builder().table_name(&self.table.name).set_item(Some(item));
        let put = put.set_condition_expression(Some(text).filter(|text| !text.is_empty()));
        let put = put.set_expression_attribute_values(Some(values).filter(|values| !values.is_empty()));
        Ok(TransactWriteItem::builder().put(put.build().map_err(Failure::corrupt)?).build())
    }

    /// A part of a transaction: deletes an item.
    pub(super) fn deleting(self, partition: &str, sort: &str) -> Result<TransactWriteItem, Failure> {
        let delete = Delete::builder().table_name(&self.table.name).set_key(Some(key(partition, sort)));
        Ok(TransactWriteItem::builder().delete(delete.build().map_err(Failure::corrupt)?).build())
    }

    /// A part of a transaction: changes an item.
    pub(super) fn changing(self, partition: &str, sort: &str, change: Change) -> Result<TransactWriteItem, Failure> {
        let Change { update, condition, values } = change;
        let update = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(key(partition, sort)))
            .update_expression(update)
            .set_condition_expression(Some(condition.to_owned()).filter(|text| !text.is_empty()))
            .set_expression_attribute_values(Some(named(values)));
        Ok(TransactWriteItem::builder().update(update.build().map_err(Failure::corrupt)?).build())
    }

    /// A part of a transaction: only looks at an item.
    pub(super) fn checking(
        self,
        partition: &str,
        sort: &str,
        condition: Expression,
    ) -> Result<TransactWriteItem, Failure> {
        let Expression { text, values } = condition;
        let check = ConditionCheck::builder()
            .table_name(&self.table.name)
            .set_key(Some(key(partition, sort)))
            .condition_expression(text)
            .set_expression_attribute_values(Some(values).filter(|values| !values.is_empty()));
        Ok(TransactWriteItem::builder().condition_check(check.build().map_err(Failure::corrupt)?).build())
    }
}

impl<'q> Query<'q> {
    /// Items of a partition of the table, both ends inclusive.
    pub(super) fn between(partition: &'q str, from: impl Into<String>, to: impl Into<String>) -> Self {
        Self {
            index: None,
            partition,
            from: from.into(),
            to: to.into(),
            limit: None,
            is_backward: false,
            is_relaxed: false,
            only: None,
        }
    }

    /// Items of a partition whose keys begin with a text of ASCII.
    pub(super) fn beginning(partition: &'q str, prefix: &str) -> Self {
        Self::between(partition, prefix, format!("{prefix}~"))
    }
}

impl Index {
    /// What it is called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ByCount => "by_count",
            Self::ByKind => "by_kind",
        }
    }
}

impl Expression {
    /// A condition with values.
    pub(super) fn of(text: &str, values: Vec<(&'static str, AttributeValue)>) -> Self {
        Self { text: text.to_owned(), values: named(values) }
    }
}

impl Placed {
    /// Whether what the head of that version says is in place.
    pub(super) fn is(&self, home: &str, version: [u8; 8]) -> bool {
        self.lock().get(home) == Some(&version)
    }

    /// From now on it is.
    pub(super) fn set(&self, home: &str, version: [u8; 8]) {
        let mut placed = self.lock();
        if placed.len() >= PLACED_MAX {
            placed.clear();
        }
        placed.insert(home.to_owned(), version);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, [u8; 8]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named(values: Vec<(&'static str, AttributeValue)>) -> Item {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn too_much() -> Failure {
    Failure::of_reasons(std::iter::once("ProvisionedThroughputExceeded"))
}

fn cancelled<R: fmt::Debug>(error: SdkError<TransactWriteItemsError, R>) -> Failure {
    if let SdkError::ServiceError(context) = &error
        && let TransactWriteItemsError::TransactionCanceledException(cancelled) = context.err()
    {
        return Failure::of_reasons(cancelled.cancellation_reasons().iter().filter_map(|reason| reason.code()));
    }
    Failure::of(error)
}

/// The key of an item.
pub(super) fn key(partition: &str, sort: &str) -> Item {
    [(PARTITION.to_owned(), text(partition)), (SORT.to_owned(), text(sort))].into()
}

/// A text for an attribute.
pub(super) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// A number for an attribute.
pub(super) fn number(number: impl fmt::Display) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Bytes for an attribute.
pub(super) fn bytes(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

/// A text in an item.
pub(super) fn text_of<'i>(item: &'i Item, name: &str) -> Result<&'i str, Failure> {
    text_if_any(item, name).ok_or_else(|| missing(name))
}

/// A text in an item, if there is one.
pub(super) fn text_if_any<'i>(item: &'i Item, name: &str) -> Option<&'i str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

/// Bytes in an item.
pub(super) fn bytes_of<'i>(item: &'i Item, name: &str) -> Result<&'i [u8], Failure> {
    bytes_if_any(item, name).ok_or_else(|| missing(name))
}

/// Bytes in an item, if there are any.
pub(super) fn bytes_if_any<'i>(item: &'i Item, name: &str) -> Option<&'i [u8]> {
    item.get(name)?.as_b().ok().map(AsRef::as_ref)
}

/// A number in an item.
pub(super) fn number_of<T: std::str::FromStr<Err: fmt::Display>>(item: &Item, name: &str) -> Result<T, Failure> {
    let text = item.get(name).and_then(|value| value.as_n().ok()).ok_or_else(|| missing(name))?;
    text.parse().map_err(Failure::corrupt)
}

/// Bytes in hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn missing(name: &str) -> Failure {
    Failure::Corrupt(format!("an item has no attribute `{name}` of its kind"))
}
