-- Devices that are registered to be woken.
CREATE TABLE device (
    owner TEXT NOT NULL,
    device BLOB NOT NULL,
    -- Who delivers to it, and the token that it has there.
    platform TEXT NOT NULL,
    token TEXT NOT NULL,
    -- What its user calls it.
    name TEXT,
    registered_at INTEGER NOT NULL,
    PRIMARY KEY (owner, device)
) STRICT, WITHOUT ROWID;
