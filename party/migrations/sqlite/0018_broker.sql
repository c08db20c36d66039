-- How far the broker's bucket of jobs went when the job was charged last: the broker's epoch, a revision of the bucket, and
-- when the bucket was created. Empty where the orchestrator said nothing of it.
ALTER TABLE job_digests ADD COLUMN broker_epoch INTEGER;
ALTER TABLE job_digests ADD COLUMN broker_revision INTEGER;
ALTER TABLE job_digests ADD COLUMN broker_created_ns INTEGER;
CREATE INDEX job_digests_by_broker ON job_digests (broker_epoch, broker_revision);
