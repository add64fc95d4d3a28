\echo Use "CREATE EXTENSION sagaz" to load this file. \quit

CREATE SCHEMA sagaz;
REVOKE ALL ON SCHEMA sagaz FROM PUBLIC;
COMMENT ON SCHEMA sagaz IS 'saga state and a transactional outbox';

-- What only sagaz calls.  Expressions of views and defaults are bound to the
-- functions, so that whoever uses them needs EXECUTE, but not the schema.
CREATE SCHEMA sagaz_internal;
REVOKE ALL ON SCHEMA sagaz_internal FROM PUBLIC;
COMMENT ON SCHEMA sagaz_internal IS
	'functions that sagaz itself calls; they may change with any version';

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
-- No column of these changes in a save that leaves the status alone, so that
-- its update stays HOT.
CREATE INDEX sagas_status ON sagaz.sagas (status, created_at);
CREATE INDEX sagas_name ON sagaz.sagas (saga_name, status, created_at);
COMMENT ON TABLE sagaz.sagas IS
	'the present state of each saga. version rises by one with each change of the saga or of a step; a context or metadata of NULL is JSON''s null. Functions of sagaz write here without firing triggers';

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
COMMENT ON TABLE sagaz.saga_steps IS
	'the steps of each saga, in the order of ordinal. extra holds, as an object, the keys of a step that have no column; a result of NULL is JSON''s null. Whoever changes a step with SQL must raise the version of its saga first';

SELECT pg_catalog.pg_extension_config_dump('sagaz.sagas', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.saga_steps', '');

CREATE TYPE sagaz.saga_summary AS (
	saga_id text,
	saga_name text,
	status sagaz.saga_status,
	created_at timestamptz,
	updated_at timestamptz,
	step_count integer,
	completed_steps integer);
COMMENT ON TYPE sagaz.saga_summary IS 'a saga as lists show it';

CREATE FUNCTION sagaz.save_saga_state(saga_id text, saga_name text, status text,
		steps jsonb DEFAULT '[]', context jsonb DEFAULT '{}',
		metadata jsonb DEFAULT NULL, expected_version bigint DEFAULT NULL,
		storage text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_any_save_saga_state' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.save_saga_state(text, text, text, jsonb, jsonb, jsonb, bigint, text) IS
	'make the saga what the arguments say and write what differs; returns its version. expected_version, if given, must be the present version, 0 where the saga must not exist';

CREATE FUNCTION sagaz.load_saga_state(saga_id text, storage text DEFAULT NULL)
	RETURNS jsonb
	AS 'MODULE_PATHNAME', 'sagaz_any_load_saga_state' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION sagaz.load_saga_state(text, text) IS
	'a saga with its steps and version, or NULL if there is none';

CREATE FUNCTION sagaz.delete_saga_state(saga_id text, storage text DEFAULT NULL)
	RETURNS boolean
	AS 'MODULE_PATHNAME', 'sagaz_any_delete_saga_state' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.delete_saga_state(text, text) IS
	'delete a saga and its steps; returns whether it was there';

CREATE FUNCTION sagaz.update_step_state(saga_id text, step_name text, status text,
		result jsonb DEFAULT NULL, error text DEFAULT NULL,
		executed_at timestamptz DEFAULT NULL,
		compensated_at timestamptz DEFAULT NULL, storage text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_any_update_step_state' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.update_step_state(text, text, text, jsonb, text, timestamptz, timestamptz, text) IS
	'change one step, leaving what is NULL as it is; returns the version of the saga';

CREATE FUNCTION sagaz.list_sagas(status text DEFAULT NULL,
		saga_name text DEFAULT NULL, max_rows integer DEFAULT 100,
		skip_rows integer DEFAULT 0, storage text DEFAULT NULL)
	RETURNS SETOF sagaz.saga_summary
	AS 'MODULE_PATHNAME', 'sagaz_any_list_sagas' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION sagaz.list_sagas(text, text, integer, integer, text) IS
	'sagas of a status whose name contains saga_name in upper or lower case, those created last first';

CREATE FUNCTION sagaz.stuck_sagas(older_than interval, storage text DEFAULT NULL)
	RETURNS SETOF sagaz.saga_summary
	AS 'MODULE_PATHNAME', 'sagaz_any_stuck_sagas' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION sagaz.stuck_sagas(interval, text) IS
	'sagas that are not finished and were not changed for so long, longest first';

CREATE FUNCTION sagaz.get_saga_statistics(storage text DEFAULT NULL)
	RETURNS TABLE (saga_name text, status sagaz.saga_status, sagas bigint, estimated boolean)
	AS 'MODULE_PATHNAME', 'sagaz_any_get_saga_statistics' LANGUAGE C STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION sagaz.get_saga_statistics(text) IS
	'how many sagas there are of each name and status; of a large table the large groups are estimated';

CREATE FUNCTION sagaz.cleanup_completed_sagas(older_than interval,
		statuses text[] DEFAULT '{completed,rolled_back}',
		storage text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_any_cleanup_completed_sagas' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.cleanup_completed_sagas(interval, text[], text) IS
	'delete finished sagas that were not changed for so long; returns how many';

---------------------------------------------------------------------------
-- Outbox: tables
---------------------------------------------------------------------------

CREATE FUNCTION sagaz.uuidv7() RETURNS uuid
	AS 'MODULE_PATHNAME', 'sagaz_uuidv7' LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION sagaz.uuidv7() IS
	'a time-ordered UUID (RFC 9562, version 7)';

CREATE FUNCTION sagaz_internal.lane(saga_id text) RETURNS smallint
	AS 'MODULE_PATHNAME', 'sagaz_lane' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION sagaz_internal.lane(text) IS
	'the lane of a saga: the unit of ordering and of claim concurrency';

CREATE FUNCTION sagaz_internal.next_seq() RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_next_seq' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz_internal.next_seq() IS
	'the next place in the outbox log; takes the transaction''s xid first, which every claim relies on';

CREATE SEQUENCE sagaz.outbox_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE sagaz.outbox_seq IS
	'order of the outbox log; drawn by sagaz_internal.next_seq() alone';

CREATE SEQUENCE sagaz.batch_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE sagaz.batch_seq IS
	'numbers batches; a batch_id is 1024 times such a number plus the number of its consumer group';

-- Only inserted into and, by retention, deleted from.
CREATE TABLE sagaz.outbox (
	pos xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
	seq bigint NOT NULL DEFAULT sagaz_internal.next_seq(),
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	event_id uuid NOT NULL DEFAULT sagaz.uuidv7(),
	lane smallint NOT NULL GENERATED ALWAYS AS (sagaz_internal.lane(saga_id)) STORED,
	saga_id text NOT NULL,
	aggregate_type text NOT NULL DEFAULT 'saga',
	aggregate_id text,
	event_type text NOT NULL,
	payload jsonb NOT NULL,
	headers jsonb NOT NULL DEFAULT '{}',
	routing_key text,
	partition_key text,
	available_at timestamptz
);
CREATE INDEX outbox_lane_seq ON sagaz.outbox (lane, seq) WITH (deduplicate_items = off);
CREATE INDEX outbox_pos_seq ON sagaz.outbox (pos, seq) WITH (deduplicate_items = off);
CREATE UNIQUE INDEX outbox_event_id ON sagaz.outbox (event_id);
-- A btree on saga_id would cost a tenth of the insert rate and more.  This one
-- costs nothing while the log grows; vacuum summarizes what was added.
CREATE INDEX outbox_saga ON sagaz.outbox USING brin
	(saga_id pg_catalog.text_bloom_ops (n_distinct_per_range = 128, false_positive_rate = 0.02))
	WITH (pages_per_range = 2);
ALTER TABLE sagaz.outbox SET (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_vacuum_insert_threshold = 20000);
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
	owed bytea NOT NULL,
	stream_ms bigint,
	stream_places bytea
);
CREATE UNIQUE INDEX outbox_batch_key ON sagaz.outbox_batch (group_no, lane, batch_id);
CREATE INDEX outbox_batch_root ON sagaz.outbox_batch (root) WHERE root IS NOT NULL;
CREATE INDEX outbox_batch_stream ON sagaz.outbox_batch (group_no, stream_ms) WHERE stream_ms IS NOT NULL;
COMMENT ON TABLE sagaz.outbox_batch IS
	'one row a claim and lane, never updated. The newest row of a group and lane is the group''s cursor there: ends holds the two ends of the window being read, last_seq the last place handed out in it, owed what is out or still to be handed out again. A row with a root hands the events of that earlier row out again. One of an ordered delivery to a stream has the ids of its entries: the event at the i-th of stream_places, counted from 0, is entry stream_ms-i';

-- Only inserted into and, by retention, deleted from.
CREATE TABLE sagaz.outbox_receipt (
	batch_id bigint NOT NULL,
	at timestamptz NOT NULL,
	until timestamptz,
	events integer NOT NULL,
	kind smallint NOT NULL,
	note text,
	seqs bigint[]
);
CREATE UNIQUE INDEX outbox_receipt_closing ON sagaz.outbox_receipt (batch_id) WHERE kind <= 3;
CREATE INDEX outbox_receipt_other ON sagaz.outbox_receipt (batch_id) WHERE kind > 3;
COMMENT ON TABLE sagaz.outbox_receipt IS
	'what became of a batch, never updated. One receipt closes it, kind 1 sent, 2 released (not to be handed out again before until; note is the error), 3 taken over (note is the new worker, events are those that were still owed). Others may come before: kind 4 extended (the lease lasts to until), 5 sent and 6 moved to outbox_retry, for the events at seqs alone';

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
	batch_limit integer,
	PRIMARY KEY (group_no, seq)
) WITH (fillfactor = 80);
CREATE INDEX outbox_retry_due ON sagaz.outbox_retry (group_no, lane, next_attempt_at, seq) WHERE state IN (1, 6);
CREATE INDEX outbox_retry_batch ON sagaz.outbox_retry (batch_id) WHERE state = 3;
CREATE INDEX outbox_retry_saga ON sagaz.outbox_retry (group_no, saga_id, seq) WHERE state IN (1, 2, 3);
CREATE INDEX outbox_retry_dead ON sagaz.outbox_retry (group_no, failed_at) WHERE state = 4;
CREATE INDEX outbox_retry_event ON sagaz.outbox_retry (event_id);
COMMENT ON TABLE sagaz.outbox_retry IS
	'events that left the straight path in one consumer group. state: 1 waiting for next_attempt_at (failed if it has failed_at, else pending), 2 held back behind an earlier event of its saga, 3 handed out in batch_id, 4 dead letter, 5 sent, 6 scheduled for next_attempt_at. batch_limit: the worker of its last batch was lost, the next has no more events than that';

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
	activated_at timestamptz,
	written_by xid NOT NULL
);
COMMENT ON TABLE sagaz.cluster IS
	'the clusters in which the log was written. Places above boundary_seq belong to the epoch; claims work only where an activated row of the newest epoch names this database. written_by is the xmin of the row where it was first written, so that a restored row can be told';

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

CREATE FUNCTION sagaz_internal.is_event(event_type text, aggregate_type text,
		headers jsonb, available_at timestamptz, created_at timestamptz, saga_id text,
		aggregate_id text, routing_key text, partition_key text, payload jsonb)
	RETURNS boolean
	AS 'MODULE_PATHNAME', 'sagaz_is_event' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION sagaz_internal.is_event(text, text, jsonb, timestamptz, timestamptz, text, text, text, text, jsonb) IS
	'the check of view sagaz.emit: true, or an error that names the field';

-- The check is the view's and not the table's, since a CHECK constraint is
-- parsed anew in every statement: 9 % of a single INSERT.
CREATE VIEW sagaz.emit AS
	SELECT event_id, saga_id, aggregate_type, aggregate_id, event_type,
		payload, headers, routing_key, partition_key, available_at, created_at
	FROM sagaz.outbox
	WHERE sagaz_internal.is_event(event_type, aggregate_type, headers, available_at,
		created_at, saga_id, aggregate_id, routing_key, partition_key, payload)
	WITH CHECK OPTION;
COMMENT ON VIEW sagaz.emit IS
	'insert here to emit an event; what is left out gets its default';

---------------------------------------------------------------------------
-- Outbox: claim, finish, release
---------------------------------------------------------------------------

CREATE FUNCTION sagaz.claim_batch(worker_id text, batch_size integer DEFAULT 100,
		older_than interval DEFAULT '0', consumer_group text DEFAULT NULL,
		storage text DEFAULT NULL)
	RETURNS SETOF sagaz.outbox_event
	AS 'MODULE_PATHNAME', 'sagaz_any_claim_batch' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION sagaz.claim_batch(text, integer, interval, text, text) IS
	'hand up to batch_size events out to a worker, who finishes or releases the batch before sagaz.claim_timeout';

CREATE FUNCTION sagaz.finish_batch(batch_id bigint, worker_id text,
		storage text DEFAULT NULL)
	RETURNS integer
	AS 'MODULE_PATHNAME', 'sagaz_any_finish_batch' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.finish_batch(bigint, text, text) IS
	'say that all events the batch still owes were sent; returns how many';

CREATE FUNCTION sagaz.release_batch(batch_id bigint, worker_id text,
		error text DEFAULT NULL, delay interval DEFAULT '0',
		storage text DEFAULT NULL)
	RETURNS integer
	AS 'MODULE_PATHNAME', 'sagaz_any_release_batch' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.release_batch(bigint, text, text, interval, text) IS
	'give back what the batch still owes, to be handed out again after the delay; returns how many events';

CREATE FUNCTION sagaz.extend_batch(batch_id bigint, worker_id text,
		by interval, storage text DEFAULT NULL)
	RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'sagaz_any_extend_batch' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.extend_batch(bigint, text, interval, text) IS
	'keep the batch for so long from now on; returns when the lease runs out';

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
		consumer_group text DEFAULT NULL, storage text DEFAULT NULL)
	RETURNS integer
	AS 'MODULE_PATHNAME', 'sagaz_any_mark_sent' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.mark_sent(uuid[], text, text, text) IS
	'say of single events of the worker''s batches that they were sent; returns how many';

