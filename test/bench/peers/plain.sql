-- The floor: what it costs to keep the same columns in a table at all.
DROP SCHEMA IF EXISTS bench_plain CASCADE;
CREATE SCHEMA bench_plain;
CREATE TABLE bench_plain.event (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	created_at timestamptz NOT NULL DEFAULT now(),
	saga_id text NOT NULL,
	aggregate_type text NOT NULL DEFAULT 'saga',
	aggregate_id text,
	event_type text NOT NULL,
	payload jsonb NOT NULL,
	headers jsonb NOT NULL DEFAULT '{}',
	routing_key text,
	partition_key text
);
