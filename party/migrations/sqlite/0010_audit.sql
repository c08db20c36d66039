-- The audit chains of the party, oldest first; only the newest is written. A new one begins when the
-- store came out of a backup: what the old one was up to afterwards is not known here.
CREATE TABLE audit_chains (
    number  INTEGER PRIMARY KEY,
    id      BLOB    NOT NULL UNIQUE,
    -- 1 once the store was restored: nothing is appended any more.
    closed  INTEGER NOT NULL DEFAULT 0,
    -- Up to where it has been published.
    shipped INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE audit_records (
    chain    INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    -- The hash of the record before it.
    previous BLOB    NOT NULL,
    -- JSON, kept byte for byte.
    body     TEXT    NOT NULL,
    PRIMARY KEY (chain, sequence)
) STRICT, WITHOUT ROWID;
