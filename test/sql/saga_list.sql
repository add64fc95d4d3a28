-- list_sagas(), stuck_sagas(), get_saga_statistics(), cleanup_completed_sagas()

-- 400 sagas of 5 names and 4 statuses, one created a second before the next
INSERT INTO sagaz.sagas (saga_id, saga_name, status, created_at, updated_at)
	SELECT 'saga-' || i, (ARRAY['OrderSaga', 'order 50%', 'Payment_Saga', 'ÜBER order', 'Refund'])[i % 5 + 1],
		(ARRAY['executing', 'completed', 'rolled_back', 'failed'])[i / 5 % 4 + 1]::sagaz.saga_status,
		'2024-01-01 00:00:00Z'::timestamptz + i * interval '1 second', '2024-01-01 00:00:00Z'
	FROM generate_series(1, 400) i;
INSERT INTO sagaz.saga_steps (saga_id, step_name, ordinal, status)
	SELECT 'saga-' || i, 'step ' || s, s, CASE WHEN s < i % 4 THEN 'completed' ELSE 'pending' END::sagaz.step_status
	FROM generate_series(1, 400) i, generate_series(0, 2) s;

-- Any list is what SQL makes of the table.
CREATE FUNCTION expected(status text, pattern text, max_rows int, skip_rows int) RETURNS SETOF sagaz.saga_summary LANGUAGE sql AS $$
	SELECT s.saga_id, s.saga_name, s.status, s.created_at, s.updated_at,
		(SELECT count(*) FROM sagaz.saga_steps t WHERE t.saga_id = s.saga_id)::int,
		(SELECT count(*) FROM sagaz.saga_steps t WHERE t.saga_id = s.saga_id AND t.status = 'completed')::int
	FROM sagaz.sagas s
	WHERE (expected.status IS NULL OR s.status::text = expected.status) AND (pattern IS NULL OR strpos(lower(s.saga_name), lower(pattern)) > 0)
	ORDER BY s.created_at DESC, s.saga_id COLLATE "C" LIMIT max_rows OFFSET skip_rows $$;
CREATE FUNCTION compare() RETURNS TABLE (lists bigint, rows bigint, wrong bigint) LANGUAGE sql AS $$
	SELECT count(*), sum(cardinality(got)), count(*) FILTER (WHERE got IS DISTINCT FROM wanted)
	FROM unnest('{NULL,executing,completed,failed,pending}'::text[]) status,
		unnest(ARRAY[NULL, '', 'ORDER', 'saga', '%', '_', 'über', 'Ü', 'nothing', 'order 50%', 'r']) pattern,
		unnest('{0,7,100,2147483647}'::int[]) max_rows, unnest('{0,50,2147483647}'::int[]) skip_rows,
		LATERAL (SELECT ARRAY(SELECT l FROM sagaz.list_sagas(status, pattern, max_rows, skip_rows) l)) a (got),
		LATERAL (SELECT ARRAY(SELECT l FROM expected(status, pattern, max_rows, skip_rows) l)) b (wanted) $$;
SELECT * FROM compare();
-- and where many were created at the same time
UPDATE sagaz.sagas SET created_at = date_trunc('minute', created_at);
SELECT * FROM compare();
UPDATE sagaz.sagas SET created_at = '2024-01-01 00:00:00Z';
SELECT * FROM compare();

SET timezone = 'UTC';
SELECT * FROM sagaz.list_sagas('failed', 'über', max_rows => 2);
SELECT count(*) FROM sagaz.list_sagas();
SELECT * FROM sagaz.get_saga_statistics() WHERE saga_name IN ('Refund', 'OrderSaga');
SELECT sum(sagas) FROM sagaz.get_saga_statistics();

-- no table is read from end to end, whatever the planner thinks of its size
INSERT INTO sagaz.sagas (saga_id, saga_name, status) SELECT 'bulk-' || i, 'Bulk ' || i % 100, 'completed' FROM generate_series(1, 50000) i;
CREATE FUNCTION reads(statement text, OUT seq_scans bigint, OUT few_rows boolean) LANGUAGE plpgsql AS $$
DECLARE
	fetched bigint;
BEGIN
	SELECT sum(seq_scan), sum(idx_tup_fetch) INTO seq_scans, fetched FROM pg_stat_xact_user_tables WHERE schemaname = 'sagaz';
	EXECUTE statement;
	SELECT sum(seq_scan) - seq_scans, sum(idx_tup_fetch) - fetched < 1000 INTO seq_scans, few_rows
		FROM pg_stat_xact_user_tables WHERE schemaname = 'sagaz';
