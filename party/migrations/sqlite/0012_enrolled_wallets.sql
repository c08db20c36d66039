-- Which committed wallets have yet to agree on a Paillier key with somebody is looked up every few seconds: that must not
-- read all wallets.
ALTER TABLE wallets ADD COLUMN enrolled INTEGER NOT NULL DEFAULT 0;
UPDATE wallets SET enrolled = 1
 WHERE EXISTS (SELECT 1 FROM own_enrolments WHERE wallet = wallets.id AND agreed IS NOT NULL);
CREATE INDEX wallets_unenrolled ON wallets (committed_at_ms) WHERE commit_ack IS NOT NULL AND enrolled = 0;
