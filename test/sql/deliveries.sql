-- create_, drop_, pause_ and resume_delivery(): what they take and who may call
-- them.  What a worker makes of a delivery is told by test/t/040_delivery.pl.
\set VERBOSITY terse
-- without preload each would warn, too
SET client_min_messages = error;
CREATE SCHEMA app;
CREATE FUNCTION app.handle(sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION app."Count, ""them"""(sagaz.outbox_event[]) RETURNS bigint LANGUAGE sql
	AS 'SELECT cardinality($1)::bigint';
\set handle 'app.handle(sagaz.outbox_event[])'
SELECT sagaz.create_consumer_group('g');
CREATE VIEW orders AS
	SELECT name, owner = current_user AS mine, consumer_group, handler, batch_size, timeout,
			options, paused_at IS NOT NULL AS paused
		FROM sagaz.delivery ORDER BY name;

-- what is not said has a default; the group of that name need not exist
SELECT sagaz.create_delivery('plain', :'handle');
SELECT sagaz.create_delivery('full', 'app."Count, ""them"""(sagaz.outbox_event[])', 'g', 7,
	'1 min 0.5 s', '{}');
SELECT * FROM orders;
SELECT created_at <= clock_timestamp() AS now FROM sagaz.delivery WHERE name = 'full';

-- bad input changes nothing
\set VERBOSITY sqlstate
SELECT sagaz.create_delivery('plain', :'handle');
SELECT sagaz.create_delivery('x', :'handle', 'nobody');
\set VERBOSITY terse
SELECT sagaz.create_delivery('plain', :'handle');
SELECT sagaz.create_delivery('x', :'handle', 'nobody');
SELECT sagaz.create_delivery(NULL, :'handle');
SELECT sagaz.create_delivery('', :'handle');
SELECT sagaz.create_delivery(repeat('x', 64), :'handle');
SELECT sagaz.create_delivery('x', NULL);
SELECT sagaz.create_delivery('x', 0::oid::regprocedure);
SELECT sagaz.create_delivery('x', 'app.nothing(sagaz.outbox_event[])');
SELECT sagaz.create_delivery('x', :'handle', NULL);
SELECT sagaz.create_delivery('x', :'handle', '');
SELECT sagaz.create_delivery('x', :'handle', batch_size => 0);
SELECT sagaz.create_delivery('x', :'handle', batch_size => -1);
SELECT sagaz.create_delivery('x', :'handle', timeout => NULL);
SELECT sagaz.create_delivery('x', :'handle', timeout => '0');
SELECT sagaz.create_delivery('x', :'handle', timeout => '999 us');
SELECT sagaz.create_delivery('x', :'handle', timeout => '-1 s');
SELECT sagaz.create_delivery('x', :'handle', timeout => '11000 years');
SELECT sagaz.create_delivery('x', :'handle', options => '[]');
SELECT sagaz.create_delivery('x', :'handle', options => '{"stream": "x"}');
SELECT sagaz.create_delivery('x', :'handle', options => 'null');
\set VERBOSITY sqlstate
SELECT sagaz.create_delivery('', :'handle');
SELECT sagaz.create_delivery('x', :'handle', batch_size => 0);
SELECT sagaz.create_delivery('x', :'handle', timeout => '0');
SELECT sagaz.create_delivery('x', :'handle', options => '[]');

-- what cannot take events
\set VERBOSITY terse
CREATE FUNCTION app.one(sagaz.outbox_event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION app.two(sagaz.outbox_event[], integer DEFAULT 1) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION app.empty() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION app.other(jsonb[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION app.rows(sagaz.outbox_event[]) RETURNS SETOF bigint LANGUAGE sql AS 'SELECT 1::bigint';
CREATE PROCEDURE app.call(sagaz.outbox_event[]) LANGUAGE sql AS '';
CREATE AGGREGATE app.collect(sagaz.outbox_event[])
	(SFUNC = array_cat, STYPE = sagaz.outbox_event[]);
SELECT sagaz.create_delivery('x', 'app.one(sagaz.outbox_event)');
SELECT sagaz.create_delivery('x', 'app.two(sagaz.outbox_event[],integer)');
SELECT sagaz.create_delivery('x', 'app.empty()');
SELECT sagaz.create_delivery('x', 'app.other(jsonb[])');
SELECT sagaz.create_delivery('x', 'app.rows(sagaz.outbox_event[])');
SELECT sagaz.create_delivery('x', 'app.call(sagaz.outbox_event[])');
SELECT sagaz.create_delivery('x', 'app.collect(sagaz.outbox_event[])');
SELECT sagaz.create_delivery('x', 'pg_catalog.lower(text)');
SELECT count(*) FROM orders;

-- paused and resumed, more than once
SELECT sagaz.pause_delivery('plain');
SELECT paused_at AS first_pause FROM sagaz.delivery WHERE name = 'plain' \gset
SELECT sagaz.pause_delivery('plain');
SELECT name, paused FROM orders;
SELECT paused_at = :'first_pause' AS same_time FROM sagaz.delivery WHERE name = 'plain';
SELECT name, state FROM sagaz.stat_delivery WHERE name = 'plain';
SELECT sagaz.resume_delivery('plain');
SELECT sagaz.resume_delivery('plain');
SELECT name, paused FROM orders;
BEGIN;
SELECT sagaz.pause_delivery('plain');
SELECT sagaz.create_delivery('undone', :'handle');
ROLLBACK;
SELECT name, paused FROM orders;

-- a timeout longer than a timer can be is one that never comes
SELECT sagaz.create_delivery('slow', :'handle', timeout => '1000 years');
SELECT name, timeout FROM orders WHERE name = 'slow';
SELECT sagaz.drop_delivery('slow');

-- a delivery keeps its group
SELECT sagaz.drop_consumer_group('g');
\set VERBOSITY sqlstate
SELECT sagaz.drop_consumer_group('g');
\set VERBOSITY terse
SELECT sagaz.drop_delivery('full');
SELECT sagaz.drop_consumer_group('g');
SELECT name FROM orders;

-- each sees at once what the one before did
SELECT sagaz.create_consumer_group('h'), sagaz.create_delivery('h', :'handle', 'h'),
	sagaz.pause_delivery('h'), sagaz.resume_delivery('h'), sagaz.drop_delivery('h'),
	sagaz.drop_consumer_group('h');
SELECT name FROM orders;

-- no such delivery
SELECT sagaz.drop_delivery('full');
SELECT sagaz.pause_delivery('nobody');
SELECT sagaz.resume_delivery('nobody');
SELECT sagaz.drop_delivery(NULL);
SELECT sagaz.pause_delivery('');
SELECT sagaz.resume_delivery(NULL);
\set VERBOSITY sqlstate
SELECT sagaz.drop_delivery('full');
SELECT sagaz.pause_delivery(NULL);

-- nothing in a transaction that only reads
BEGIN READ ONLY;
SELECT sagaz.create_delivery('x', :'handle');
ROLLBACK;
BEGIN READ ONLY;
SELECT sagaz.pause_delivery('plain');
ROLLBACK;
BEGIN READ ONLY;
SELECT sagaz.drop_delivery('plain');
ROLLBACK;

-- who may
\set VERBOSITY terse
CREATE ROLE regress_operator LOGIN;
CREATE ROLE regress_second LOGIN;
SET ROLE regress_operator;
SELECT sagaz.create_delivery('x', NULL);
RESET ROLE;
SELECT sagaz.grant_access('regress_operator', 'operator');
SELECT sagaz.grant_access('regress_second', 'operator');
GRANT USAGE ON SCHEMA app TO regress_operator, regress_second;
REVOKE EXECUTE ON FUNCTION app.handle FROM PUBLIC;
SET ROLE regress_operator;
SELECT sagaz.create_delivery('theirs', :'handle');
RESET ROLE;
GRANT EXECUTE ON FUNCTION app.handle TO regress_operator;
SET ROLE regress_operator;
SELECT sagaz.create_delivery('theirs', :'handle');
SELECT sagaz.pause_delivery('plain');
SELECT sagaz.resume_delivery('plain');
SELECT sagaz.drop_delivery('plain');
SELECT sagaz.pause_delivery('theirs');
SELECT name, owner FROM sagaz.delivery WHERE name = 'theirs';
INSERT INTO sagaz.delivery SELECT * FROM sagaz.delivery;
SET ROLE regress_second;
SELECT sagaz.resume_delivery('theirs');
\set VERBOSITY sqlstate
SELECT sagaz.drop_delivery('theirs');
\set VERBOSITY terse
RESET ROLE;
-- who is a member may, and the owner of the extension
GRANT regress_operator TO regress_second;
SET ROLE regress_second;
SELECT sagaz.resume_delivery('theirs');
RESET ROLE;
SELECT sagaz.pause_delivery('theirs');
SELECT name, owner, state FROM sagaz.stat_delivery WHERE name = 'theirs';
SELECT sagaz.drop_delivery('theirs');

-- gone without a trace
SELECT sagaz.drop_delivery('plain');
SELECT count(*) FROM sagaz.stat_delivery;
DROP SCHEMA app CASCADE;
DROP OWNED BY regress_operator, regress_second;
DROP ROLE regress_operator, regress_second;
