-- A dataset as a whole: its head. It stays after a deletion, so that every device learns of it.
CREATE TABLE dataset (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    -- The position, which commits are compared with; null before the first one that counts.
    epoch BLOB,
    sync_count INTEGER NOT NULL,
    tag BLOB,
    floor INTEGER NOT NULL,
    -- Whether it was written, and not deleted since.
    is_live INTEGER NOT NULL,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    digest BLOB NOT NULL,
    modified_at INTEGER NOT NULL,
    modified_by BLOB,
    -- The number of the next change id.
    next_change INTEGER NOT NULL,
    -- Epochs and commit tags, as MessagePack.
    lineage BLOB NOT NULL,
    UNIQUE (owner, name)
) STRICT;

CREATE TABLE record (
    dataset INTEGER NOT NULL,
    key TEXT NOT NULL,
    sync_count INTEGER NOT NULL,
    -- Why it is a tombstone; null: it is none.
    removal TEXT,
    modified_by BLOB,
    modified_at INTEGER NOT NULL,
    device_time INTEGER NOT NULL,
    -- Canonical bytes; null in a tombstone.
    value BLOB,
    PRIMARY KEY (dataset, key)
) STRICT, WITHOUT ROWID;

-- Pulls go by it.
CREATE UNIQUE INDEX record_by_count ON record (dataset, sync_count, key);
-- Purging goes by these; they hold tombstones only.
CREATE INDEX tombstone_by_count ON record (dataset, sync_count) WHERE removal IS NOT NULL;
CREATE INDEX tombstone_by_age ON record (modified_at, dataset, sync_count) WHERE removal IS NOT NULL;

-- Answers to the latest pushes of each device, so that a repeat gets the same one.
CREATE TABLE push (
    dataset INTEGER NOT NULL,
    device BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    -- MessagePack.
    answer BLOB NOT NULL,
    PRIMARY KEY (dataset, device, sequence)
) STRICT, WITHOUT ROWID;

-- The latest change ids of each dataset, numbered so that the oldest ones are found without looking.
CREATE TABLE change (
    dataset INTEGER NOT NULL,
    number INTEGER NOT NULL,
    change_id BLOB NOT NULL,
    sync_count INTEGER NOT NULL,
    PRIMARY KEY (dataset, number)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX change_by_id ON change (dataset, change_id);