END $$;
SELECT statement, r.* FROM unnest(ARRAY[
	'SELECT sagaz.list_sagas()', 'SELECT sagaz.list_sagas(''completed'')', 'SELECT sagaz.list_sagas(''executing'')',
	'SELECT sagaz.list_sagas(saga_name => ''refund'')', 'SELECT sagaz.list_sagas(saga_name => ''bulk 77'')',
	'SELECT sagaz.list_sagas(''failed'', ''bulk'')', 'SELECT sagaz.list_sagas(saga_name => ''nothing'')',
	'SELECT sagaz.stuck_sagas(''1 day'')', 'SELECT sagaz.load_saga_state(''saga-1'')',
	'SELECT sagaz.save_saga_state(''saga-1'', ''Refund'', ''failed'')', 'SELECT sagaz.delete_saga_state(''bulk-1'')',
	'SELECT count(*) FROM sagaz.sagas']) statement, reads(statement) r;

-- stuck: not finished, and not changed for so long
TRUNCATE sagaz.sagas CASCADE;
INSERT INTO sagaz.sagas (saga_id, saga_name, status, updated_at)
	SELECT status || ' ' || days, 'S', status::sagaz.saga_status, now() - days * interval '1 day'
	FROM unnest(enum_range(NULL::sagaz.saga_status)) status, generate_series(0, 2) days;
SELECT saga_id FROM sagaz.stuck_sagas('1 day');
SELECT saga_id FROM sagaz.stuck_sagas('36 hours');
SELECT count(*) FROM sagaz.stuck_sagas('3 days');
SELECT count(*) FROM sagaz.stuck_sagas('0');

-- clean-up: finished ones alone, with their steps, and only older than asked
INSERT INTO sagaz.saga_steps (saga_id, step_name, ordinal) SELECT saga_id, 'a', 0 FROM sagaz.sagas;
SELECT sagaz.cleanup_completed_sagas('36 hours');
SELECT string_agg(saga_id, ', ' ORDER BY saga_id) FROM sagaz.sagas WHERE status IN ('completed', 'rolled_back', 'failed');
SELECT sagaz.cleanup_completed_sagas('36 hours');
SELECT sagaz.cleanup_completed_sagas('1 day', '{}');
SELECT sagaz.cleanup_completed_sagas('12 hours', '{failed,failed}');
SELECT sagaz.cleanup_completed_sagas('0', '{completed,rolled_back,failed,partially_committed}');
SELECT status, count(*) FROM sagaz.sagas GROUP BY 1 ORDER BY 1;
SELECT count(*), count(DISTINCT saga_id) FROM sagaz.saga_steps;

-- a table of more than 8 MB: small groups exactly, large ones within 15 %
INSERT INTO sagaz.sagas (saga_id, saga_name, status, context)
	SELECT 'wide-' || i, CASE WHEN i % 10 = 0 THEN 'Tenth' ELSE 'Wide' END, CASE WHEN i <= 203 THEN 'failed' WHEN i % 2 = 0 THEN 'completed' ELSE 'executing' END::sagaz.saga_status,
		jsonb_build_object('x', (SELECT string_agg(md5(i::text || n::text), '') FROM generate_series(1, 40) n))
	FROM generate_series(1, 33000) i;
CREATE VIEW differences AS
	SELECT s.saga_name, s.status, s.estimated, CASE WHEN s.estimated THEN abs(s.sagas - c.exact) < 0.15 * c.exact ELSE s.sagas = c.exact END AS good
	FROM sagaz.get_saga_statistics() WITH ORDINALITY AS s (saga_name, status, sagas, estimated, n)
		FULL JOIN (SELECT saga_name, status, count(*) AS exact FROM sagaz.sagas GROUP BY 1, 2) c USING (saga_name, status) ORDER BY s.n;
SELECT * FROM differences WHERE good IS NOT TRUE OR saga_name IN ('Tenth', 'Wide');
ANALYZE sagaz.sagas;
SELECT * FROM differences WHERE good IS NOT TRUE OR saga_name IN ('Tenth', 'Wide');
-- with more groups than that it is no estimate
INSERT INTO sagaz.sagas (saga_id, saga_name, status) SELECT 'named-' || i, 'Named ' || i, 'completed' FROM generate_series(1, 200) i;
SELECT bool_or(estimated), bool_and(good) FROM differences;
