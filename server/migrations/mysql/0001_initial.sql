-- The store as a whole: one row. Writers hold it shared, so that who makes the store read-only waits for them.
CREATE TABLE syncline_store (
    id TINYINT NOT NULL PRIMARY KEY,
    -- It is copied to another store, or was, and takes no more writes.
    is_read_only BOOLEAN NOT NULL
) ENGINE = InnoDB;

INSERT INTO syncline_store (id, is_read_only) VALUES (1, FALSE);

-- Owners that were linked to others or ever had a dataset or a device. A link, and what must not miss one, locks the row.
CREATE TABLE syncline_owner (
    owner VARBINARY(255) NOT NULL PRIMARY KEY,
    -- All that is this owner's belongs to that one, and always leads there in one step.
    linked_to VARBINARY(255),
    KEY syncline_owner_by_link (linked_to)
) ENGINE = InnoDB;

-- A dataset as a whole: its head. It stays after a deletion, so that every device learns of it.
CREATE TABLE syncline_dataset (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    owner VARBINARY(255) NOT NULL,
    name VARBINARY(128) NOT NULL,
    -- The position, which commits are compared with; null before the first one that counts.
    epoch BINARY(16),
    sync_count BIGINT NOT NULL,
    tag BINARY(8),
    floor BIGINT NOT NULL,
    -- Whether it was written, and not deleted since.
    is_live BOOLEAN NOT NULL,
    records BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    digest BINARY(16) NOT NULL,
    -- Milliseconds since 1970.
    modified_at BIGINT NOT NULL,
    modified_by BINARY(16),
    -- The number of the next change id.
    next_change BIGINT NOT NULL,
    -- Epochs and commit tags, as MessagePack.
    lineage MEDIUMBLOB NOT NULL,
    -- The name that it had for its first owner, if a link gave it another one.
    former_name VARBINARY(128),
    UNIQUE KEY syncline_dataset_by_name (owner, name)
) ENGINE = InnoDB;

CREATE TABLE syncline_record (
    dataset BIGINT NOT NULL,
    -- UTF-8, compared as bytes: no collation takes two keys for the same.
    `key` VARBINARY(1000) NOT NULL,
    sync_count BIGINT NOT NULL,
    -- Why it is a tombstone; null: it is none.
    removal VARBINARY(16),
    modified_by BINARY(16),
    modified_at BIGINT NOT NULL,
    device_time BIGINT NOT NULL,
    -- The value, canonical; null in a tombstone. This is what counts.
    bytes MEDIUMBLOB,
    -- The same for people and SQL; null where it is nested deeper than the database reads.
    value JSON,
    removed_count BIGINT GENERATED ALWAYS AS (IF(removal IS NULL, NULL, sync_count)) VIRTUAL,
    removed_at BIGINT GENERATED ALWAYS AS (IF(removal IS NULL, NULL, modified_at)) VIRTUAL,
    PRIMARY KEY (dataset, `key`),
    -- Pulls go by it.
    UNIQUE KEY syncline_record_by_count (dataset, sync_count, `key`),
    -- Purging goes by these.
    KEY syncline_tombstone_by_count (dataset, removed_count),
    KEY syncline_tombstone_by_age (removed_at, dataset, removed_count)
) ENGINE = InnoDB;

-- Answers to the latest pushes of each device, and some more, so that a repeat gets the same one.
CREATE TABLE syncline_push (
    dataset BIGINT NOT NULL,
    device BINARY(16) NOT NULL,
    sequence BIGINT NOT NULL,
    hash BINARY(32) NOT NULL,
    -- MessagePack.
    answer MEDIUMBLOB NOT NULL,
    PRIMARY KEY (dataset, device, sequence)
) ENGINE = InnoDB;

-- The latest change ids of each dataset, and some more, numbered so that the oldest ones are found without looking.
CREATE TABLE syncline_change (
    dataset BIGINT NOT NULL,
    number BIGINT NOT NULL,
    change_id BINARY(16) NOT NULL,
    sync_count BIGINT NOT NULL,
    PRIMARY KEY (dataset, number),
    UNIQUE KEY syncline_change_by_id (dataset, change_id)
) ENGINE = InnoDB;

-- Devices that are registered to be woken.
CREATE TABLE syncline_device (
    owner VARBINARY(255) NOT NULL,
    device BINARY(16) NOT NULL,
    -- Who delivers to it, and the token that it has there.
    platform VARBINARY(32) NOT NULL,
    token VARBINARY(4096) NOT NULL,
    -- What its user calls it.
    name VARBINARY(128),
    registered_at BIGINT NOT NULL,
    PRIMARY KEY (owner, device)
) ENGINE = InnoDB;

-- The records that exist, as SQL and PHP read them.
CREATE VIEW syncline_records AS
SELECT
    CONVERT(d.owner USING utf8mb4) AS owner,
    CONVERT(d.name USING utf8mb4) AS dataset,
    CONVERT(r.`key` USING utf8mb4) AS record_key,
    r.value AS value,
    r.sync_count AS sync_count,
    FROM_UNIXTIME(r.modified_at / 1000) AS modified_at,
    LOWER(HEX(r.modified_by)) AS modified_by,
    d.id AS dataset_id,
    r.`key` AS key_bytes,
    r.bytes AS value_bytes
FROM syncline_dataset AS d
JOIN syncline_record AS r ON r.dataset = d.id
WHERE r.removal IS NULL AND d.is_live;
