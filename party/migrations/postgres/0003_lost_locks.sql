-- What a lock is worth, and locks that get lost: verdicts are counted, a lock destroys the key and quarantines
-- the responder's card, and what is about to be decrypted is written down first.

-- Good verdicts under the key: T of the bound log2(T + 1) on the bits that its lock gives away.
ALTER TABLE paillier_keys ADD COLUMN verdicts BIGINT NOT NULL DEFAULT 0;
-- Nobody counted before. No key has made more.
UPDATE paillier_keys SET verdicts = 4294967295;
-- Whose answer locked it.
ALTER TABLE paillier_keys ADD COLUMN locked_card BYTEA;
UPDATE paillier_keys SET locked_card = decode(substr(scope, 11, 64), 'hex') WHERE state = 1 AND scope LIKE 'responder/%';
CREATE INDEX paillier_keys_by_culprit ON paillier_keys (locked_card) WHERE locked_card IS NOT NULL;

-- Every wallet that a key was ever offered or agreed for.
CREATE TABLE enrolled_under (
    paillier_key BYTEA NOT NULL,
    wallet       BYTEA NOT NULL,
    PRIMARY KEY (paillier_key, wallet)
);
INSERT INTO enrolled_under SELECT agreed, wallet FROM own_enrolments WHERE agreed IS NOT NULL
    ON CONFLICT DO NOTHING;
INSERT INTO enrolled_under SELECT offered, wallet FROM own_enrolments WHERE offered IS NOT NULL
    ON CONFLICT DO NOTHING;
-- Which wallets a locked key was for is told by its scope: those that were there when it was locked.
INSERT INTO enrolled_under
    SELECT k.id, w.id FROM paillier_keys AS k JOIN wallets AS w
    ON k.scope = 'wallet/' || encode(w.id, 'hex')
        OR (k.scope LIKE 'responder/%' AND substr(k.scope, 75) = '/' || w.tenant
            AND w.committed_at_ms <= k.locked_at_ms
            AND EXISTS (SELECT 1 FROM own_enrolments AS o WHERE o.wallet = w.id))
    WHERE k.state = 1
    ON CONFLICT DO NOTHING;

-- How many of the keys that the wallet was ever enrolled under are locked.
ALTER TABLE wallets ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;
UPDATE wallets SET failures = (
    SELECT COUNT(*) FROM paillier_keys AS k JOIN enrolled_under AS e ON e.paillier_key = k.id
    WHERE k.state = 1 AND e.wallet = wallets.id);

-- Cards with whose holder the operator goes on after one lock.
CREATE TABLE accepted_culprits (
    card           BYTEA PRIMARY KEY,
    accepted_at_ms BIGINT NOT NULL
);
-- A rotation after a lock was the operator's word until now.
INSERT INTO accepted_culprits
    SELECT earlier.locked_card, earlier.locked_at_ms FROM paillier_keys AS earlier
    WHERE earlier.locked_card IS NOT NULL AND EXISTS (
        SELECT 1 FROM paillier_keys AS later WHERE later.scope = earlier.scope AND later.sequence > earlier.sequence)
    ON CONFLICT DO NOTHING;

-- The lock destroys the key; 4 is the kind of a Paillier key's record.
DELETE FROM records WHERE kind = 4 AND item IN (SELECT id FROM paillier_keys WHERE state = 1);

-- Answers that are about to be decrypted; their sealed records are of kind 16.
CREATE TABLE pending_verdicts (
    session       BYTEA PRIMARY KEY,
    paillier_key  BYTEA    NOT NULL,
    -- Which opening of the store wrote it.
    instance      BYTEA    NOT NULL,
    written_at_ms BIGINT NOT NULL
);
CREATE INDEX pending_verdicts_by_key ON pending_verdicts (paillier_key);

-- How many answers each signed request has had: role 1 decrypted them, role 2 gave them.
CREATE TABLE answers (
    request       BYTEA    NOT NULL,
    role          BIGINT NOT NULL,
    answers       BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    PRIMARY KEY (request, role)
);
CREATE INDEX answers_by_expiry ON answers (expires_at_ms);
