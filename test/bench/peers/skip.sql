-- The outbox as client libraries write it: a status column, a partial index
-- for the claim and one for claims that ran out.
DROP SCHEMA IF EXISTS bench_skip CASCADE;
CREATE SCHEMA bench_skip;
CREATE TABLE bench_skip.outbox (
	event_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	saga_id text NOT NULL,
	aggregate_type text NOT NULL DEFAULT 'saga',
	aggregate_id text,
	event_type text NOT NULL,
	payload jsonb NOT NULL,
	headers jsonb NOT NULL DEFAULT '{}',
	status text NOT NULL DEFAULT 'pending'
		CHECK (status IN ('pending', 'claimed', 'sent', 'failed', 'dead_letter')),
	created_at timestamptz NOT NULL DEFAULT now(),
	claimed_at timestamptz,
	sent_at timestamptz,
	retry_count integer NOT NULL DEFAULT 0,
	last_error text,
	worker_id text,
	routing_key text,
	partition_key text
);
CREATE INDEX ON bench_skip.outbox (created_at) WHERE status = 'pending';
CREATE INDEX ON bench_skip.outbox (claimed_at) WHERE status = 'claimed';
CREATE INDEX ON bench_skip.outbox (saga_id);
