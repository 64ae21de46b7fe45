//! The one table: made, or compared with what it has to be.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, LocalSecondaryIndex, Projection,
    ProjectionType, ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};

use crate::metrics::StoreOperation;
use crate::store::attempts::Attempts;
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::head::MARK;
use crate::store::dynamodb::lease::STORE;
use crate::store::dynamodb::redo::EXPIRES_AT;
use crate::store::dynamodb::table::{
    BY_COUNT, BY_KIND, Expression, Index, KIND, PARTITION, SORT, Table, key, number, number_of,
};
use crate::store::{StoreError, TablesVersion};

/// The layout that this program knows.
pub(super) const KNOWN: usize = 1;
/// The attribute that says which layout it is.
const LAYOUT: &str = "layout";
/// Tries of a request about the table.
const ATTEMPTS_MAX: u32 = 9;
/// How long a new table is waited for.
const ACTIVE_POLLS: usize = 600;
const ACTIVE_POLL: Duration = Duration::from_millis(500);

/// Tries a request about the table again while that is worth it.
macro_rules! tried {
    ($request:expr) => {{
        let mut attempts = Attempts::up_to(ATTEMPTS_MAX);
        loop {
            match $request.send().await.map_err(Failure::of) {
                Ok(done) => break Ok(done),
                Err(failure) => match attempts.after(failure).await {
                    Ok(()) => {}
                    Err(failure) => break Err(failure),
                },
            }
        }
    }};
}

/// The version of the layout.
pub(super) async fn version(table: &Table) -> Result<TablesVersion, StoreError> {
    let found = match table.on(StoreOperation::Resolve).requests().get(STORE.0, STORE.1).await {
        Ok(item) => {
            let item = item.unwrap_or_default();
            item.contains_key(LAYOUT).then(|| number_of(&item, LAYOUT)).transpose()?.unwrap_or_default()
        }
        Err(failure) if failure.is_no_table() => 0,
        Err(failure) => return Err(failure.into()),
    };
    if found > KNOWN {
        let text = format!(
            "table `{}` is of version {found}, this program knows {KNOWN} at most: use a newer one",
            table.name
        );
        return Err(StoreError::Unavailable(text.into()));
    }
    Ok(TablesVersion { found, known: KNOWN })
}

/// Fails if the table is missing or outdated.
pub(super) async fn check_current(table: &Table) -> Result<(), StoreError> {
    let TablesVersion { found, known } = version(table).await?;
    if found < known {
        let text = format!("table `{}` is missing or outdated: run `syncline migrate`", table.name);
        return Err(StoreError::Unavailable(text.into()));
    }
    Ok(())
}

/// Makes the table, or says in what it differs; says which version was found.
pub(super) async fn migrate(table: &Table) -> Result<TablesVersion, StoreError> {
    let found = match describe(table).await {
        Ok(found) => found,
        Err(failure) if failure.is_no_table() => {
            create(table).await?;
            active(table).await?
        }
        Err(failure) => return Err(failure.into()),
    };
    let is_ready = found.table_status() == Some(&TableStatus::Active);
    let found = if is_ready { found } else { active(table).await? };
    let differences = differences(&found);
    if !differences.is_empty() {
        let text = format!("table `{}` is not as it has to be: {}", table.name, differences.join("; "));
        return Err(StoreError::Unavailable(text.into()));
    }
    expire(table).await?;
    let version = version(table).await?;
    if version.found == 0 {
        let mut item = key(STORE.0, STORE.1);
        item.insert(LAYOUT.to_owned(), number(KNOWN));
        let is_new = Expression::of("attribute_not_exists(pk)", Vec::new());
        table.on(StoreOperation::Resolve).requests().put(item, Some(is_new)).await?;
    }
    Ok(version)
}

async fn describe(table: &Table) -> Result<TableDescription, Failure> {
    let described = tried!(table.client.describe_table().table_name(&table.name))?;
    described.table.ok_or_else(|| Failure::corrupt("the service describes no table"))
}

/// Waits until the table and its indexes are there.
async fn active(table: &Table) -> Result<TableDescription, StoreError> {
    for _ in 0..ACTIVE_POLLS {
        match describe(table).await {
            Ok(found) if found.table_status() == Some(&TableStatus::Active) => return Ok(found),
            Ok(_) => {}
            // What was created a moment ago is not known everywhere.
            Err(failure) if failure.is_no_table() => {}
            Err(failure) => return Err(failure.into()),
        }
        tokio::time::sleep(ACTIVE_POLL).await;
    }
    let text = format!("table `{}` does not become active", table.name);
    Err(StoreError::Unavailable(text.into()))
}

