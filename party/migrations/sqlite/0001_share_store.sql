-- The share store, version 1. Sealed records hold every secret and whatever must not be exchanged
-- unnoticed; the other tables hold what is decided in transactions.

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

-- The key is the record's associated data; an empty wallet and index 0 mean "of the whole party".
CREATE TABLE records (
    kind        INTEGER NOT NULL,
    wallet      BLOB    NOT NULL,
    share_index INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    item        BLOB    NOT NULL,
    sealed      BLOB    NOT NULL,
    PRIMARY KEY (kind, wallet, share_index, epoch, item)
) STRICT;

CREATE TABLE pins (
    party TEXT PRIMARY KEY,
    card  BLOB NOT NULL
) STRICT;

CREATE TABLE wallets (
    id              BLOB PRIMARY KEY,
    epoch           INTEGER NOT NULL,
    share_index     INTEGER NOT NULL,
    tenant          TEXT    NOT NULL,
    package_hash    BLOB    NOT NULL,
    receipt         BLOB    NOT NULL,
    token           BLOB,
    prepared_at_ms  INTEGER NOT NULL,
    expires_at_ms   INTEGER NOT NULL,
    -- Null while the wallet is only prepared.
    commit_ack      BLOB,
    committed_at_ms INTEGER
) STRICT;
CREATE INDEX wallets_by_token ON wallets (token) WHERE token IS NOT NULL;
CREATE INDEX wallets_prepared ON wallets (expires_at_ms) WHERE commit_ack IS NULL;

CREATE TABLE enrolments (
    wallet       BLOB    NOT NULL,
    initiator    INTEGER NOT NULL,
    paillier_key BLOB    NOT NULL,
    epoch        INTEGER NOT NULL,
    -- Rises by one with every enrolment: the order in which they came.
    sequence     INTEGER NOT NULL,
    added_at_ms  INTEGER NOT NULL,
    PRIMARY KEY (wallet, initiator, paillier_key)
) STRICT;

CREATE TABLE paillier_keys (
    id             BLOB PRIMARY KEY,
    scope          TEXT    NOT NULL,
    -- 0 ready, 1 locked, 2 needs rotation.
    state          INTEGER NOT NULL,
    sequence       INTEGER NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    locked_session BLOB,
    -- The responder's signed answer that led to the bad signature.
    locked_evidence BLOB,
    locked_at_ms   INTEGER
) STRICT;
CREATE INDEX paillier_keys_by_scope ON paillier_keys (scope, sequence);

CREATE TABLE own_enrolments (
    wallet    BLOB NOT NULL,
    responder TEXT NOT NULL,
    agreed    BLOB,
    offered   BLOB,
    PRIMARY KEY (wallet, responder)
) STRICT;

CREATE TABLE sessions (
    id            BLOB PRIMARY KEY,
    wallet        BLOB    NOT NULL,
    claimed_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_by_expiry ON sessions (expires_at_ms);

-- One row per session, for ever: one signature ciphertext per session, for ever.
CREATE TABLE charges (
    session       BLOB PRIMARY KEY,
    wallet        BLOB    NOT NULL,
    digest        BLOB    NOT NULL,
    charged_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX charges_by_digest ON charges (wallet, digest);

CREATE TABLE deals (
    wallet        BLOB PRIMARY KEY,
    created_at_ms INTEGER NOT NULL,
    restored      INTEGER NOT NULL DEFAULT 0
) STRICT;
