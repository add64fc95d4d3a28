# 10,000 failing calls leave nothing behind in the session: no memory, no lock,
# no snapshot; it works afterwards.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazTest;
use Test::More;

my $node = new_node('memory', conf => "sagaz.retry_backoff = 1h\n");

# One event sent, one that failed, one that is out, and one of an ordered group.
$node->safe_psql('postgres', <<'SQL');
SELECT sagaz.create_consumer_group('ordered', 'saga');
SELECT sagaz.insert_event('a', 'event', '1', event_id => id) FROM unnest('{
	11111111-1111-7111-8111-111111111111,22222222-2222-7222-8222-222222222222,
	33333333-3333-7333-8333-333333333333}'::uuid[]) id;
SELECT batch_id FROM sagaz.claim_batch('w');
SELECT sagaz.mark_sent('{11111111-1111-7111-8111-111111111111}', 'w');
SELECT sagaz.mark_failed('{22222222-2222-7222-8222-222222222222}', 'w', 'bad');
SELECT sagaz.save_saga_state('saga-1', 'order', 'executing', '[{"name": "pay", "status": "pending"}]');
SQL
my $batch =
  $node->safe_psql('postgres', 'SELECT batch_id FROM sagaz.outbox_batch');

# Each fails at another depth.
my @failing = (
	q(SELECT sagaz.claim_batch('w', 0)),
	q(SELECT sagaz.claim_batch('w', consumer_group => 'nobody')),
	q(SELECT sagaz.claim_batch(repeat('w', 10000), 100, '-1 day')),
	"SELECT sagaz.finish_batch($batch, 'other')",
	"SELECT sagaz.release_batch($batch, 'other')",
	q(SELECT sagaz.extend_batch(999 * 1024 + 1, 'w', '1 day')),
	q(SELECT sagaz.mark_sent('{11111111-1111-7111-8111-111111111111}', 'w')),
	q(SELECT sagaz.mark_sent('{33333333-3333-7333-8333-333333333333,22222222-2222-7222-8222-222222222222}', 'w')),
	q(SELECT sagaz.mark_failed('{33333333-3333-7333-8333-333333333333}', 'w', 'bad', 'ordered')),
	q(SELECT sagaz.insert_event('a', 'event', '1', event_id => '11111111-1111-7111-8111-111111111111')),
	q(SELECT sagaz.insert_event('', 'event', '1')),
	q(SELECT sagaz.insert_events((SELECT jsonb_agg(jsonb_build_object('saga_id', CASE WHEN n < 50 THEN 'a' ELSE '' END, 'event_type', 'x', 'payload', repeat('x', 1000))) FROM generate_series(1, 50) n))),
	q(INSERT INTO sagaz.emit (saga_id, event_type, payload) VALUES ('', 'x', '1')),
	q(SELECT sagaz.save_saga_state('saga-1', 'order', 'executing', '[{"name": "pay", "status": "paid"}]')),
	q(SELECT sagaz.save_saga_state('saga-1', 'order', 'executing', expected_version => 99)),
	q(SELECT sagaz.update_step_state('saga-1', 'ship', 'completed')),
	q(SELECT sagaz.create_consumer_group('ordered')),
	q(SELECT sagaz.drop_consumer_group('nobody')),
	q(SELECT sagaz.update_event_status('11111111-1111-7111-8111-111111111111', 'pending')),
	q(SELECT sagaz.get_event('11111111-1111-7111-8111-111111111111', 'nobody')),
	q(SELECT sagaz.load_saga_state('saga-1', 'elsewhere')),
	q(SELECT sagaz.adopt('nowhere')),
	q(BEGIN; SELECT sagaz.claim_batch('w'); CALL sagaz.wait_for_events('1 hour', available => NULL); ROLLBACK),
	q(BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT sagaz.claim_batch('w'); ROLLBACK),
	q(BEGIN; SAVEPOINT s; SELECT sagaz.claim_batch('', 1); ROLLBACK TO s; SELECT sagaz.finish_batch(1, 'w'); ROLLBACK));

# Run statements in one session; what psql said, and how many errors there were.
sub run
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql,
		on_error_stop => 0);
	my $errors = () = $err =~ /ERROR:/g;

	return ($out, $errors);
}

my $errors_a_round = 0;
for my $call (@failing)
{
	my ($out, $errors) = run($call);

	$errors or fail("this should fail: $call");
	$errors_a_round += $errors;
}

# Memory as the session itself sees it; locks and snapshot as another does
# while it is idle.
my $connstr = $node->connstr('postgres');
my $look = <<"SQL";
SELECT sum(total_bytes) FROM pg_backend_memory_contexts;
\\! psql -XAtq -d "$connstr" -c "SELECT backend_xmin IS NULL, backend_xid IS NULL, state, (SELECT count(*) FROM pg_locks l WHERE l.pid = a.pid) FROM pg_stat_activity a WHERE application_name = 'fails'"
SQL
my $calls = join(";\n", @failing) . ";\n";
my $rounds = int(10_000 / $errors_a_round) + 1;
my ($out, $errors) = run("SET application_name = 'fails';\n"
	  . $calls x 5 . $look . $calls x $rounds . $look
	  . "SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 'ordered');\n");
my ($before, undef, $after, $held, $claimed) = split /\n/, $out, 5;

is($errors, $errors_a_round * ($rounds + 5), 'all fail');
cmp_ok($errors, '>=', 10_000, "$errors times");
cmp_ok($after - $before, '<', 100_000,
	"memory stays within bounds: $before bytes, then $after");
is($held, 't|t|idle|0', 'neither snapshot nor xid nor lock is held');
is($claimed, "event\nevent\nevent", 'the session works afterwards');
$node->stop;

done_testing();
