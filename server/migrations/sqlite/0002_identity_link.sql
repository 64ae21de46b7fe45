-- Owners that were linked to others: all that is theirs belongs to the target, and always leads there in one step.
CREATE TABLE identity_link (
    source TEXT PRIMARY KEY,
    target TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX identity_link_by_target ON identity_link (target);

-- The name that the dataset had for its first owner, if a link gave it another one.
ALTER TABLE dataset ADD COLUMN former_name TEXT;
