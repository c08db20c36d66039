-- Paillier keys that a rotation has replaced are deleted once no session can use them. The row stays
-- without its record, so that a lock is not forgotten with the key.
ALTER TABLE paillier_keys ADD COLUMN superseded_at_ms INTEGER;
ALTER TABLE paillier_keys ADD COLUMN removed_at_ms INTEGER;
CREATE INDEX own_enrolments_by_agreed ON own_enrolments (agreed);
CREATE INDEX own_enrolments_by_offered ON own_enrolments (offered);
