-- The policies of each wallet that count now or will: the newest that is in effect, and those after it.
CREATE TABLE policies (
    wallet          BLOB    NOT NULL,
    revision        INTEGER NOT NULL,
    effective_at_ms INTEGER NOT NULL,
    -- The document as its owner signed it, and the signature; checked again whenever it is read.
    body            TEXT    NOT NULL,
    signature       BLOB    NOT NULL,
    PRIMARY KEY (wallet, revision)
) STRICT;

-- Digests that were charged to a wallet's limits: a signature over the same one is no further spending.
CREATE TABLE policy_digests (
    wallet        BLOB    NOT NULL,
    digest        BLOB    NOT NULL,
    charged_at_ms INTEGER NOT NULL,
    PRIMARY KEY (wallet, digest)
) STRICT, WITHOUT ROWID;

-- What was spent, in sixtieths of each limit's time.
CREATE TABLE policy_usage (
    wallet     BLOB    NOT NULL,
    scope      TEXT    NOT NULL,
    within_s   INTEGER NOT NULL,
    slice      INTEGER NOT NULL,
    -- In wei, 32 bytes, big endian.
    value      BLOB    NOT NULL,
    signatures INTEGER NOT NULL,
    PRIMARY KEY (wallet, scope, within_s, slice)
) STRICT, WITHOUT ROWID;

-- Who approved which request, until the request expires.
CREATE TABLE policy_approvals (
    wallet        BLOB    NOT NULL,
    request       BLOB    NOT NULL,
    approver      BLOB    NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (wallet, request, approver)
) STRICT, WITHOUT ROWID;
