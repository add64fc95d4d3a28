-- The inbox tells a second delivery.
\set VERBOSITY terse
SELECT sagaz.check_and_insert_inbox('e1', 'mailer', 'orders', 'created', '{"a": 1}');
SELECT sagaz.check_and_insert_inbox('e1', 'mailer', 'orders', 'created', '{"a": 2}');
SELECT sagaz.check_and_insert_inbox('e1', 'billing', 'orders', 'created', '{"a": 1}');
SELECT consumer_name, event_id, source_topic, event_type, payload,
		consumed_at BETWEEN now() - interval '1 min' AND clock_timestamp() AS now
	FROM sagaz.consumer_inbox ORDER BY 1, 2;
-- ids of other systems fit, and those of events do
SELECT sagaz.check_and_insert_inbox('orders/17@partition 3', 'mailer', 'orders', 'created', 'null');
SELECT sagaz.check_and_insert_inbox(sagaz.uuidv7()::text, 'mailer', 'orders', 'created', '[]');
-- what is rolled back was not seen
BEGIN;
SELECT sagaz.check_and_insert_inbox('e2', 'mailer', 'orders', 'created', '1');
ROLLBACK;
SELECT sagaz.check_and_insert_inbox('e2', 'mailer', 'orders', 'created', '1');
-- bad input
SELECT sagaz.check_and_insert_inbox(NULL, 'c', 't', 'e', '1');
SELECT sagaz.check_and_insert_inbox('', 'c', 't', 'e', '1');
SELECT sagaz.check_and_insert_inbox('i', '', 't', 'e', '1');
SELECT sagaz.check_and_insert_inbox('i', 'c', NULL, 'e', '1');
SELECT sagaz.check_and_insert_inbox('i', 'c', 't', '', '1');
SELECT sagaz.check_and_insert_inbox('i', 'c', 't', 'e', NULL);
SELECT count(*) FROM sagaz.consumer_inbox;
-- what is old is forgotten
UPDATE sagaz.consumer_inbox SET consumed_at = consumed_at - interval '8 days'
	WHERE event_id = 'e1' AND consumer_name = 'mailer';
SELECT sagaz.cleanup_inbox('7 days');
SELECT sagaz.cleanup_inbox('7 days');
SELECT sagaz.check_and_insert_inbox('e1', 'mailer', 'orders', 'created', '{}');
SELECT sagaz.check_and_insert_inbox('e1', 'billing', 'orders', 'created', '{}');
SELECT sagaz.cleanup_inbox('10000 years');
SELECT sagaz.cleanup_inbox('-1 day');
SELECT sagaz.cleanup_inbox(NULL);
