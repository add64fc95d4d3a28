-- The binary columns of outbox_batch: the version of their layout comes first,
-- and what another version wrote is an error, not a guess.
CREATE FUNCTION pg_temp.try(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' / ', sqlstate || ': ' || sqlerrm, nullif(detail, ''));
END $$;
-- what the claim, the view and retention say of a column with that value
CREATE FUNCTION pg_temp.tries(columns text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'UPDATE sagaz.outbox_batch SET ' || columns;
	RETURN NEXT pg_temp.try('SELECT FROM sagaz.claim_batch(''w'')');
	RETURN NEXT pg_temp.try('SELECT FROM sagaz.outbox_events');
	RETURN NEXT pg_temp.try('SELECT FROM sagaz.archive_sent_events(''0'')');
END $$;

SELECT count(sagaz.insert_event('a', 'n' || n, '1')) FROM generate_series(1, 5) n;
SELECT count(*) FROM sagaz.claim_batch('w');
-- an entry of four bytes behind the version
SELECT get_byte(ends, 0) AS ends, owed FROM sagaz.outbox_batch;

BEGIN;
SELECT pg_temp.tries('ends = set_byte(ends, 0, 2)');
ROLLBACK;
BEGIN;
SELECT pg_temp.tries('owed = set_byte(owed, 0, 3)');
ROLLBACK;
BEGIN;
SELECT pg_temp.tries('ends = set_byte(ends, 0, 0)');
ROLLBACK;
BEGIN;
SELECT pg_temp.tries('owed = ''''');
ROLLBACK;
-- of an older one: without limits
BEGIN;
SELECT pg_temp.tries('owed = set_byte(owed, 0, 1)');
ROLLBACK;
-- a count beyond the end of the value
BEGIN;
SELECT pg_temp.tries('owed = ''\x0200100005ffffffff7f''');
ROLLBACK;
SELECT count(*) FROM sagaz.outbox_events WHERE status = 'claimed';
