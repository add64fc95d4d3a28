-- grant_access() and revoke_access(); which kind has which function is told by
-- the pgTAP test "privileges".
\set VERBOSITY terse
CREATE ROLE regress_producer;
CREATE ROLE regress_consumer;
CREATE ROLE regress_other;
-- nobody has anything
SET ROLE regress_producer;
SELECT sagaz.insert_event('a', 'b', '1');
INSERT INTO sagaz.emit (saga_id, event_type, payload) VALUES ('a', 'b', '1');
RESET ROLE;
SELECT sagaz.grant_access('regress_producer', 'producer');
SELECT sagaz.grant_access('regress_consumer', 'consumer');
-- a producer emits, in every way, and no more
SET ROLE regress_producer;
SELECT sagaz.insert_event('a', 'b', '1') IS NOT NULL AS inserted;
SELECT cardinality(sagaz.insert_events('[{"saga_id": "a", "event_type": "b", "payload": 1}]'));
INSERT INTO sagaz.emit (saga_id, event_type, payload) VALUES ('a', 'b', '1'), ('a', 'c', '2')
	RETURNING event_id IS NOT NULL AS id, created_at <= clock_timestamp() AS time;
SELECT payload FROM sagaz.emit;
UPDATE sagaz.emit SET payload = '0';
DELETE FROM sagaz.emit;
SELECT * FROM sagaz.outbox;
INSERT INTO sagaz.outbox (saga_id, event_type, payload) VALUES ('a', 'b', '1');
SELECT nextval('sagaz.outbox_seq');
SELECT setval('sagaz.outbox_seq', 1);
SELECT * FROM sagaz.claim_batch('w');
SELECT sagaz.grant_access('regress_producer', 'consumer');
-- a consumer claims and finishes, and no more
SET ROLE regress_consumer;
SELECT batch_id, count(*) FROM sagaz.claim_batch('w') GROUP BY 1 \gset
SELECT sagaz.finish_batch(:batch_id, 'w') = :count AS finished;
SELECT sagaz.check_and_insert_inbox('1', 'c', 't', 'e', '1');
CALL sagaz.wait_for_events('0');
SELECT sagaz.insert_event('a', 'b', '1');
SELECT * FROM sagaz.outbox_batch;
SELECT sagaz.drop_consumer_group('sagaz-workers');
RESET ROLE;
-- bad input
SELECT sagaz.grant_access('regress_other', 'owner');
SELECT sagaz.grant_access('regress_other', NULL);
SELECT sagaz.grant_access('nobody', 'consumer');
SELECT sagaz.grant_access('public', 'consumer');
SELECT sagaz.grant_access(NULL, 'consumer');
SELECT sagaz.revoke_access('nobody', 'consumer');
-- only the owner gives, even where EXECUTE was given away
GRANT USAGE ON SCHEMA sagaz, sagaz_internal TO regress_other;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sagaz, sagaz_internal TO regress_other;
SET ROLE regress_other;
SELECT sagaz.grant_access('regress_other', 'consumer');
SELECT sagaz.revoke_access('regress_producer', 'producer');
RESET ROLE;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA sagaz, sagaz_internal FROM regress_other;
REVOKE USAGE ON SCHEMA sagaz, sagaz_internal FROM regress_other;
-- what is taken away is what no other kind of access needs
SELECT sagaz.grant_access('regress_consumer', 'monitor');
SELECT sagaz.revoke_access('regress_consumer', 'monitor');
SET ROLE regress_consumer;
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT sagaz.get_pending_count();
SELECT count(*) FROM sagaz.outbox_events;
RESET ROLE;
-- a monitor sees where things stand and changes nothing, an operator does both
SELECT sagaz.grant_access('regress_other', 'monitor');
SET ROLE regress_other;
SELECT status, count(*) FROM sagaz.outbox_events GROUP BY 1;
SELECT count(*) FROM sagaz.sagas;
SELECT sagaz.get_pending_count();
SELECT sagaz.requeue_dead_letters();
DELETE FROM sagaz.sagas;
RESET ROLE;
SELECT sagaz.grant_access('regress_other', 'operator');
SELECT sagaz.insert_event('a', 'poison', '1', event_id => '00000000-0000-0000-0000-000000000001');
SET ROLE regress_other;
SELECT sagaz.requeue_dead_letters();
SELECT status FROM sagaz.update_event_status('00000000-0000-0000-0000-000000000001', 'dead_letter');
SELECT status FROM sagaz.explain_event('00000000-0000-0000-0000-000000000001');
SELECT sagaz.create_consumer_group('g');
SELECT sagaz.drop_consumer_group('g');
RESET ROLE;
SELECT sagaz.grant_access('regress_other', 'monitor');
SELECT sagaz.revoke_access('regress_other', 'operator');
-- and then nothing is left, so the roles can go
SELECT sagaz.revoke_access('regress_producer', 'producer');
SELECT sagaz.revoke_access('regress_consumer', 'consumer');
DROP ROLE regress_producer, regress_consumer, regress_other;
