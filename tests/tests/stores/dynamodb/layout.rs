//! The table: made once, compared, and left alone if it is newer.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use syncline_server::metrics::StoreUnits;
use syncline_server::store::StoreError;
use syncline_server::store::TablesVersion;
use syncline_server::store::dynamodb::DynamoDbStore;
use tests::harness::DynamoDb;

fn told<T>(result: Result<T, StoreError>) -> String {
    match result.err().expect("it is refused") {
        StoreError::Unavailable(source) => source.to_string(),
        other => other.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_made_once_and_one_of_a_newer_version_is_left_alone() {
    let emulator = DynamoDb::start();
    let client = DynamoDb::client(&emulator.url());
    let open = || DynamoDbStore::open_with(client.clone(), emulator.table(), StoreUnits::default());
    let migrate = || DynamoDbStore::migrate_with(client.clone(), emulator.table());
    assert!(told(open().await).contains("run `syncline migrate`"));
    let all = tokio::join!(migrate(), migrate(), migrate());
    for version in <[_; 3]>::from(all) {
        let TablesVersion { found, known } = version.unwrap();
        assert!(found <= 1 && known == 1);
    }
    assert_eq!(migrate().await.unwrap(), TablesVersion { found: 1, known: 1 });
    drop(open().await.unwrap());
    let expires = client.describe_time_to_live().table_name(emulator.table()).send().await.unwrap();
    let expires = expires.time_to_live_description().unwrap().attribute_name().unwrap().to_owned();
    assert_eq!(expires, "expires_at");

    let update = client.update_item().table_name(emulator.table());
    let update = update.key("pk", AttributeValue::S("!store".to_owned())).key("sk", AttributeValue::S("!".to_owned()));
    let update = update
        .update_expression("SET layout = :l")
        .expression_attribute_values(":l", AttributeValue::N("9".to_owned()));
    update.send().await.unwrap();
    for told in [told(open().await), told(migrate().await)] {
        assert!(told.contains("version 9") && told.contains("use a newer one"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_said_what_is_wrong_with_a_table_that_is_there() {
    let emulator = DynamoDb::start();
    let client = DynamoDb::client(&emulator.url());
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let attribute = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    let table = client.create_table().table_name(emulator.table()).key_schema(key);
    let table = table.attribute_definitions(attribute.build().unwrap()).billing_mode(BillingMode::PayPerRequest);
    table.send().await.unwrap();
    let told = told(DynamoDbStore::migrate_with(client, emulator.table()).await);
    for part in ["the key of the table is `id` and `nothing`", "`by_count` is missing", "`by_kind` is missing"] {
        assert!(told.contains(part), "{told}");
    }
}
