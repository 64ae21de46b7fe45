-- The store as a whole: one row.
CREATE TABLE store_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- It is copied to another store, or was, and takes no more writes.
    is_read_only INTEGER NOT NULL
) STRICT;

INSERT INTO store_state (id, is_read_only) VALUES (1, 0);
