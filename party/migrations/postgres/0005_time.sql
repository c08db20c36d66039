-- Requests that their requester or the wallet's owner took back, until they have expired.
CREATE TABLE revocations (
    wallet        BYTEA  NOT NULL,
    -- The request's content hash.
    request       BYTEA  NOT NULL,
    revoked_by    BYTEA  NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    PRIMARY KEY (wallet, request)
);

-- The wallet's root public key, so that no second wallet has it. Null where the wallet was stored before
-- this column was there: the worker opens the share and notes it.
ALTER TABLE wallets ADD COLUMN public_key BYTEA;
CREATE INDEX wallets_by_public_key ON wallets (public_key) WHERE public_key IS NOT NULL;
CREATE INDEX wallets_without_public_key ON wallets (id) WHERE public_key IS NULL;
