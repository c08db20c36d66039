-- What each job signs. Its id comes from the idempotency key, so a key is for one payload, whatever the queue forgets.
CREATE TABLE job_digests (
    job           BLOB    NOT NULL PRIMARY KEY,
    -- SHA-256 over wallet, derivation path and signed digest.
    signs         BLOB    NOT NULL,
    -- When the first was charged.
    charged_at_ms INTEGER NOT NULL,
    -- When the newest request under the key expires.
    expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX job_digests_by_expiry ON job_digests (expires_at_ms);

-- Old charges are removed, oldest first.
CREATE INDEX charges_by_time ON charges (charged_at_ms);
CREATE INDEX policy_digests_by_time ON policy_digests (charged_at_ms);
