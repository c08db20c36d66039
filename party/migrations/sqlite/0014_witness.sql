-- How far audit chains go, as their writers signed it: of this party's peers, which are told at their next start; and of
-- this party itself, those that were found to be ahead of this store, which was then marked as restored.
CREATE TABLE witness_heads (
    writer     TEXT    NOT NULL,
    chain      BLOB    NOT NULL,
    sequence   INTEGER NOT NULL,
    head       BLOB    NOT NULL,
    -- Rises by one with every chain that is added.
    added      INTEGER NOT NULL,
    PRIMARY KEY (writer, chain)
) STRICT;

-- The records that name locked keys are found without reading the others, and stay when others are removed.
CREATE INDEX audit_locks ON audit_records (chain, sequence)
    WHERE instr(body, '"kind":"key_locked"') > 0 OR instr(body, '"kind":"keys_found_locked"') > 0;
