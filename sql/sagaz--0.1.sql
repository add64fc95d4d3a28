\echo Use "CREATE EXTENSION sagaz" to load this file. \quit

CREATE SCHEMA sagaz;
REVOKE ALL ON SCHEMA sagaz FROM PUBLIC;
COMMENT ON SCHEMA sagaz IS 'saga state and a transactional outbox';

---------------------------------------------------------------------------
-- Types
---------------------------------------------------------------------------

CREATE TYPE sagaz.saga_status AS ENUM (
	'pending', 'executing', 'completed', 'compensating', 'failed',
	'rolled_back', 'partially_committed', 'forward_recovery');
COMMENT ON TYPE sagaz.saga_status IS 'where a saga stands';

CREATE TYPE sagaz.step_status AS ENUM (
	'pending', 'executing', 'completed', 'compensating', 'compensated',
	'failed', 'tainted', 'skipped');
COMMENT ON TYPE sagaz.step_status IS 'where a step of a saga stands';

CREATE TYPE sagaz.event_status AS ENUM (
	'pending', 'claimed', 'sent', 'failed', 'dead_letter');
COMMENT ON TYPE sagaz.event_status IS 'where an event stands for one consumer group';

CREATE TYPE sagaz.outbox_event AS (
	event_id uuid,
	saga_id text,
	aggregate_type text,
	aggregate_id text,
	event_type text,
	payload jsonb,
	headers jsonb,
	status sagaz.event_status,
	created_at timestamptz,
	claimed_at timestamptz,
	sent_at timestamptz,
	retry_count integer,
	last_error text,
	worker_id text,
	routing_key text,
	partition_key text,
	batch_id bigint,
	consumer_group text);
COMMENT ON TYPE sagaz.outbox_event IS
	'an event as a worker or an operator sees it: the 16 fields of a record, then the batch that handed it out and its consumer group';

---------------------------------------------------------------------------
-- Saga state
---------------------------------------------------------------------------

CREATE TABLE sagaz.sagas (
	saga_id text PRIMARY KEY,
	saga_name text NOT NULL,
	status sagaz.saga_status NOT NULL,
	context jsonb,
	metadata jsonb,
	version bigint NOT NULL DEFAULT 1,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) WITH (fillfactor = 80);

CREATE TABLE sagaz.saga_steps (
	saga_id text NOT NULL REFERENCES sagaz.sagas ON DELETE CASCADE,
	step_name text NOT NULL,
	ordinal integer NOT NULL,
	status sagaz.step_status NOT NULL DEFAULT 'pending',
	result jsonb,
	error text,
	executed_at timestamptz,
	compensated_at timestamptz,
	retry_count integer NOT NULL DEFAULT 0,
	extra jsonb,
	PRIMARY KEY (saga_id, step_name)
) WITH (fillfactor = 80);

