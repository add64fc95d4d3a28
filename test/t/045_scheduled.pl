# Scheduled events of one saga, due in another order than they were emitted: an
# ordered group has them in the order of emission, so that a failure holds back
# the same events for the outbox as for who handles them.
use strict;
use warnings;

use SagazDelivery;
use SagazTest;
use Test::More;

my $node = new_node('scheduled', conf => <<'CONF');
fsync = off
sagaz.retry_backoff = 50ms
CONF

prepare_delivery($node, 'postgres');
$node->safe_psql('postgres', <<'SQL');
SELECT sagaz.create_consumer_group('client', 'saga'),
	sagaz.create_consumer_group('worker', 'saga');
SELECT sagaz.insert_event('saga', 'a', '{}', available_at => now() + '300 ms'),
	sagaz.insert_event('saga', 'b', '{}', available_at => now() + '100 ms'),
	sagaz.insert_event('saga', 'c', '{}', available_at => now() + '200 ms');
-- the claims make them wait for their time
SELECT count(*) FROM sagaz.claim_batch('w', 10, '0', 'client');
SELECT count(*) FROM sagaz.claim_batch('w', 10, '0', 'worker');

CREATE FUNCTION fail_on_b(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.handle(events);
	IF EXISTS (SELECT FROM unnest(events) WHERE event_type = 'b' AND retry_count = 0) THEN
		RAISE 'bad event';
	END IF;
END $$;
SQL
query_is($node, 'postgres',
	'SELECT count(*) FROM sagaz.outbox_retry WHERE next_attempt_at <= clock_timestamp()',
	'6', 'all are due');

is( $node->safe_psql('postgres', <<'SQL'), 'a b c', 'a claim has them in order');
SELECT string_agg(event_type, ' ' ORDER BY turn)
	FROM sagaz.claim_batch('w', 10, '0', 'client') WITH ORDINALITY AS e (event_id,
		saga_id, aggregate_type, aggregate_id, event_type, payload, headers, status,
		created_at, claimed_at, sent_at, retry_count, last_error, worker_id,
		routing_key, partition_key, batch_id, consumer_group, turn)
SQL

create_delivery($node, 'postgres', 'd', handler => 'fail_on_b', group => 'worker');
exactly_once($node, 'postgres', 'delivery', 'worker');
is( $node->safe_psql('postgres', <<'SQL'), 'a b c', 'in order, although one failed');
SELECT string_agg(event_type, ' ' ORDER BY at) FROM effects JOIN sagaz.outbox USING (event_id)
SQL
$node->stop;

done_testing();