async fn create(table: &Table) -> Result<(), Failure> {
    let names = [PARTITION, SORT, BY_COUNT, KIND, BY_KIND];
    let attributes = names
        .map(|name| AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build());
    let attributes = attributes.into_iter().collect::<Result<Vec<_>, _>>().map_err(Failure::corrupt)?;
    let by_count = LocalSecondaryIndex::builder()
        .index_name(Index::ByCount.name())
        .set_key_schema(Some(keys(PARTITION, BY_COUNT)?))
        .projection(Projection::builder().projection_type(ProjectionType::All).build());
    let by_kind = GlobalSecondaryIndex::builder()
        .index_name(Index::ByKind.name())
        .set_key_schema(Some(keys(KIND, BY_KIND)?))
        .projection(Projection::builder().projection_type(ProjectionType::Include).non_key_attributes(MARK).build());
    let request = table
        .client
        .create_table()
        .table_name(&table.name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_attribute_definitions(Some(attributes))
        .set_key_schema(Some(keys(PARTITION, SORT)?))
        .local_secondary_indexes(by_count.build().map_err(Failure::corrupt)?)
        .global_secondary_indexes(by_kind.build().map_err(Failure::corrupt)?);
    match request.send().await {
        Ok(_) => Ok(()),
        // Somebody else was faster, or it was not heard that it was done.
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => Ok(()),
        Err(error) => Err(Failure::of(error)),
    }
}

fn keys(partition: &str, sort: &str) -> Result<Vec<KeySchemaElement>, Failure> {
    let element = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    [element(partition, KeyType::Hash), element(sort, KeyType::Range)]
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(Failure::corrupt)
}

/// Lets DynamoDB throw away what has expired.
async fn expire(table: &Table) -> Result<(), StoreError> {
    let client: &Client = &table.client;
    let found = tried!(client.describe_time_to_live().table_name(&table.name))?;
    let found = found.time_to_live_description();
    let is_on = |status: &TimeToLiveStatus| matches!(status, TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling);
    if found.and_then(|found| found.time_to_live_status()).is_some_and(is_on) {
        let name = found.and_then(|found| found.attribute_name()).unwrap_or_default();
        if name == EXPIRES_AT {
            return Ok(());
        }
        let text = format!("items of table `{}` expire by attribute `{name}`, and not by `{EXPIRES_AT}`", table.name);
        return Err(StoreError::Unavailable(text.into()));
    }
    let wanted = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES_AT);
    let wanted = wanted.build().map_err(Failure::corrupt)?;
    tried!(client.update_time_to_live().table_name(&table.name).time_to_live_specification(wanted.clone()))?;
    Ok(())
}

/// In what a table differs from what it has to be.
fn differences(found: &TableDescription) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, found: &[KeySchemaElement], partition: &str, sort: &str| {
        let name = |kind: &KeyType| {
            let of_kind = found.iter().find(|element| element.key_type() == kind);
            of_kind.map_or("nothing", KeySchemaElement::attribute_name).to_owned()
        };
        let (found_partition, found_sort) = (name(&KeyType::Hash), name(&KeyType::Range));
        if (found_partition.as_str(), found_sort.as_str()) != (partition, sort) {
            differences.push(format!(
                "the key of {what} is `{found_partition}` and `{found_sort}`, and not `{partition}` and `{sort}`"
            ));
        }
    };
    compare("the table", found.key_schema(), PARTITION, SORT);
    let (by_count, by_kind) = (Index::ByCount.name(), Index::ByKind.name());
    let local = found.local_secondary_indexes().iter().find(|index| index.index_name() == Some(by_count));
    let global = found.global_secondary_indexes().iter().find(|index| index.index_name() == Some(by_kind));
    if let Some(local) = local {
        compare("its index `by_count`", local.key_schema(), PARTITION, BY_COUNT);
    }
    if let Some(global) = global {
        compare("its index `by_kind`", global.key_schema(), KIND, BY_KIND);
    }
    let is_all = |projection: Option<&Projection>| {
        projection.and_then(Projection::projection_type) == Some(&ProjectionType::All)
    };
    match local {
        None => {
            differences.push("the local index `by_count` is missing; it can only be made with the table".to_owned())
        }
        Some(local) if !is_all(local.projection()) => {
            differences.push("the index `by_count` does not have all attributes".to_owned());
        }
        Some(_) => {}
    }
    let has_mark = |projection: Option<&Projection>| {
        is_all(projection)
            || projection.is_some_and(|projection| projection.non_key_attributes().iter().any(|name| name == MARK))
    };
    match global {
        None => differences.push("the global index `by_kind` is missing".to_owned()),
        Some(global) if !has_mark(global.projection()) => {
            differences.push(format!("the index `by_kind` does not have the attribute `{MARK}`"));
        }
        Some(_) => {}
    }
    for attribute in found.attribute_definitions() {
        if attribute.attribute_type() != &ScalarAttributeType::S {
            differences.push(format!("the attribute `{}` of a key is not a text", attribute.attribute_name()));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_in_what_a_table_differs() {
        let index = |name: &str, projection| {
            LocalSecondaryIndexDescription::builder()
                .index_name(name)
                .set_key_schema(Some(keys(PARTITION, BY_COUNT).unwrap()))
                .projection(Projection::builder().projection_type(projection).build())
                .build()
        };
        let global = |attributes: &[&str]| {
            let names = attributes.iter().map(|name| (*name).to_owned()).collect();
            GlobalSecondaryIndexDescription::builder()
                .index_name("by_kind")
                .set_key_schema(Some(keys(KIND, BY_KIND).unwrap()))
                .projection(
                    Projection::builder()
                        .projection_type(ProjectionType::Include)
                        .set_non_key_attributes(Some(names))
                        .build(),
                )
                .build()
        };
        let table = || TableDescription::builder().set_key_schema(Some(keys(PARTITION, SORT).unwrap()));
        let right = table().local_secondary_indexes(index("by_count", ProjectionType::All));
        assert_eq!(differences(&right.global_secondary_indexes(global(&["ln"])).build()), [""; 0]);
        let wrong = TableDescription::builder()
            .set_key_schema(Some(keys("id", SORT).unwrap()))
            .local_secondary_indexes(index("by_count", ProjectionType::KeysOnly))
            .global_secondary_indexes(global(&["x"]));
        assert_eq!(
            differences(&wrong.build()),
            [
                "the key of the table is `id` and `sk`, and not `pk` and `sk`",
                "the index `by_count` does not have all attributes",
                "the index `by_kind` does not have the attribute `ln`",
            ]
        );
        assert_eq!(
            differences(&table().build()),
            [
                "the local index `by_count` is missing; it can only be made with the table",
                "the global index `by_kind` is missing",
            ]
        );
    }

    use aws_sdk_dynamodb::types::{GlobalSecondaryIndexDescription, LocalSecondaryIndexDescription};
}