SELECT pg_catalog.pg_extension_config_dump('sagaz.sagas', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.saga_steps', '');

---------------------------------------------------------------------------
-- Outbox: tables
---------------------------------------------------------------------------

CREATE FUNCTION sagaz.uuidv7() RETURNS uuid
	AS 'MODULE_PATHNAME', 'sagaz_uuidv7' LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION sagaz.uuidv7() IS
	'a time-ordered UUID (RFC 9562, version 7)';

CREATE FUNCTION sagaz.lane(saga_id text) RETURNS smallint
	AS 'MODULE_PATHNAME', 'sagaz_lane' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION sagaz.lane(text) IS
	'the lane of a saga: the unit of ordering and of claim concurrency';

CREATE FUNCTION sagaz.next_seq() RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_next_seq' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.next_seq() IS
	'the next place in the outbox log; takes the transaction''s xid first, which every claim relies on';

CREATE SEQUENCE sagaz.outbox_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE sagaz.outbox_seq IS
	'order of the outbox log; drawn by sagaz.next_seq() alone';

CREATE SEQUENCE sagaz.batch_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE sagaz.batch_seq IS
	'numbers batches; a batch_id is 1024 times such a number plus the number of its consumer group';

-- Only inserted into and, by retention, deleted from.
CREATE TABLE sagaz.outbox (
	pos xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
	seq bigint NOT NULL DEFAULT sagaz.next_seq(),
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	event_id uuid NOT NULL DEFAULT sagaz.uuidv7(),
	lane smallint NOT NULL GENERATED ALWAYS AS (sagaz.lane(saga_id)) STORED,
	saga_id text NOT NULL,
	aggregate_type text NOT NULL DEFAULT 'saga',
	aggregate_id text,
	event_type text NOT NULL CHECK (event_type <> ''),
	payload jsonb NOT NULL,
	headers jsonb NOT NULL DEFAULT '{}',
	routing_key text,
	partition_key text,
	available_at timestamptz
);
CREATE INDEX outbox_lane_seq ON sagaz.outbox (lane, seq);
CREATE INDEX outbox_pos_seq ON sagaz.outbox (pos, seq);
CREATE UNIQUE INDEX outbox_event_id ON sagaz.outbox (event_id);
COMMENT ON TABLE sagaz.outbox IS
	'the outbox log: events in the order of their insertion, never updated. pos is the inserting top-level transaction; an aggregate_id of NULL stands for the saga_id; a pos below 3 marks an event that no consumer group reads off the log (it was taken over from elsewhere with a retry row of its own)';

CREATE TABLE sagaz.consumer_group (
	group_no smallint PRIMARY KEY CHECK (group_no BETWEEN 1 AND 1023),
	consumer_group text NOT NULL UNIQUE CHECK (consumer_group <> ''),
	ordering text NOT NULL DEFAULT 'none' CHECK (ordering IN ('none', 'saga')),
	start_time timestamptz,
	paused_at timestamptz,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE sagaz.consumer_group IS
	'independent readers of the outbox log. A group has its own progress (the newest row of each lane in outbox_batch), its own retries and dead letters';

-- Only inserted into and, by retention, deleted from.
CREATE TABLE sagaz.outbox_batch (
	batch_id bigint NOT NULL,
	claimed_at timestamptz NOT NULL,
	last_seq bigint NOT NULL,
	root bigint,
	events integer NOT NULL,
	group_no smallint NOT NULL,
	lane smallint NOT NULL,
	worker_id text,
	ends bytea NOT NULL,
	owed bytea NOT NULL
);
CREATE UNIQUE INDEX outbox_batch_key ON sagaz.outbox_batch (group_no, lane, batch_id);
CREATE INDEX outbox_batch_root ON sagaz.outbox_batch (root) WHERE root IS NOT NULL;
COMMENT ON TABLE sagaz.outbox_batch IS
	'one row a claim and lane, never updated. The newest row of a group and lane is the group''s cursor there: ends holds the two ends of the window being read, last_seq the last place handed out in it, owed what is out or still to be handed out again. A row with a root hands the events of that earlier row out again';

-- Only inserted into and, by retention, deleted from.
CREATE TABLE sagaz.outbox_receipt (
	batch_id bigint NOT NULL,
	part bigint NOT NULL,
	at timestamptz NOT NULL,
	until timestamptz,
	events integer NOT NULL,
	kind smallint NOT NULL,
	worker_id text,
	error text,
	seqs bigint[]
);
CREATE UNIQUE INDEX outbox_receipt_key ON sagaz.outbox_receipt (batch_id, part);
COMMENT ON TABLE sagaz.outbox_receipt IS
	'what became of a batch, never updated. Part 0 closes it, so there is at most one: kind 1 sent, 2 released (not to be handed out again before until), 3 taken over. Other parts: 4 extended (lease lasts to until), 5 sent and 6 failed, for the events at seqs alone';

CREATE TABLE sagaz.outbox_retry (
	group_no smallint NOT NULL,
	lane smallint NOT NULL,
	seq bigint NOT NULL,
	state smallint NOT NULL,
	retry_count integer NOT NULL DEFAULT 0,
	next_attempt_at timestamptz,
	batch_id bigint,
	claimed_at timestamptz,
	sent_at timestamptz,
	failed_at timestamptz,
	event_id uuid NOT NULL,
	saga_id text NOT NULL,
	event_type text NOT NULL,
	worker_id text,
	last_error text,
	reason text,
	PRIMARY KEY (group_no, seq)
) WITH (fillfactor = 80);
CREATE INDEX outbox_retry_due ON sagaz.outbox_retry (group_no, lane, next_attempt_at, seq) WHERE state IN (1, 6);
CREATE INDEX outbox_retry_batch ON sagaz.outbox_retry (batch_id) WHERE state = 3;
CREATE INDEX outbox_retry_saga ON sagaz.outbox_retry (group_no, saga_id, seq) WHERE state IN (1, 2, 3);
CREATE INDEX outbox_retry_dead ON sagaz.outbox_retry (group_no, failed_at) WHERE state = 4;
CREATE INDEX outbox_retry_event ON sagaz.outbox_retry (event_id);
COMMENT ON TABLE sagaz.outbox_retry IS
	'events that left the straight path in one consumer group. state: 1 waiting for next_attempt_at, 2 held back behind an earlier event of its saga, 3 handed out in batch_id, 4 dead letter, 5 sent, 6 scheduled for next_attempt_at';

CREATE TABLE sagaz.outbox_archive (
	event_id uuid NOT NULL,
	saga_id text NOT NULL,
	aggregate_type text NOT NULL,
	aggregate_id text NOT NULL,
	event_type text NOT NULL,
	payload jsonb NOT NULL,
	headers jsonb NOT NULL,
	status sagaz.event_status NOT NULL,
	created_at timestamptz NOT NULL,
	claimed_at timestamptz,
	sent_at timestamptz,
	retry_count integer NOT NULL,
	last_error text,
	worker_id text,
	routing_key text,
	partition_key text,
	archived_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (event_id)
);
CREATE INDEX outbox_archive_saga ON sagaz.outbox_archive (saga_id);
CREATE INDEX outbox_archive_sent ON sagaz.outbox_archive (sent_at);
COMMENT ON TABLE sagaz.outbox_archive IS
	'finished events that retention took out of the log, with their final state in the default consumer group';

CREATE TABLE sagaz.consumer_inbox (
	consumer_name text NOT NULL,
	event_id text NOT NULL,
	source_topic text NOT NULL,
	event_type text NOT NULL,
	payload jsonb NOT NULL,
	consumed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	processing_duration_ms integer,
	PRIMARY KEY (consumer_name, event_id)
);
CREATE INDEX consumer_inbox_cleanup ON sagaz.consumer_inbox (consumed_at);
COMMENT ON TABLE sagaz.consumer_inbox IS
	'events that a consumer has seen, so that a second delivery can be told';

-- No key: the first users of a database must not wait for one another.
CREATE TABLE sagaz.cluster (
	epoch integer NOT NULL,
	boundary_seq bigint NOT NULL,
	system_identifier bigint NOT NULL,
	database_oid oid NOT NULL,
	lanes smallint NOT NULL,
	activated_at timestamptz
);
COMMENT ON TABLE sagaz.cluster IS
	'the clusters in which the log was written. Places above boundary_seq belong to the epoch; claims work only where an activated row of the newest epoch names this database';

SELECT pg_catalog.pg_extension_config_dump('sagaz.outbox', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.outbox_seq', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.batch_seq', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.consumer_group', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.outbox_batch', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.outbox_receipt', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.outbox_retry', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.outbox_archive', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.consumer_inbox', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.cluster', '');

CREATE VIEW sagaz.emit AS
	SELECT event_id, saga_id, aggregate_type, aggregate_id, event_type,
		payload, headers, routing_key, partition_key, available_at, created_at
	FROM sagaz.outbox;
COMMENT ON VIEW sagaz.emit IS
	'insert here to emit an event; what is left out gets its default';

---------------------------------------------------------------------------
-- Outbox: claim, finish, release
---------------------------------------------------------------------------

CREATE FUNCTION sagaz.claim_batch(worker_id text, batch_size integer DEFAULT 100,
		older_than interval DEFAULT '0', consumer_group text DEFAULT 'sagaz-workers',
		storage text DEFAULT NULL)
	RETURNS SETOF sagaz.outbox_event
	AS 'MODULE_PATHNAME', 'sagaz_claim_batch' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION sagaz.claim_batch(text, integer, interval, text, text) IS
	'hand up to batch_size events out to a worker, who finishes or releases the batch before sagaz.claim_timeout';

CREATE FUNCTION sagaz.finish_batch(batch_id bigint, worker_id text,
		storage text DEFAULT NULL)
	RETURNS integer
	AS 'MODULE_PATHNAME', 'sagaz_finish_batch' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.finish_batch(bigint, text, text) IS
	'say that all events the batch still owes were sent; returns how many';

CREATE FUNCTION sagaz.release_batch(batch_id bigint, worker_id text,
		error text DEFAULT NULL, delay interval DEFAULT '0',
		storage text DEFAULT NULL)
	RETURNS integer
	AS 'MODULE_PATHNAME', 'sagaz_release_batch' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.release_batch(bigint, text, text, interval, text) IS
	'give back what the batch still owes, to be handed out again after the delay; returns how many events';

CREATE FUNCTION sagaz.extend_batch(batch_id bigint, worker_id text,
		by interval, storage text DEFAULT NULL)
	RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'sagaz_extend_batch' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.extend_batch(bigint, text, interval, text) IS
	'keep the batch for so long from now on; returns when the lease runs out';

CREATE FUNCTION sagaz.create_consumer_group(name text,
		"ordering" text DEFAULT 'none', start_from text DEFAULT 'beginning')
	RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_create_consumer_group' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.create_consumer_group(text, text, text) IS
	'make an independent reader of the log, from the beginning, from now on, or of events created since a time';

CREATE FUNCTION sagaz.activate() RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_activate' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.activate() IS
	'let this copy of the data deliver events, after a restore into another cluster or database';

---------------------------------------------------------------------------
-- Outbox: insert, mark single events
---------------------------------------------------------------------------

CREATE FUNCTION sagaz.insert_event(saga_id text, event_type text, payload jsonb,
		aggregate_type text DEFAULT 'saga', aggregate_id text DEFAULT NULL,
		headers jsonb DEFAULT '{}', routing_key text DEFAULT NULL,
		partition_key text DEFAULT NULL, event_id uuid DEFAULT NULL,
		available_at timestamptz DEFAULT NULL, storage text DEFAULT NULL)
	RETURNS uuid
	AS 'MODULE_PATHNAME', 'sagaz_insert_event' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.insert_event(text, text, jsonb, text, text, jsonb, text, text, uuid, timestamptz, text) IS
	'emit an event when this transaction commits, or at available_at if that is later; returns its id';

CREATE FUNCTION sagaz.insert_events(events jsonb, storage text DEFAULT NULL)
	RETURNS uuid[]
	AS 'MODULE_PATHNAME', 'sagaz_insert_events' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.insert_events(jsonb, text) IS
	'emit the events of an array of objects, whose keys are the arguments of insert_event(); returns their ids in that order';

CREATE FUNCTION sagaz.mark_sent(event_ids uuid[], worker_id text,
		consumer_group text DEFAULT 'sagaz-workers', storage text DEFAULT NULL)
	RETURNS integer
	AS 'MODULE_PATHNAME', 'sagaz_mark_sent' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.mark_sent(uuid[], text, text, text) IS
	'say of single events of the worker''s batches that they were sent; returns how many';

CREATE FUNCTION sagaz.mark_failed(event_ids uuid[], worker_id text, error text,
		consumer_group text DEFAULT 'sagaz-workers', storage text DEFAULT NULL)
	RETURNS integer
	AS 'MODULE_PATHNAME', 'sagaz_mark_failed' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.mark_failed(uuid[], text, text, text, text) IS
	'say of single events of the worker''s batches that they failed: they are tried again later, after sagaz.max_retries failures no more; returns how many';

---------------------------------------------------------------------------
-- Nothing for PUBLIC; sagaz.grant_access() gives roles what they need
---------------------------------------------------------------------------

REVOKE ALL ON ALL ROUTINES IN SCHEMA sagaz FROM PUBLIC;