CREATE FUNCTION sagaz.mark_failed(event_ids uuid[], worker_id text, error text,
		consumer_group text DEFAULT NULL, storage text DEFAULT NULL)
	RETURNS integer
	AS 'MODULE_PATHNAME', 'sagaz_any_mark_failed' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.mark_failed(uuid[], text, text, text, text) IS
	'say of single events of the worker''s batches that they failed: they are tried again later, or after sagaz.max_retries retries become dead letters; returns how many';

---------------------------------------------------------------------------
-- Outbox: retention
---------------------------------------------------------------------------

CREATE FUNCTION sagaz.archive_sent_events(older_than interval DEFAULT '7 days',
		max_rows integer DEFAULT NULL, keep boolean DEFAULT true,
		storage text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_any_archive_sent_events' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.archive_sent_events(interval, integer, boolean, text) IS
	'take the events out of the log that every consumer group finished longer ago, into sagaz.outbox_archive unless keep is false; returns how many';

---------------------------------------------------------------------------
-- Adopting the tables of the Python library
---------------------------------------------------------------------------

-- The pieces of adopt() pass the rows of a table on as the text of a query
-- that has, beside the columns, each row's id and what is wrong with it, if
-- anything is (reason).  They run as the caller, whose right to the source it
-- is, and stay with the extension's owner.

CREATE FUNCTION sagaz_internal.adopt_batch(events integer[], claimed_at timestamptz)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_adopt_batch' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz_internal.adopt_batch(integer[], timestamptz) IS
	'part of adopt(): make the default group, and in it a batch of nobody with so many retries in each lane';

CREATE FUNCTION sagaz_internal.adopt_trust(schema text, tables text[])
	RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_adopt_trust' LANGUAGE C VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION sagaz_internal.adopt_trust(text, text[]) IS
	'part of adopt(): refuse tables that could run somebody else''s code';

CREATE FUNCTION sagaz_internal.adopt_text_problem(field text, value text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN value IS NULL THEN field || ' is null'
		WHEN value = '' THEN field || ' is empty' END;
COMMENT ON FUNCTION sagaz_internal.adopt_text_problem(text, text) IS
	'part of adopt(): complain of a text that is missing';

CREATE FUNCTION sagaz_internal.adopt_word_problem(field text, value text, words text[])
	RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	RETURN CASE WHEN value IS NULL THEN field || ' is null'
		WHEN value <> ALL (words)
		THEN pg_catalog.format('%s %L is unknown', field, value) END;
COMMENT ON FUNCTION sagaz_internal.adopt_word_problem(text, text, text[]) IS
	'part of adopt(): complain of a status that is none';

CREATE FUNCTION sagaz_internal.adopt_time_problem(field text, value timestamptz)
	RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN value < timestamptz '0001-01-01 00:00:00+00'
		OR value >= timestamptz '10000-01-01 00:00:00+00'
		THEN field || ' is not in the years 1 to 9999' END;
COMMENT ON FUNCTION sagaz_internal.adopt_time_problem(text, timestamptz) IS
	'part of adopt(): complain of a time that ISO 8601 cannot spell';

CREATE FUNCTION sagaz_internal.adopt_count_problem(field text, value bigint)
	RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN value < 0 THEN field || ' is negative' END;
COMMENT ON FUNCTION sagaz_internal.adopt_count_problem(text, bigint) IS
	'part of adopt(): complain of a count below 0';

CREATE FUNCTION sagaz_internal.adopt_open(schema text, table_name text, columns text[])
	RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	source regclass := to_regclass(format('%I.%I', schema, table_name));
	missing text;
BEGIN
	IF source IS NULL THEN
		RETURN false;
	END IF;
	EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', source);
	SELECT string_agg(quote_ident(name), ', ') INTO missing
		FROM unnest(columns) AS name
		WHERE NOT EXISTS (SELECT FROM pg_attribute
			WHERE attrelid = source AND attname = name
				AND attnum > 0 AND NOT attisdropped);
	IF missing IS NOT NULL THEN
		RAISE SQLSTATE 'SZ009' USING
			MESSAGE = format('table %s is not the Python library''s', source),
			DETAIL = format('It has no column %s.', missing);
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION sagaz_internal.adopt_open(text, text, text[]) IS
	'part of adopt(): keep writers out of a table and check its columns; false if there is none';

CREATE FUNCTION sagaz_internal.adopt_result(rows text, INOUT table_name text,
		INOUT adopted bigint, OUT present bigint, OUT refused bigint,
		OUT problems jsonb)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	EXECUTE format('SELECT count(*) - count(reason) - $1, count(reason) FROM (%s) AS r', rows)
		INTO present, refused USING adopted;
	IF refused > 0 THEN
		EXECUTE format('SELECT jsonb_agg(jsonb_build_object(''id'', id, ''reason'', reason))
			FROM (SELECT id, reason FROM (%s) AS r
				WHERE reason IS NOT NULL ORDER BY id COLLATE "C" LIMIT 1000) AS p', rows)
			INTO problems;
	END IF;
	problems := coalesce(problems, '[]');
END
$$;
COMMENT ON FUNCTION sagaz_internal.adopt_result(text, text, bigint) IS
	'part of adopt(): count the rows of a table that are there already and those that are refused';

CREATE FUNCTION sagaz_internal.adopt_sagas(schema text)
	RETURNS TABLE (table_name text, adopted bigint, present bigint,
		refused bigint, problems jsonb)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	steps text := format($q$
		SELECT coalesce(saga_id || ' / ' || step_name, 'step ' || id) AS id,
			id AS place, saga_id::text, step_name::text, status::text,
			result::jsonb, error, executed_at, compensated_at, retry_count,
			coalesce(
				sagaz_internal.adopt_text_problem('saga_id', saga_id),
				sagaz_internal.adopt_text_problem('step_name', step_name),
				sagaz_internal.adopt_word_problem('status', status::text,
					enum_range(NULL::sagaz.step_status)::text[]),
				sagaz_internal.adopt_count_problem('retry_count', retry_count),
				sagaz_internal.adopt_time_problem('executed_at', executed_at),
				sagaz_internal.adopt_time_problem('compensated_at', compensated_at)) AS reason
		FROM %I.saga_steps$q$, schema);
	sagas text := format($q$
		SELECT s.saga_id::text AS id, saga_name::text, status::text,
			coalesce(context::jsonb, '{}') AS context,
			metadata::jsonb, created_at, updated_at,
			coalesce(
				sagaz_internal.adopt_text_problem('saga_id', s.saga_id),
				sagaz_internal.adopt_text_problem('saga_name', saga_name),
				sagaz_internal.adopt_word_problem('status', status::text,
					enum_range(NULL::sagaz.saga_status)::text[]),
				sagaz_internal.adopt_time_problem('created_at', created_at),
				sagaz_internal.adopt_time_problem('updated_at', updated_at),
				b.reason) AS reason
		FROM %I.sagas AS s LEFT JOIN
			(SELECT saga_id, min(format('step %%L: %%s', step_name, reason)) AS reason
				FROM (%s) AS t WHERE reason IS NOT NULL GROUP BY saga_id) AS b
			ON b.saga_id = s.saga_id::text$q$, schema, steps);
	step_verdicts text := format($q$
		SELECT t.id, coalesce(t.reason,
				CASE WHEN s.id IS NULL
					THEN format('saga %%L does not exist', t.saga_id)
					WHEN s.reason IS NOT NULL
					THEN format('saga %%L is refused', t.saga_id) END) AS reason
		FROM (%s) AS t LEFT JOIN (%s) AS s ON s.id = t.saga_id$q$, steps, sagas);
	sagas_adopted bigint;
	steps_adopted bigint;
BEGIN
	EXECUTE format($q$
		WITH adopted AS (
			INSERT INTO sagaz.sagas (saga_id, saga_name, status, context,
					metadata, created_at, updated_at)
				SELECT id, saga_name, status::sagaz.saga_status, context,
					metadata, coalesce(created_at, updated_at, 'epoch'),
					coalesce(updated_at, created_at, 'epoch')
				FROM (%s) AS s WHERE reason IS NULL
				ON CONFLICT (saga_id) DO NOTHING RETURNING saga_id),
		adopted_step AS (
			INSERT INTO sagaz.saga_steps (saga_id, step_name, ordinal, status,
					result, error, executed_at, compensated_at, retry_count)
				SELECT saga_id, step_name,
					row_number() OVER (PARTITION BY saga_id ORDER BY place),
					status::sagaz.step_status, result, error, executed_at,
					compensated_at, coalesce(retry_count, 0)
				FROM (%s) AS t JOIN adopted USING (saga_id) RETURNING 1)
		SELECT (SELECT count(*) FROM adopted),
			(SELECT count(*) FROM adopted_step)$q$, sagas, steps)
		INTO sagas_adopted, steps_adopted;
	RETURN QUERY SELECT * FROM sagaz_internal.adopt_result(sagas, 'sagas', sagas_adopted);
	RETURN QUERY SELECT * FROM sagaz_internal.adopt_result(step_verdicts, 'saga_steps', steps_adopted);
END
$$;
COMMENT ON FUNCTION sagaz_internal.adopt_sagas(text) IS
	'part of adopt(): the sagas and their steps';

CREATE FUNCTION sagaz_internal.adopt_event_rows(schema text, table_name text,
		problem text)
	RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	keys text;
BEGIN
	-- the library's tables have neither key, unless somebody added them
	SELECT string_agg(format('%s AS %I',
			CASE WHEN attname IS NULL THEN 'NULL::text'
				ELSE quote_ident(name) || '::text' END, name), ', ')
		INTO keys
		FROM unnest(ARRAY['routing_key', 'partition_key']) AS name
		LEFT JOIN pg_attribute ON attname = name AND NOT attisdropped
			AND attrelid = format('%I.%I', schema, table_name)::regclass;
	RETURN format($q$
		SELECT event_id::text AS id, event_id::uuid, saga_id::text,
			aggregate_type::text, aggregate_id::text, event_type::text,
			payload::jsonb, headers::jsonb, status::text, created_at,
			claimed_at, sent_at, retry_count, last_error, worker_id::text, %s,
			coalesce(
				CASE WHEN event_id IS NULL THEN 'event_id is null' END,
				sagaz_internal.adopt_text_problem('saga_id', saga_id),
				CASE WHEN aggregate_type IS NULL THEN 'aggregate_type is null' END,
				sagaz_internal.adopt_text_problem('event_type', event_type),
				CASE WHEN payload IS NULL THEN 'payload is null' END,
				CASE WHEN headers IS NULL OR jsonb_typeof(headers::jsonb) <> 'object'
					THEN 'headers is not an object' END,
				sagaz_internal.adopt_word_problem('status', status::text,
					enum_range(NULL::sagaz.event_status)::text[]),
				CASE WHEN created_at IS NULL THEN 'created_at is null' END,
				sagaz_internal.adopt_count_problem('retry_count', retry_count),
				sagaz_internal.adopt_time_problem('created_at', created_at),
				sagaz_internal.adopt_time_problem('claimed_at', claimed_at),
				sagaz_internal.adopt_time_problem('sent_at', sent_at),
				%s) AS reason
		FROM %I.%I AS e$q$, keys, problem, schema, table_name);
END
$$;
COMMENT ON FUNCTION sagaz_internal.adopt_event_rows(text, text, text) IS
	'part of adopt(): the query for the rows of a table of events, with one more complaint';

CREATE FUNCTION sagaz_internal.adopt_finished(rows text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	adopted bigint;
BEGIN
	EXECUTE format($q$
		INSERT INTO sagaz.outbox_archive (event_id, saga_id, aggregate_type,
				aggregate_id, event_type, payload, headers, status, created_at,
				claimed_at, sent_at, retry_count, last_error, worker_id,
				routing_key, partition_key)
			SELECT event_id, saga_id, aggregate_type,
				coalesce(aggregate_id, saga_id), event_type, payload, headers,
				status::sagaz.event_status, created_at, claimed_at, sent_at,
				coalesce(retry_count, 0), last_error, worker_id, routing_key,
				partition_key
			FROM (%s) AS e
			WHERE NOT EXISTS (SELECT FROM sagaz.outbox AS o
				WHERE o.event_id = e.event_id)
			ON CONFLICT (event_id) DO NOTHING$q$, rows);
	GET DIAGNOSTICS adopted = ROW_COUNT;
	RETURN adopted;
END
$$;
COMMENT ON FUNCTION sagaz_internal.adopt_finished(text) IS
	'part of adopt(): put events into the archive as they are';

CREATE FUNCTION sagaz_internal.adopt_unfinished(rows text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	fresh text := format($q$
		SELECT e.*, status = 'pending' AND coalesce(retry_count, 0) = 0
				AND last_error IS NULL AND worker_id IS NULL
				AND claimed_at IS NULL AND sent_at IS NULL AS plain
			FROM (%s) AS e
			WHERE NOT EXISTS (SELECT FROM sagaz.outbox AS o
					WHERE o.event_id = e.event_id)
				AND NOT EXISTS (SELECT FROM sagaz.outbox_archive AS a
					WHERE a.event_id = e.event_id)$q$, rows);
	batch bigint;
	adopted bigint;
BEGIN
	EXECUTE format($q$
		SELECT sagaz_internal.adopt_batch(ARRAY[
				count(*) FILTER (WHERE lane = 0), count(*) FILTER (WHERE lane = 1),
				count(*) FILTER (WHERE lane = 2), count(*) FILTER (WHERE lane = 3)
			]::integer[], max(claimed_at))
			FROM (SELECT sagaz_internal.lane(saga_id) AS lane, claimed_at
				FROM (%s) AS f WHERE status = 'claimed') AS c$q$, fresh)
		INTO batch;
	EXECUTE format($q$
		WITH logged AS (
			INSERT INTO sagaz.outbox (pos, created_at, event_id, saga_id,
					aggregate_type, aggregate_id, event_type, payload, headers,
					routing_key, partition_key)
				SELECT CASE WHEN plain THEN pg_current_xact_id() ELSE '2' END,
					created_at, event_id, saga_id, aggregate_type,
					nullif(aggregate_id, saga_id), event_type, payload, headers,
					routing_key, partition_key
				FROM (%1$s) AS f ORDER BY plain, created_at, event_id
				RETURNING event_id, lane, seq, pos),
		kept AS (
			INSERT INTO sagaz.outbox_retry (group_no, lane, seq, state,
					retry_count, next_attempt_at, batch_id, claimed_at, sent_at,
					failed_at, event_id, saga_id, event_type, worker_id,
					last_error)
				SELECT group_no, lane, seq,
					CASE status WHEN 'claimed' THEN 3 WHEN 'dead_letter' THEN 4
						ELSE 1 END,
					coalesce(retry_count, 0),
					CASE WHEN status IN ('pending', 'failed') THEN now() END,
					CASE status WHEN 'claimed' THEN $1 END,
					claimed_at, sent_at,
					CASE WHEN status IN ('failed', 'dead_letter')
						THEN coalesce(claimed_at, created_at) END,
					event_id, saga_id, event_type, worker_id, last_error
				FROM (%1$s) AS f JOIN logged USING (event_id),
					(SELECT group_no FROM sagaz.consumer_group
						WHERE consumer_group = 'sagaz-workers') AS g
				WHERE NOT plain)
		SELECT count(*) FROM logged$q$, fresh)
		INTO adopted USING batch;
	RETURN adopted;
END
$$;
COMMENT ON FUNCTION sagaz_internal.adopt_unfinished(text) IS
	'part of adopt(): put events into the log, and into the retries of the default group what is not plain pending';

CREATE FUNCTION sagaz_internal.adopt_events(schema text, has_outbox boolean,
		has_archive boolean)
	RETURNS TABLE (table_name text, adopted bigint, present bigint,
		refused bigint, problems jsonb)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	rows text;
	fine text;
	in_archive text := 'NULL';
BEGIN
	IF has_archive THEN
		rows := sagaz_internal.adopt_event_rows(schema, 'saga_outbox_archive', 'NULL');
		RETURN QUERY SELECT * FROM sagaz_internal.adopt_result(rows, 'saga_outbox_archive',
			sagaz_internal.adopt_finished(format('SELECT * FROM (%s) AS r WHERE reason IS NULL', rows)));
		in_archive := format($q$
			CASE WHEN event_id IN (SELECT a.event_id FROM %I.saga_outbox_archive AS a)
				THEN 'an archived event has this event_id' END$q$, schema);
	END IF;
	IF has_outbox THEN
		rows := sagaz_internal.adopt_event_rows(schema, 'saga_outbox', in_archive);
		fine := format('SELECT * FROM (%s) AS r WHERE reason IS NULL', rows);
		RETURN QUERY SELECT * FROM sagaz_internal.adopt_result(rows, 'saga_outbox',
			sagaz_internal.adopt_finished(fine || ' AND status = ''sent''')
			+ sagaz_internal.adopt_unfinished(fine || ' AND status <> ''sent'''));
	END IF;
END
$$;
COMMENT ON FUNCTION sagaz_internal.adopt_events(text, boolean, boolean) IS
	'part of adopt(): the events and the archived events';

CREATE FUNCTION sagaz_internal.adopt_inbox(schema text)
	RETURNS TABLE (table_name text, adopted bigint, present bigint,
		refused bigint, problems jsonb)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	rows text := format($q$
		SELECT event_id::text || ' / ' || consumer_name AS id,
			event_id::text, consumer_name::text, source_topic::text,
			event_type::text, payload::jsonb, consumed_at, processing_duration_ms,
			coalesce(
				sagaz_internal.adopt_text_problem('event_id', event_id::text),
				sagaz_internal.adopt_text_problem('consumer_name', consumer_name),
				CASE WHEN source_topic IS NULL THEN 'source_topic is null'
					WHEN event_type IS NULL THEN 'event_type is null'
					WHEN payload IS NULL THEN 'payload is null'
					WHEN consumed_at IS NULL THEN 'consumed_at is null' END,
				sagaz_internal.adopt_time_problem('consumed_at', consumed_at)) AS reason
		FROM %I.consumer_inbox$q$, schema);
	inserted bigint;
BEGIN
	EXECUTE format($q$
		INSERT INTO sagaz.consumer_inbox (consumer_name, event_id, source_topic,
				event_type, payload, consumed_at, processing_duration_ms)
			SELECT consumer_name, event_id, source_topic, event_type, payload,
				consumed_at, processing_duration_ms
			FROM (%s) AS r WHERE reason IS NULL
			ON CONFLICT (consumer_name, event_id) DO NOTHING$q$, rows);
	GET DIAGNOSTICS inserted = ROW_COUNT;
	RETURN QUERY SELECT * FROM sagaz_internal.adopt_result(rows, 'consumer_inbox', inserted);
END
$$;
COMMENT ON FUNCTION sagaz_internal.adopt_inbox(text) IS
	'part of adopt(): the events that consumers have seen';

CREATE FUNCTION sagaz.adopt(schema text)
	RETURNS TABLE (table_name text, adopted bigint, present bigint,
		refused bigint, problems jsonb)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	event_columns text[] := ARRAY['event_id', 'saga_id', 'aggregate_type',
		'aggregate_id', 'event_type', 'payload', 'headers', 'status',
		'created_at', 'claimed_at', 'sent_at', 'retry_count', 'last_error',
		'worker_id'];
	has_sagas boolean;
	has_steps boolean;
	has_outbox boolean;
	has_archive boolean;
	has_inbox boolean;
BEGIN
	IF to_regnamespace(quote_ident(schema)) IS NULL OR schema IN ('sagaz', 'sagaz_internal') THEN
		RAISE SQLSTATE 'SZ009' USING
			MESSAGE = 'schema must be one that holds tables of the Python library',
			DETAIL = format('There is no such schema %s.', coalesce(quote_ident(schema), 'NULL'));
	END IF;
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE SQLSTATE 'SZ005' USING
			MESSAGE = 'adopt() works in READ COMMITTED transactions only',
			HINT = 'Begin the transaction with ISOLATION LEVEL READ COMMITTED.';
	END IF;
	has_sagas := sagaz_internal.adopt_open(schema, 'sagas', ARRAY['saga_id', 'saga_name',
		'status', 'context', 'metadata', 'created_at', 'updated_at']);
	has_steps := sagaz_internal.adopt_open(schema, 'saga_steps', ARRAY['id', 'saga_id',
		'step_name', 'status', 'result', 'error', 'executed_at',
		'compensated_at', 'retry_count']);
	has_outbox := sagaz_internal.adopt_open(schema, 'saga_outbox', event_columns);
	has_archive := sagaz_internal.adopt_open(schema, 'saga_outbox_archive', event_columns);
	has_inbox := sagaz_internal.adopt_open(schema, 'consumer_inbox', ARRAY['event_id',
		'consumer_name', 'source_topic', 'event_type', 'payload', 'consumed_at',
		'processing_duration_ms']);
	-- as they are now that they are locked
	PERFORM sagaz_internal.adopt_trust(schema, ARRAY['sagas', 'saga_steps', 'saga_outbox',
		'saga_outbox_archive', 'consumer_inbox']);
	IF has_sagas <> has_steps
		OR NOT (has_sagas OR has_outbox OR has_archive OR has_inbox) THEN
		RAISE SQLSTATE 'SZ009' USING
			MESSAGE = format('schema %I does not hold the tables of the Python library', schema),
			DETAIL = 'Those are sagas and saga_steps, saga_outbox, saga_outbox_archive, and consumer_inbox.';
	END IF;

	-- a claim cannot tell when the retries made here were committed
	IF current_setting('synchronous_commit') = 'off' THEN
		PERFORM set_config('synchronous_commit', 'on', true);
	END IF;
	IF has_sagas THEN
		RETURN QUERY SELECT * FROM sagaz_internal.adopt_sagas(schema);
	END IF;
	RETURN QUERY SELECT * FROM sagaz_internal.adopt_events(schema, has_outbox, has_archive);
	IF has_inbox THEN
		RETURN QUERY SELECT * FROM sagaz_internal.adopt_inbox(schema);
	END IF;
END
$$;
COMMENT ON FUNCTION sagaz.adopt(text) IS
	'take over the tables that the Python library made in a schema of this database; what is there already stays as it is';

---------------------------------------------------------------------------
-- Consumer groups
---------------------------------------------------------------------------

CREATE FUNCTION sagaz.create_consumer_group(name text,
		"ordering" text DEFAULT 'none', start_from text DEFAULT 'beginning')
	RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_create_consumer_group' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.create_consumer_group(text, text, text) IS
	'make an independent reader of the log, from the beginning, from now on, or of events created since a time';

CREATE FUNCTION sagaz.drop_consumer_group(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_drop_consumer_group' LANGUAGE C VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION sagaz.drop_consumer_group(text) IS
	'remove a consumer group with its progress, retries and dead letters; refused while a batch of it is in the hands of a worker';

CREATE FUNCTION sagaz.pause_consumer_group(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_pause_consumer_group' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.pause_consumer_group(text) IS
	'let claims of the group return nothing until it is resumed; batches that are out can be finished';

CREATE FUNCTION sagaz.resume_consumer_group(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_resume_consumer_group' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.resume_consumer_group(text) IS
	'let claims of a paused group go on where they stopped';

---------------------------------------------------------------------------
-- Outbox: asking about events
---------------------------------------------------------------------------

CREATE INDEX outbox_archive_unsent ON sagaz.outbox_archive (status)
	WHERE status <> 'sent';

CREATE FUNCTION sagaz_internal.events_fdw() RETURNS fdw_handler
	AS 'MODULE_PATHNAME', 'sagaz_events_fdw' LANGUAGE C STRICT;
COMMENT ON FUNCTION sagaz_internal.events_fdw() IS
	'finds events by id, saga or status for the view outbox_events';

CREATE FOREIGN DATA WRAPPER sagaz_events HANDLER sagaz_internal.events_fdw;
COMMENT ON FOREIGN DATA WRAPPER sagaz_events IS
	'events of the native outbox with their state';

CREATE SERVER sagaz_events FOREIGN DATA WRAPPER sagaz_events;
COMMENT ON SERVER sagaz_events IS 'the native outbox of this database';

CREATE FOREIGN TABLE sagaz.event_state (
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
	partition_key text
) SERVER sagaz_events;
COMMENT ON FOREIGN TABLE sagaz.event_state IS
	'what the view outbox_events shows. A status is nowhere stored but derived from batches, receipts and retries; a condition on event_id, saga_id or status decides how the events are found, so that none of them reads the whole log';

CREATE VIEW sagaz.outbox_events AS
	SELECT event_id, saga_id, aggregate_type, aggregate_id, event_type,
		payload, headers, status, created_at, claimed_at, sent_at,
		retry_count, last_error, worker_id, routing_key, partition_key
	FROM sagaz.event_state;
COMMENT ON VIEW sagaz.outbox_events IS
	'all events, in the log and in the archive, with their state in the consumer group sagaz-workers; fast for one event_id, one saga_id and for a status with LIMIT';

CREATE FUNCTION sagaz.get_event(event_id uuid,
		consumer_group text DEFAULT NULL, storage text DEFAULT NULL)
	RETURNS SETOF sagaz.outbox_event
	AS 'MODULE_PATHNAME', 'sagaz_any_get_event' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 1;
COMMENT ON FUNCTION sagaz.get_event(uuid, text, text) IS
	'an event with its state in the group; no row if there is no such event or it is none of the group''s';

CREATE FUNCTION sagaz.get_events_by_saga(saga_id text,
		consumer_group text DEFAULT NULL, storage text DEFAULT NULL)
	RETURNS SETOF sagaz.outbox_event
	AS 'MODULE_PATHNAME', 'sagaz_any_get_events_by_saga' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION sagaz.get_events_by_saga(text, text, text) IS
	'the events of a saga with their state in the group, in the order of the log, archived ones first';

CREATE FUNCTION sagaz.get_stuck_events(claimed_older_than interval DEFAULT '5 min',
		consumer_group text DEFAULT NULL, storage text DEFAULT NULL)
	RETURNS SETOF sagaz.outbox_event
	AS 'MODULE_PATHNAME', 'sagaz_any_get_stuck_events' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION sagaz.get_stuck_events(interval, text, text) IS
	'events that were claimed at least so long ago and are neither finished nor released';

CREATE FUNCTION sagaz.get_pending_count(
		consumer_group text DEFAULT NULL, storage text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_any_get_pending_count' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION sagaz.get_pending_count(text, text) IS
	'how many events wait for the group: not yet handed out, released, scheduled or held back; takes as long as there are such events';

CREATE FUNCTION sagaz.get_dead_letter_events(max_rows integer DEFAULT 100,
		consumer_group text DEFAULT NULL, storage text DEFAULT NULL)
	RETURNS SETOF sagaz.outbox_event
	AS 'MODULE_PATHNAME', 'sagaz_any_get_dead_letter_events' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION sagaz.get_dead_letter_events(integer, text, text) IS
	'the group''s dead letters, the longest dead first';

CREATE FUNCTION sagaz.get_outbox_statistics(
		consumer_group text DEFAULT NULL, storage text DEFAULT NULL,
		OUT "group" text, OUT total bigint, OUT pending bigint,
		OUT claimed bigint, OUT sent bigint, OUT failed bigint,
		OUT dead_letter bigint, OUT archived bigint,
		OUT oldest_pending interval, OUT open_batches bigint,
		OUT paused boolean, OUT estimated boolean)
	AS 'MODULE_PATHNAME', 'sagaz_any_get_outbox_statistics' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION sagaz.get_outbox_statistics(text, text) IS
	'how many events of the log stand where for the group, how long the oldest pending one waits, and how many events are archived; estimated says that log or archive are larger than 1 GB, so that total, sent and archived rest on the tables'' statistics';

CREATE FUNCTION sagaz.explain_event(event_id uuid)
	RETURNS TABLE (consumer_group text, status sagaz.event_status, reason text,
		next_attempt_at timestamptz, batch_id bigint, worker_id text,
		claimed_at timestamptz, sent_at timestamptz, retry_count integer,
		last_error text)
	AS 'MODULE_PATHNAME', 'sagaz_explain_event' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 1;
COMMENT ON FUNCTION sagaz.explain_event(uuid) IS
	'where an event stands for each consumer group, and in plain words why it is not delivered yet';

CREATE FUNCTION sagaz.health_check(storage text DEFAULT NULL,
		OUT status text, OUT latency_ms double precision, OUT message text,
		OUT details jsonb)
	AS 'MODULE_PATHNAME', 'sagaz_any_health_check' LANGUAGE C STABLE PARALLEL RESTRICTED
	SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION sagaz.health_check(text) IS
	'healthy, degraded or unhealthy, with what is wrong in plain words and figures as JSON';

---------------------------------------------------------------------------
-- Operating the outbox
---------------------------------------------------------------------------

CREATE FUNCTION sagaz.requeue_dead_letters(event_ids uuid[] DEFAULT NULL,
		event_type text DEFAULT NULL, saga_id text DEFAULT NULL,
		max_rows integer DEFAULT NULL, spread interval DEFAULT '0',
		reason text DEFAULT NULL, consumer_group text DEFAULT NULL,
		storage text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_any_requeue_dead_letters' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.requeue_dead_letters(uuid[], text, text, integer, interval, text, text, text) IS
	'let dead letters be tried again, the longest dead first, spread evenly over an interval; returns how many';

CREATE FUNCTION sagaz.release_stuck_events(claimed_older_than interval DEFAULT '5 min',
		consumer_group text DEFAULT NULL, storage text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_any_release_stuck_events' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.release_stuck_events(interval, text, text) IS
	'end the leases of batches that were claimed longer ago and not extended; returns how many events can be claimed again';

CREATE FUNCTION sagaz_internal.change_event_status(event_id uuid, status text,
		error text, consumer_group text, storage text)
	RETURNS SETOF sagaz.outbox_event
	ROWS 1
	AS 'MODULE_PATHNAME', 'sagaz_any_change_event_status' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz_internal.change_event_status(uuid, text, text, text, text) IS
	'part of update_event_status()';

CREATE FUNCTION sagaz.update_event_status(event_id uuid, status text,
		error text DEFAULT NULL, consumer_group text DEFAULT NULL,
		storage text DEFAULT NULL)
	RETURNS sagaz.outbox_event
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	BEGIN ATOMIC
		SELECT sagaz_internal.change_event_status(event_id, status, error,
			consumer_group, storage);
	END;
COMMENT ON FUNCTION sagaz.update_event_status(uuid, text, text, text, text) IS
	'say where an event stands: pending (try it now), sent, failed (try it again later) or dead_letter; returns the event as it is then';

---------------------------------------------------------------------------
-- Inbox
---------------------------------------------------------------------------

-- Where two sessions note the same event at once, the second waits for the
-- first; if that one rolls back, the second is the first.
CREATE FUNCTION sagaz.check_and_insert_inbox(event_id text, consumer_name text,
		source_topic text, event_type text, payload jsonb)
	RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	fields text[] := ARRAY[event_id, consumer_name, source_topic, event_type,
		CASE WHEN payload IS NOT NULL THEN 'given' END];
	names text[] := '{event_id, consumer_name, source_topic, event_type, payload}';
BEGIN
	FOR i IN 1 .. 5 LOOP
		IF fields[i] IS NULL OR fields[i] = '' THEN
			RAISE SQLSTATE 'SZ009' USING MESSAGE = format('%s must not be %s', names[i],
				CASE WHEN fields[i] IS NULL THEN 'null' ELSE 'empty' END);
		END IF;
		IF i < 5 AND octet_length(fields[i]) > 1300 THEN
			RAISE SQLSTATE 'SZ009' USING MESSAGE = format('%s is too long: it has %s bytes; the limit is 1300',
				names[i], octet_length(fields[i]));
		END IF;
	END LOOP;
	INSERT INTO sagaz.consumer_inbox
			(consumer_name, event_id, source_topic, event_type, payload)
		VALUES (consumer_name, event_id, source_topic, event_type, payload)
		ON CONFLICT ON CONSTRAINT consumer_inbox_pkey DO NOTHING;
	RETURN NOT FOUND;
END
$$;
COMMENT ON FUNCTION sagaz.check_and_insert_inbox(text, text, text, text, jsonb) IS
	'note that a consumer works on an event; true where it did so before';

CREATE FUNCTION sagaz.cleanup_inbox(older_than interval) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	removed bigint;
BEGIN
	IF older_than IS NULL OR older_than NOT BETWEEN '0' AND '10000 years' THEN
		RAISE SQLSTATE 'SZ009' USING MESSAGE = 'older_than must '
			|| CASE WHEN older_than IS NULL THEN 'not be null' ELSE 'be between 0 and 10000 years' END;
	END IF;
	-- months of 30 days and days of 24 hours, whatever the time zone
	DELETE FROM sagaz.consumer_inbox WHERE consumed_at
		< to_timestamp(EXTRACT(epoch FROM clock_timestamp()) - EXTRACT(epoch FROM LEAST(older_than, '6000 years')));
	GET DIAGNOSTICS removed = ROW_COUNT;
	RETURN removed;
END
$$;
COMMENT ON FUNCTION sagaz.cleanup_inbox(interval) IS
	'forget what consumers have seen longer ago; returns how many';

---------------------------------------------------------------------------
-- Waiting
---------------------------------------------------------------------------

CREATE PROCEDURE sagaz.wait_for_events(timeout interval,
		consumer_group text DEFAULT 'sagaz-workers',
		INOUT available boolean DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'sagaz_wait_for_events' LANGUAGE C;
COMMENT ON PROCEDURE sagaz.wait_for_events(interval, text, boolean) IS
	'sleep until the group has something to claim; available is false where the timeout came first';

---------------------------------------------------------------------------
-- Access
---------------------------------------------------------------------------

CREATE FUNCTION sagaz_internal.access_list()
	RETURNS TABLE (object text, privilege text, access text[])
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
	VALUES
		('save_saga_state', 'EXECUTE', '{producer}'::text[]),
		('load_saga_state', 'EXECUTE', '{producer, operator, auditor}'),
		('delete_saga_state', 'EXECUTE', '{producer, operator}'),
		('update_step_state', 'EXECUTE', '{producer}'),
		('insert_event', 'EXECUTE', '{producer}'),
		('insert_events', 'EXECUTE', '{producer}'),
		('emit', 'INSERT', '{producer}'),
		('emit', 'SELECT (event_id, created_at)', '{producer}'),
		-- what an INSERT into emit calls runs as the inserting user
		('is_event', 'EXECUTE', '{producer}'),
		('lane', 'EXECUTE', '{producer}'),
		('next_seq', 'EXECUTE', '{producer}'),
		('uuidv7', 'EXECUTE', '{producer}'),

		('claim_batch', 'EXECUTE', '{consumer}'),
		('finish_batch', 'EXECUTE', '{consumer}'),
		('release_batch', 'EXECUTE', '{consumer}'),
		('extend_batch', 'EXECUTE', '{consumer}'),
		('mark_sent', 'EXECUTE', '{consumer}'),
		('mark_failed', 'EXECUTE', '{consumer}'),
		('wait_for_events', 'EXECUTE', '{consumer}'),
		('check_and_insert_inbox', 'EXECUTE', '{consumer}'),
		('get_event', 'EXECUTE', '{consumer, operator, auditor}'),
		('get_events_by_saga', 'EXECUTE', '{consumer, operator, auditor}'),
		('get_pending_count', 'EXECUTE', '{consumer, operator, auditor, monitor}'),

		('update_event_status', 'EXECUTE', '{operator}'),
		('change_event_status', 'EXECUTE', '{operator}'),
		('requeue_dead_letters', 'EXECUTE', '{operator}'),
		('release_stuck_events', 'EXECUTE', '{operator}'),
		('create_consumer_group', 'EXECUTE', '{operator}'),
		('drop_consumer_group', 'EXECUTE', '{operator}'),
		('pause_consumer_group', 'EXECUTE', '{operator}'),
		('resume_consumer_group', 'EXECUTE', '{operator}'),
		('archive_sent_events', 'EXECUTE', '{operator}'),
		('cleanup_completed_sagas', 'EXECUTE', '{operator}'),
		('cleanup_inbox', 'EXECUTE', '{operator}'),
		('activate', 'EXECUTE', '{operator}'),
		('create_delivery', 'EXECUTE', '{operator}'),
		('create_storage', 'EXECUTE', '{operator}'),
		('create_outbox_storage', 'EXECUTE', '{operator}'),
		('drop_storage', 'EXECUTE', '{operator}'),
		('transfer', 'EXECUTE', '{operator}'),
		('migrate', 'EXECUTE', '{operator}'),
		('resume_transfer', 'EXECUTE', '{operator}'),
		('retry_transfer_errors', 'EXECUTE', '{operator}'),
		('cancel_transfer', 'EXECUTE', '{operator}'),
		('validate_transfer', 'EXECUTE', '{operator}'),
		('transfers', 'SELECT', '{operator, auditor, monitor}'),
		('transfer_error', 'SELECT', '{operator, auditor}'),
		-- what a SELECT from transfers calls runs as the selecting user
		('transfer_is_alive', 'EXECUTE', '{operator, auditor, monitor}'),
		('export_all', 'EXECUTE', '{operator, auditor}'),
		('import_record', 'EXECUTE', '{operator}'),
		('import_records', 'EXECUTE', '{operator}'),
		-- what a sagaz elsewhere calls by name, connected as this role
		('sagaz_internal', 'USAGE', '{operator}'),
		('export_page', 'EXECUTE', '{operator}'),
		('merge_records', 'EXECUTE', '{operator}'),
		('remove_records', 'EXECUTE', '{operator}'),
		('storage_refuse_unknown', 'EXECUTE', '{operator}'),
		('count_records', 'EXECUTE', '{operator, auditor, monitor}'),
		('checksum', 'EXECUTE', '{operator, auditor, monitor}'),
		('backends', 'EXECUTE', '{producer, consumer, operator, auditor, monitor}'),
		('storages', 'SELECT', '{producer, consumer, operator, auditor, monitor}'),
		('drop_delivery', 'EXECUTE', '{operator}'),
		('pause_delivery', 'EXECUTE', '{operator}'),
		('resume_delivery', 'EXECUTE', '{operator}'),

		('list_sagas', 'EXECUTE', '{operator, auditor, monitor}'),
		('stuck_sagas', 'EXECUTE', '{operator, auditor, monitor}'),
		('get_saga_statistics', 'EXECUTE', '{operator, auditor, monitor}'),
		('get_outbox_statistics', 'EXECUTE', '{operator, auditor, monitor}'),
		('get_stuck_events', 'EXECUTE', '{operator, auditor}'),
		('get_dead_letter_events', 'EXECUTE', '{operator, auditor}'),
		('explain_event', 'EXECUTE', '{operator, auditor, monitor}'),
		('new_events', 'EXECUTE', '{operator, auditor}'),
		('health_check', 'EXECUTE', '{operator, auditor, monitor}'),
		('outbox_events', 'SELECT (event_id, saga_id, aggregate_type, aggregate_id, event_type, status, created_at, claimed_at, sent_at, retry_count, worker_id)', '{monitor}'),
		('outbox_events', 'SELECT', '{operator, auditor}'),
		('outbox_debezium', 'SELECT', '{consumer, operator, auditor}'),
		('sagas', 'SELECT (saga_id, saga_name, status, version, created_at, updated_at)', '{monitor}'),
		('sagas', 'SELECT', '{operator, auditor}'),
		('saga_steps', 'SELECT (saga_id, step_name, ordinal, status, executed_at, compensated_at, retry_count)', '{monitor}'),
		('saga_steps', 'SELECT', '{operator, auditor}'),
		('consumer_group', 'SELECT', '{operator, auditor, monitor}'),
		('consumer_inbox', 'SELECT', '{operator, auditor}'),
		('delivery', 'SELECT', '{operator, auditor, monitor}'),
		('stat_delivery', 'SELECT', '{operator, auditor, monitor}'),
		-- what a SELECT from stat_delivery calls runs as the selecting user
		('worker_statistics', 'EXECUTE', '{operator, auditor, monitor}'),
		('group_lag', 'EXECUTE', '{operator, auditor, monitor}')
	$$;
COMMENT ON FUNCTION sagaz_internal.access_list() IS
	'what grant_access() gives: the privileges on each routine and relation, and the kinds of access that have them';

CREATE FUNCTION sagaz_internal.access_check(role text, access text) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	IF NOT pg_has_role((SELECT extowner FROM pg_extension
			WHERE extname = 'sagaz'), 'USAGE') THEN
		RAISE insufficient_privilege USING
			MESSAGE = 'must be owner of extension sagaz';
	END IF;
	IF access IS NULL OR access NOT IN ('producer', 'consumer', 'operator', 'auditor', 'monitor') THEN
		RAISE SQLSTATE 'SZ009' USING
			MESSAGE = CASE WHEN access IS NULL THEN 'access must not be null'
				ELSE format('access "%s" is unknown', access) END,
			HINT = 'Say ''producer'', ''consumer'', ''operator'', ''auditor'' or ''monitor''.';
	END IF;
	IF role IS NULL OR NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
		RAISE SQLSTATE 'SZ009' USING
			MESSAGE = CASE WHEN role IS NULL THEN 'role must not be null'
				ELSE format('role "%s" does not exist', role) END;
	END IF;
END
$$;
COMMENT ON FUNCTION sagaz_internal.access_check(text, text) IS
	'part of grant_access() and revoke_access(): check who asks, and for what';

CREATE FUNCTION sagaz_internal.access_apply(command text, role text, access text)
	RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	target text;
	toward text := CASE command WHEN 'GRANT' THEN 'TO' ELSE 'FROM' END;
BEGIN
	FOR target IN
		SELECT format('EXECUTE ON ROUTINE %s', p.oid::regprocedure)
			FROM sagaz_internal.access_list() AS l
			JOIN pg_proc AS p ON p.proname = l.object
				AND p.pronamespace IN ('sagaz'::regnamespace, 'sagaz_internal'::regnamespace)
			WHERE l.privilege = 'EXECUTE' AND access_apply.access = ANY (l.access)
		UNION ALL
		SELECT format('USAGE ON SCHEMA %I', l.object)
			FROM sagaz_internal.access_list() AS l
			WHERE l.privilege = 'USAGE' AND access_apply.access = ANY (l.access)
		UNION ALL
		SELECT format('%s ON sagaz.%I', l.privilege, l.object)
			FROM sagaz_internal.access_list() AS l
			WHERE l.privilege NOT IN ('EXECUTE', 'USAGE') AND access_apply.access = ANY (l.access)
				AND to_regclass(format('sagaz.%I', l.object)) IS NOT NULL
	LOOP
		EXECUTE format('%s %s %s %I', command, target, toward, role);
	END LOOP;
END
$$;
COMMENT ON FUNCTION sagaz_internal.access_apply(text, text, text) IS
	'part of grant_access() and revoke_access(): GRANT or REVOKE what a kind of access has';

CREATE FUNCTION sagaz_internal.access_apply_common(command text, role text)
	RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	target text;
	toward text := CASE command WHEN 'GRANT' THEN 'TO' ELSE 'FROM' END;
BEGIN
	FOR target IN
		SELECT 'SCHEMA sagaz'
		UNION ALL
		SELECT format('TYPE %s', t.oid::regtype)
			FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
			WHERE t.typnamespace = 'sagaz'::regnamespace
				AND (t.typtype IN ('e', 'd') OR c.relkind = 'c')
	LOOP
		EXECUTE format('%s USAGE ON %s %s %I', command, target, toward, role);
	END LOOP;
END
$$;
COMMENT ON FUNCTION sagaz_internal.access_apply_common(text, text) IS
	'part of grant_access() and revoke_access(): GRANT or REVOKE what every kind of access has';

CREATE FUNCTION sagaz_internal.access_held(role text) RETURNS text[]
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
	SELECT coalesce(array_agg(h.kind), '{}') FROM (
		SELECT kind FROM sagaz_internal.access_list() AS l
			JOIN pg_proc AS p ON p.proname = l.object
				AND p.pronamespace IN ('sagaz'::regnamespace, 'sagaz_internal'::regnamespace)
			CROSS JOIN unnest(l.access) AS kind
			WHERE l.privilege = 'EXECUTE'
			GROUP BY kind
			HAVING bool_and(EXISTS (SELECT FROM aclexplode(p.proacl) AS a
				JOIN pg_roles AS r ON r.oid = a.grantee
				WHERE r.rolname = $1))) AS h
	$$;
COMMENT ON FUNCTION sagaz_internal.access_held(text) IS
	'part of revoke_access(): the kinds of access that a role has in full';

CREATE FUNCTION sagaz.grant_access(role text, access text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	PERFORM sagaz_internal.access_check(role, access);
	PERFORM sagaz_internal.access_apply_common('GRANT', role);
	PERFORM sagaz_internal.access_apply('GRANT', role, access);
END
$$;
COMMENT ON FUNCTION sagaz.grant_access(text, text) IS
	'give a role what a producer, consumer, operator, auditor or monitor needs';

CREATE FUNCTION sagaz.revoke_access(role text, access text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	kept text[];
BEGIN
	PERFORM sagaz_internal.access_check(role, access);
	kept := array_remove(sagaz_internal.access_held(role), access);
	-- an operator has all that an auditor has, who has all that a monitor has
	IF access IN ('operator', 'auditor') THEN
		kept := array_remove(kept, 'monitor');
	END IF;
	IF access = 'operator' THEN
		kept := array_remove(kept, 'auditor');
	END IF;
	PERFORM sagaz_internal.access_apply('REVOKE', role, access);
	IF kept = '{}' THEN
		PERFORM sagaz_internal.access_apply_common('REVOKE', role);
	END IF;
	PERFORM sagaz_internal.access_apply('GRANT', role, kind) FROM unnest(kept) AS kind;
END
$$;
COMMENT ON FUNCTION sagaz.revoke_access(text, text) IS
	'take from a role what grant_access() gave, except what its other kinds of access need';

---------------------------------------------------------------------------
-- Deliveries
---------------------------------------------------------------------------

-- The handler is text, since a column of type regprocedure stops pg_upgrade.
CREATE TABLE sagaz.delivery (
	name text PRIMARY KEY CHECK (name <> ''),
	owner text NOT NULL,
	consumer_group text NOT NULL,
	handler text,
	target text,
	batch_size integer CHECK (batch_size > 0),
	timeout interval NOT NULL,
	options jsonb NOT NULL DEFAULT '{}',
	paused_at timestamptz,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	owner_id oid NOT NULL,
	object_id oid NOT NULL,
	object_owner_id oid NOT NULL,
	confirmed_at timestamptz NOT NULL,
	CHECK (pg_catalog.num_nonnulls(handler, target) OPERATOR(pg_catalog.=) 1)
);
COMMENT ON TABLE sagaz.delivery IS
	'standing orders for the background worker: whose events go where. Each is run by a process of its own that is connected as the owner, the role that had that name and owner_id when the delivery was made, or at activate(), and goes to the function or foreign server object_id, which belonged to the role object_owner_id when its owner confirmed that, by making or resuming it';

SELECT pg_catalog.pg_extension_config_dump('sagaz.delivery', '');

-- A row cannot depend on a function, a constraint can; src/worker/binding.c.
CREATE DOMAIN sagaz.delivery_binding AS oid;
COMMENT ON DOMAIN sagaz.delivery_binding IS
	'nothing is of this type: each of its constraints stands for a delivery and depends on what that goes to, so that a DROP of it shows the delivery';

CREATE FUNCTION sagaz.create_delivery(name text, handler regprocedure,
		consumer_group text DEFAULT 'sagaz-workers',
		batch_size integer DEFAULT NULL, timeout interval DEFAULT '30 s',
		options jsonb DEFAULT NULL)
	RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_create_delivery' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.create_delivery(text, regprocedure, text, integer, interval, jsonb) IS
	'have the background worker hand the events of a consumer group to a function, in the transaction that finishes them';

CREATE FUNCTION sagaz.create_delivery(name text, target text,
		consumer_group text DEFAULT 'sagaz-workers',
		batch_size integer DEFAULT NULL, timeout interval DEFAULT '30 s',
		options jsonb DEFAULT NULL)
	RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_create_delivery_to_storage' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.create_delivery(text, text, text, integer, interval, jsonb) IS
	'have the background worker put the events of a consumer group into another storage, as pending events of its outbox; or hand them to a function, if target is the signature of one';

CREATE FUNCTION sagaz.drop_delivery(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_drop_delivery' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.drop_delivery(text) IS
	'forget a delivery, once its present batch is done; its consumer group keeps its progress';

CREATE FUNCTION sagaz.pause_delivery(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_pause_delivery' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.pause_delivery(text) IS
	'stop a delivery, once its present batch is done: when this commits, nothing more is delivered';

CREATE FUNCTION sagaz.resume_delivery(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_resume_delivery' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.resume_delivery(text) IS
	'let a paused delivery go on where it was; or one that stands still, with the function or storage that is there now';

CREATE FUNCTION sagaz_internal.worker_statistics()
	RETURNS TABLE (name text, state text, pid integer, started_at timestamptz,
		batches bigint, delivered bigint, failed bigint, dead bigint,
		last_delivery_at timestamptz, archived bigint, inbox_removed bigint,
		last_housekeeping_at timestamptz, last_error text,
		last_error_at timestamptz)
	AS 'MODULE_PATHNAME', 'sagaz_worker_statistics' LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION sagaz_internal.worker_statistics() IS
	'what view stat_delivery shows of the workers: counted in shared memory since the server started';

CREATE FUNCTION sagaz_internal.group_lag(consumer_group text,
		OUT events bigint, OUT seconds double precision)
	AS 'MODULE_PATHNAME', 'sagaz_group_lag' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION sagaz_internal.group_lag(text) IS
	'how many events wait for the group that could be handed out now, counted up to 10000, and for how long the oldest of them';

CREATE VIEW sagaz.stat_delivery AS
	SELECT d.name, d.consumer_group, coalesce(d.handler, d.target) AS target, d.owner,
		CASE WHEN d.paused_at IS NOT NULL THEN 'paused'
			ELSE coalesce(w.state, 'stopped') END AS state,
		w.pid, w.started_at, coalesce(w.batches, 0) AS batches,
		coalesce(w.delivered, 0) AS delivered, coalesce(w.failed, 0) AS failed,
		coalesce(w.dead, 0) AS dead, l.events AS lag_events,
		l.seconds AS lag_seconds, w.last_delivery_at,
		coalesce(w.archived, 0) AS archived,
		coalesce(w.inbox_removed, 0) AS inbox_removed, w.last_housekeeping_at,
		w.last_error, w.last_error_at
	FROM sagaz.delivery AS d
		LEFT JOIN sagaz_internal.worker_statistics() AS w
			ON w.name OPERATOR(pg_catalog.=) d.name
		CROSS JOIN LATERAL sagaz_internal.group_lag(d.consumer_group) AS l;
COMMENT ON VIEW sagaz.stat_delivery IS
	'one row a delivery of this database: what its worker does, what it has done since the server started, and what still waits for it';

---------------------------------------------------------------------------
-- Storages
---------------------------------------------------------------------------

CREATE FUNCTION sagaz_internal.storage_fdw() RETURNS fdw_handler
	AS 'MODULE_PATHNAME', 'sagaz_storage_fdw' LANGUAGE C STRICT;
COMMENT ON FUNCTION sagaz_internal.storage_fdw() IS
	'handler of the foreign data wrappers whose servers are storages';

CREATE FUNCTION sagaz_internal.memory_validator(options text[], catalog oid) RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_memory_validator' LANGUAGE C;
COMMENT ON FUNCTION sagaz_internal.memory_validator(text[], oid) IS
	'part of the foreign data wrapper sagaz_memory: checks the options of its storages';

CREATE FUNCTION sagaz_internal.sqlite_validator(options text[], catalog oid) RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_sqlite_validator' LANGUAGE C;
COMMENT ON FUNCTION sagaz_internal.sqlite_validator(text[], oid) IS
	'part of the foreign data wrapper sagaz_sqlite: checks the options of its storages';

CREATE FUNCTION sagaz_internal.redis_validator(options text[], catalog oid) RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_redis_validator' LANGUAGE C;
COMMENT ON FUNCTION sagaz_internal.redis_validator(text[], oid) IS
	'part of the foreign data wrapper sagaz_redis: checks the options of its storages';

CREATE FUNCTION sagaz_internal.postgresql_validator(options text[], catalog oid) RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_postgresql_validator' LANGUAGE C;
COMMENT ON FUNCTION sagaz_internal.postgresql_validator(text[], oid) IS
	'part of the foreign data wrapper sagaz_postgresql: checks the options of its storages';

CREATE FOREIGN DATA WRAPPER sagaz_memory
	HANDLER sagaz_internal.storage_fdw VALIDATOR sagaz_internal.memory_validator;
COMMENT ON FOREIGN DATA WRAPPER sagaz_memory IS
	'storages in the memory of a session';

CREATE FOREIGN DATA WRAPPER sagaz_sqlite
	HANDLER sagaz_internal.storage_fdw VALIDATOR sagaz_internal.sqlite_validator;
COMMENT ON FOREIGN DATA WRAPPER sagaz_sqlite IS
	'storages in SQLite files';

CREATE FOREIGN DATA WRAPPER sagaz_redis
	HANDLER sagaz_internal.storage_fdw VALIDATOR sagaz_internal.redis_validator;
COMMENT ON FOREIGN DATA WRAPPER sagaz_redis IS
	'storages in Redis servers';

CREATE FOREIGN DATA WRAPPER sagaz_postgresql
	HANDLER sagaz_internal.storage_fdw VALIDATOR sagaz_internal.postgresql_validator;
COMMENT ON FOREIGN DATA WRAPPER sagaz_postgresql IS
	'storages in other PostgreSQL databases, with sagaz or with the tables of the Python library';

CREATE FUNCTION sagaz.backends()
	RETURNS TABLE (name text, library_version text, capabilities text[])
	AS 'MODULE_PATHNAME', 'sagaz_backends_list' LANGUAGE C STABLE PARALLEL SAFE ROWS 4;
COMMENT ON FUNCTION sagaz.backends() IS
	'the kinds of storage that this build has, with the version of the client library';

CREATE VIEW sagaz.storages AS
	SELECT s.srvname::text AS name,
		pg_catalog.substr(w.fdwname::text, 7) AS backend,
		coalesce((SELECT o.option_value FROM pg_catalog.pg_options_to_table(s.srvoptions) AS o
			WHERE o.option_name OPERATOR(pg_catalog.=) 'storage_type'), 'both') AS storage_type,
		pg_catalog.pg_get_userbyid(s.srvowner)::text AS owner,
		pg_catalog.has_server_privilege(s.oid, 'USAGE') AS usable,
		s.srvoptions AS options
	FROM pg_catalog.pg_foreign_server AS s
		JOIN pg_catalog.pg_foreign_data_wrapper AS w
			ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
	WHERE w.fdwname::text OPERATOR(pg_catalog.~) '^sagaz_'
		AND w.fdwname OPERATOR(pg_catalog.<>) 'sagaz_events'
	UNION ALL
	SELECT 'native', 'native', 'both', pg_catalog.pg_get_userbyid(e.extowner)::text,
		true, NULL
	FROM pg_catalog.pg_extension AS e
	WHERE e.extname OPERATOR(pg_catalog.=) 'sagaz';
COMMENT ON VIEW sagaz.storages IS
	'the storages that have a name, whether the present user may use them, and their options; secrets are in user mappings and not here';

CREATE FUNCTION sagaz.create_storage(name text, url text,
		storage_type text DEFAULT 'both', options jsonb DEFAULT '{}',
		for_public boolean DEFAULT false)
	RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_create_storage' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.create_storage(text, text, text, jsonb, boolean) IS
	'give a storage a name: a foreign server and a user mapping, owned by the caller, made of a URL. Workers of the Python library that share it take scheduled events at once';

CREATE FUNCTION sagaz.create_outbox_storage(name text, url text,
		options jsonb DEFAULT '{}', for_public boolean DEFAULT false)
	RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$ SELECT sagaz.create_storage(name, url, 'outbox', options, for_public) $$;
COMMENT ON FUNCTION sagaz.create_outbox_storage(text, text, jsonb, boolean) IS
	'give a storage that keeps events only a name';

CREATE FUNCTION sagaz_internal.storage_refuse_unknown(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'sagaz_storage_refuse_unknown' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz_internal.storage_refuse_unknown(text) IS
	'raise that there is no storage of that name, which may be a URL with a secret';

CREATE FUNCTION sagaz.drop_storage(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	mapping record;
BEGIN
	IF NOT EXISTS (SELECT FROM sagaz.storages AS s
			WHERE s.name = drop_storage.name AND s.backend <> 'native') THEN
		PERFORM sagaz_internal.storage_refuse_unknown(name);
	END IF;
	IF EXISTS (SELECT FROM sagaz.delivery AS d WHERE d.target = drop_storage.name) THEN
		RAISE dependent_objects_still_exist USING
			MESSAGE = format('a delivery goes to storage "%s"', name),
			HINT = 'Drop it first with SELECT sagaz.drop_delivery(name).';
	END IF;
	FOR mapping IN SELECT usename, umuser FROM pg_user_mappings WHERE srvname = name
	LOOP
		EXECUTE format('DROP USER MAPPING FOR %s SERVER %I',
			CASE WHEN mapping.umuser = 0 THEN 'PUBLIC'
				ELSE quote_ident(mapping.usename) END, name);
	END LOOP;
	EXECUTE format('DROP SERVER %I', name);
END
$$;
COMMENT ON FUNCTION sagaz.drop_storage(text) IS
	'forget a storage''s name; what it holds stays where it is';

CREATE FUNCTION sagaz.export_all(type text, storage text DEFAULT NULL)
	RETURNS SETOF jsonb
	AS 'MODULE_PATHNAME', 'sagaz_export_all' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION sagaz.export_all(text, text) IS
	'all sagas or events (type saga or outbox) in normal form; a record that JSON cannot hold is left out with a warning';

CREATE FUNCTION sagaz.import_record(record jsonb, type text,
		storage text DEFAULT NULL)
	RETURNS boolean
	AS 'MODULE_PATHNAME', 'sagaz_import_record' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.import_record(jsonb, text, text) IS
	'put a record as export_all() gives it, with its times and state; false where nothing had to be written';

CREATE FUNCTION sagaz.import_records(records jsonb, type text,
		if_exists text DEFAULT 'replace', storage text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_import_records' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.import_records(jsonb, text, text, text) IS
	'put an array of records as export_all() gives them, all or none; one that is there already is replaced, left as it is (skip) or an error; returns how many were written';

CREATE FUNCTION sagaz_internal.export_page(type text, after text DEFAULT NULL,
		max_rows integer DEFAULT 500, keys text[] DEFAULT NULL)
	RETURNS TABLE (record json, "position" text)
	AS 'MODULE_PATHNAME', 'sagaz_export_page' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 500;
COMMENT ON FUNCTION sagaz_internal.export_page(text, text, integer, text[]) IS
	'sagas or events (type saga or outbox) of the native tables behind a position, or those of some keys, for merge_records() elsewhere: arrays of their values; in the order of delivery as far as that is settled';

CREATE FUNCTION sagaz_internal.merge_records(records jsonb, type text,
		over_claims boolean DEFAULT false, storage text DEFAULT NULL,
		OUT added bigint, OUT changed bigint, OUT unchanged bigint,
		OUT kept bigint)
	AS 'MODULE_PATHNAME', 'sagaz_merge_records' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz_internal.merge_records(jsonb, text, boolean, text) IS
	'make what a storage holds like an array of records, as export_all() or export_page() gives them: events that are sent there are kept, and unless over_claims those that a worker there holds';

CREATE FUNCTION sagaz_internal.remove_records(keys text[], type text,
		storage text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_remove_records' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz_internal.remove_records(text[], text, text) IS
	'let the records of these keys go, so that the events among them are not delivered any more: removed, or sent where the log has them; returns how many were there';

CREATE FUNCTION sagaz.count_records(type text, storage text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'sagaz_count_records' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION sagaz.count_records(text, text) IS
	'how many sagas or events there are';

CREATE FUNCTION sagaz.checksum(type text, storage text DEFAULT NULL)
	RETURNS text
	AS 'MODULE_PATHNAME', 'sagaz_checksum' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION sagaz.checksum(text, text) IS
	'the sum of the SHA-256 of all records in normal form: the same for two storages that hold the same';

---------------------------------------------------------------------------
-- Transfers between storages
---------------------------------------------------------------------------

CREATE TABLE sagaz.transfer (
	transfer_id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	operation text NOT NULL CHECK (operation IN ('transfer', 'migrate')),
	source text NOT NULL,
	target text NOT NULL,
	source_layout text,
	target_layout text,
	origin text,
	record_type text NOT NULL CHECK (record_type IN ('saga', 'outbox', 'both')),
	batch_size integer NOT NULL,
	on_error text NOT NULL,
	max_tries integer NOT NULL DEFAULT 10,
	delay interval NOT NULL DEFAULT '200ms',
	validate boolean NOT NULL,
	switch boolean NOT NULL,
	state text NOT NULL CHECK (state IN ('running', 'completed', 'failed', 'cancelled')),
	phase text NOT NULL,
	current_type text,
	done_types text[] NOT NULL DEFAULT '{}',
	pass integer NOT NULL DEFAULT 0,
	total bigint NOT NULL DEFAULT 0,
	processed bigint NOT NULL DEFAULT 0,
	transferred bigint NOT NULL DEFAULT 0,
	unchanged bigint NOT NULL DEFAULT 0,
	kept bigint NOT NULL DEFAULT 0,
	failed bigint NOT NULL DEFAULT 0,
	skipped bigint NOT NULL DEFAULT 0,
	removed bigint NOT NULL DEFAULT 0,
	last_key text,
	"position" text,
	error text,
	verification jsonb,
	cancel_requested boolean NOT NULL DEFAULT false,
	started_by text NOT NULL,
	pid integer,
	backend_start timestamptz,
	started_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	finished_at timestamptz,
	elapsed interval NOT NULL DEFAULT '0'
) WITH (fillfactor = 50);
COMMENT ON TABLE sagaz.transfer IS
	'each run of transfer() and migrate(), with its progress as of the last commit. Storages given by a URL are named without what is secret in it';

COMMENT ON SEQUENCE sagaz.transfer_transfer_id_seq IS
	'numbers the transfers';

CREATE TABLE sagaz.transfer_error (
	transfer_id bigint NOT NULL REFERENCES sagaz.transfer ON DELETE CASCADE,
	record_type text NOT NULL,
	record_key text NOT NULL,
	record jsonb,
	message text NOT NULL,
	sqlstate text NOT NULL,
	at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (transfer_id, record_type, record_key)
);
COMMENT ON TABLE sagaz.transfer_error IS
	'records that a transfer could not move, whole in normal form; record is NULL where the source itself cannot read it. retry_transfer_errors() tries them again and removes those that arrive';

CREATE TABLE sagaz.transfer_record (
	transfer_id bigint NOT NULL REFERENCES sagaz.transfer ON DELETE CASCADE,
	record_type text NOT NULL,
	record_key text COLLATE "C" NOT NULL,
	digest bytea NOT NULL,
	PRIMARY KEY (transfer_id, record_type, record_key)
);
COMMENT ON TABLE sagaz.transfer_record IS
	'part of migrate(): what was copied so far, so that later passes see what has changed or gone away since; empty when no migration is going on';

SELECT pg_catalog.pg_extension_config_dump('sagaz.transfer', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.transfer_transfer_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.transfer_error', '');
SELECT pg_catalog.pg_extension_config_dump('sagaz.transfer_record', '');

CREATE FUNCTION sagaz_internal.transfer_is_alive(pid integer, backend_start timestamptz)
	RETURNS boolean
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS $$
		SELECT EXISTS (SELECT FROM pg_stat_get_activity(pid) AS a
			WHERE a.backend_start IS NULL
				OR a.backend_start = transfer_is_alive.backend_start)
	$$;
COMMENT ON FUNCTION sagaz_internal.transfer_is_alive(integer, timestamptz) IS
	'part of transfers: is the session still there that a transfer runs in?';

CREATE VIEW sagaz.transfers AS
	SELECT t.transfer_id, t.operation, t.source, t.target, t.source_layout,
		t.target_layout, t.record_type,
		CASE WHEN t.state OPERATOR(pg_catalog.=) 'running'
				AND NOT sagaz_internal.transfer_is_alive(t.pid, t.backend_start)
			THEN CASE t.phase WHEN 'done' THEN 'completed' ELSE 'interrupted' END
			ELSE t.state END AS state,
		t.phase, t.current_type, t.pass, t.total, t.transferred, t.unchanged,
		t.kept, t.failed, t.skipped, t.removed,
		CASE WHEN t.total OPERATOR(pg_catalog.>) 0
			THEN pg_catalog.round(LEAST(100, 100.0 OPERATOR(pg_catalog.*) t.processed
				OPERATOR(pg_catalog./) t.total), 1)
			WHEN t.phase OPERATOR(pg_catalog.<>) 'prepare' THEN 100.0 END AS percent,
		t.elapsed,
		pg_catalog.round(d.done OPERATOR(pg_catalog./)
			nullif(EXTRACT(epoch FROM t.elapsed), 0), 1) AS records_per_second,
		CASE WHEN t.state OPERATOR(pg_catalog.=) 'running'
				AND d.done OPERATOR(pg_catalog.>) 0
			THEN pg_catalog.round(GREATEST(t.total OPERATOR(pg_catalog.-) t.processed, 0)
				OPERATOR(pg_catalog.*) EXTRACT(epoch FROM t.elapsed)
				OPERATOR(pg_catalog./) d.done, 1) END AS seconds_left,
		t.last_key,
		(SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('record_type',
				e.record_type, 'record_key', e.record_key, 'message', e.message))
			FROM (SELECT record_type, record_key, message
				FROM sagaz.transfer_error AS r
				WHERE r.transfer_id OPERATOR(pg_catalog.=) t.transfer_id
				ORDER BY r.at, r.record_key LIMIT 5) AS e) AS errors,
		t.error, t.verification, t.batch_size, t.on_error, t.validate, t.switch,
		t.started_by, t.pid, t.started_at, t.updated_at, t.finished_at
	FROM sagaz.transfer AS t,
		LATERAL (SELECT t.transferred OPERATOR(pg_catalog.+) t.unchanged
			OPERATOR(pg_catalog.+) t.kept OPERATOR(pg_catalog.+) t.failed
			OPERATOR(pg_catalog.+) t.skipped AS done) AS d;
COMMENT ON VIEW sagaz.transfers IS
	'each run of transfer() and migrate(): how far it is, how fast, and what it could not move. One whose session has ended before it did is interrupted';

CREATE PROCEDURE sagaz.transfer(source text, target text,
		type text DEFAULT 'both', batch_size integer DEFAULT 500,
		on_error text DEFAULT 'fail', validate boolean DEFAULT true,
		max_tries integer DEFAULT 10, delay interval DEFAULT '200ms',
		INOUT transfer_id bigint DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'sagaz_transfer' LANGUAGE C;
COMMENT ON PROCEDURE sagaz.transfer(text, text, text, integer, text, boolean, integer, interval, bigint) IS
	'copy all sagas, events or both from one storage to another, so that running it again does no harm; commits after each batch';

CREATE PROCEDURE sagaz.migrate(source text, target text,
		switch boolean DEFAULT false, batch_size integer DEFAULT 500,
		on_error text DEFAULT 'fail', accept_removals boolean DEFAULT false,
		max_tries integer DEFAULT 10, delay interval DEFAULT '200ms',
		INOUT transfer_id bigint DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'sagaz_migrate' LANGUAGE C;
COMMENT ON PROCEDURE sagaz.migrate(text, text, boolean, integer, text, boolean, integer, interval, bigint) IS
	'move sagas and events to another storage while the first is in use: copy, follow what changes until nothing does, compare and, with switch, make the target the default';

CREATE PROCEDURE sagaz.resume_transfer(transfer_id bigint,
		source text DEFAULT NULL, target text DEFAULT NULL,
		accept_removals boolean DEFAULT false)
	AS 'MODULE_PATHNAME', 'sagaz_resume_transfer' LANGUAGE C;
COMMENT ON PROCEDURE sagaz.resume_transfer(bigint, text, text, boolean) IS
	'go on with a transfer that has failed, was cancelled or was interrupted; a URL that held a secret must be given again';

CREATE PROCEDURE sagaz.retry_transfer_errors(transfer_id bigint,
		source text DEFAULT NULL, target text DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'sagaz_retry_transfer_errors' LANGUAGE C;
COMMENT ON PROCEDURE sagaz.retry_transfer_errors(bigint, text, text) IS
	'try the records again that a transfer could not move, as they are in the source now';

CREATE FUNCTION sagaz.cancel_transfer(transfer_id bigint) RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	UPDATE sagaz.transfer AS t SET cancel_requested = true
		WHERE t.transfer_id = cancel_transfer.transfer_id
			AND t.state = 'running'
			AND sagaz_internal.transfer_is_alive(t.pid, t.backend_start);
	IF NOT FOUND AND NOT EXISTS (SELECT FROM sagaz.transfer AS t
			WHERE t.transfer_id = cancel_transfer.transfer_id) THEN
		RAISE SQLSTATE 'SZ002' USING
			MESSAGE = CASE WHEN transfer_id IS NULL THEN 'transfer_id must not be null'
				ELSE format('transfer %s does not exist', transfer_id) END,
			HINT = 'See sagaz.transfers.';
	END IF;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION sagaz.cancel_transfer(bigint) IS
	'let a running transfer end after its present batch; false where it was not running';

CREATE FUNCTION sagaz.validate_transfer(source text, target text,
		type text DEFAULT 'both', OUT compatible boolean, OUT issues jsonb)
	AS 'MODULE_PATHNAME', 'sagaz_validate_transfer' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sagaz.validate_transfer(text, text, text) IS
	'would transfer() work? Reads the whole source and writes nothing';

---------------------------------------------------------------------------
-- Following the log
---------------------------------------------------------------------------

-- What a snapshot did not see has a position at or above its xmin, so the index
-- on pos leads there, if the planner knows the value and is not put off by old
-- statistics.  Rows of earlier epochs have positions of other clusters; they were
-- there before this database was.
CREATE FUNCTION sagaz.new_events(since pg_snapshot DEFAULT NULL,
		max_rows integer DEFAULT NULL)
	RETURNS TABLE (event_id uuid, saga_id text, aggregate_type text,
		aggregate_id text, event_type text, payload jsonb, headers jsonb,
		routing_key text, partition_key text, created_at timestamptz)
	LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
	SET enable_seqscan = off SET jit = off
	AS $$
BEGIN
	IF since IS NOT NULL THEN
		RETURN QUERY SELECT o.event_id, o.saga_id, o.aggregate_type,
				coalesce(o.aggregate_id, o.saga_id), o.event_type, o.payload, o.headers,
				o.routing_key, o.partition_key, o.created_at
			FROM sagaz.outbox AS o
			WHERE o.pos >= pg_snapshot_xmin(since)
				AND NOT pg_visible_in_snapshot(o.pos, since)
				AND o.seq > (SELECT coalesce(max(c.boundary_seq), 0) FROM sagaz.cluster AS c)
			ORDER BY o.seq LIMIT max_rows;
	ELSE
		RETURN QUERY SELECT o.event_id, o.saga_id, o.aggregate_type,
				coalesce(o.aggregate_id, o.saga_id), o.event_type, o.payload, o.headers,
				o.routing_key, o.partition_key, o.created_at
			FROM (
				SELECT l.* FROM (SELECT coalesce(max(c.lanes), 4) AS lanes FROM sagaz.cluster AS c) AS c,
						generate_series(0, c.lanes - 1) AS n,
						LATERAL (SELECT * FROM sagaz.outbox AS l WHERE l.lane = n::smallint
							ORDER BY l.seq DESC LIMIT max_rows) AS l
					ORDER BY l.seq DESC LIMIT max_rows) AS o
			ORDER BY o.seq;
	END IF;
END $$;
COMMENT ON FUNCTION sagaz.new_events(pg_snapshot, integer) IS
	'events of the log that a snapshot did not see, whatever group has them; without a snapshot the last max_rows';

---------------------------------------------------------------------------
-- Change data capture
---------------------------------------------------------------------------

-- Rows settle once no transaction that is open now can still put one before
-- them, so whoever reads on behind a (pos, seq) misses none.  Rows of earlier
-- epochs have positions of other clusters and are settled.
CREATE VIEW sagaz.outbox_debezium AS
	SELECT o.event_id AS id, o.aggregate_type AS aggregatetype,
		coalesce(o.aggregate_id, o.saga_id) AS aggregateid,
		o.event_type AS type, o.payload,
		o.created_at AT TIME ZONE 'UTC' AS "timestamp",
		o.headers ->> 'tracingspancontext' AS tracingspancontext,
		o.headers, o.saga_id, o.routing_key, o.partition_key, o.available_at,
		o.pos, o.seq
	FROM sagaz.outbox AS o
	WHERE o.pos >= '3' AND (o.pos < pg_snapshot_xmin(pg_current_snapshot())
		OR o.seq <= (SELECT coalesce(max(c.boundary_seq), 0) FROM sagaz.cluster AS c));
COMMENT ON VIEW sagaz.outbox_debezium IS
	'the log with the column names that Debezium''s outbox event router expects, for programs that poll: ordered by (pos, seq), nothing appears before what was read';

-- A publication FOR ALL TABLES would otherwise forbid updates and deletes here.
ALTER TABLE sagaz.outbox REPLICA IDENTITY USING INDEX outbox_event_id;
ALTER TABLE sagaz.outbox_batch REPLICA IDENTITY USING INDEX outbox_batch_key;
ALTER TABLE sagaz.outbox_receipt REPLICA IDENTITY FULL;
ALTER TABLE sagaz.cluster REPLICA IDENTITY FULL;

---------------------------------------------------------------------------
-- Nothing for PUBLIC; sagaz.grant_access() gives roles what they need
---------------------------------------------------------------------------

REVOKE ALL ON ALL ROUTINES IN SCHEMA sagaz, sagaz_internal FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA sagaz FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA sagaz FROM PUBLIC;

DO $$
DECLARE
	type regtype;
BEGIN
	FOR type IN
		SELECT t.oid FROM pg_catalog.pg_type AS t
			WHERE t.typnamespace = 'sagaz'::pg_catalog.regnamespace
				AND t.typcategory <> 'A'
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON TYPE %s FROM PUBLIC', type);
	END LOOP;
END
$$;
