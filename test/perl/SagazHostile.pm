# Asks all that can be asked of a storage whose other end is hostile, and sees
# that the server stands and that nothing but an answer or an error comes of it.
package SagazHostile;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;
use SagazTest;
use Test::More;
use Time::HiRes 'time';

our @EXPORT = qw(hostile_node hostile_seed hostile_some hostile_rounds ask_all stands);

# Reads and writes of a storage named x; an error ends none of the others.
my $event = "'00000000-0000-4000-8000-000000000001'";
my @asked = (
	"SELECT sagaz.count_records('saga', 'x'), sagaz.count_records('outbox', 'x')",
	"SELECT sagaz.load_saga_state('order-1', 'x')",
	"SELECT count(*) FROM sagaz.list_sagas(storage => 'x')",
	"SELECT count(*) FROM sagaz.list_sagas('executing', 'Order', storage => 'x')",
	"SELECT sagaz.save_saga_state('order-1', 'Order', 'executing', '[{\"name\": \"a\"}]', '{\"b\": 1}', storage => 'x')",
	"SELECT sagaz.update_step_state('order-1', 'a', 'completed', storage => 'x')",
	"SELECT sagaz.insert_event('order-1', 'E', '{}', storage => 'x')",
	"SELECT sagaz.insert_events('[{\"saga_id\": \"order-1\", \"event_type\": \"E\", \"payload\": 1}, {\"saga_id\": \"order-2\", \"event_type\": \"E\", \"payload\": 2}]', 'x')",
	"SELECT count(*) FROM sagaz.claim_batch('w', 10, storage => 'x')",
	"SELECT sagaz.finish_batch(batch_id, 'w', 'x') FROM sagaz.claim_batch('w', 1, storage => 'x')",
	"SELECT sagaz.release_batch(batch_id, 'w', 'no', storage => 'x') FROM sagaz.claim_batch('w', 1, storage => 'x')",
	"SELECT sagaz.extend_batch(batch_id, 'w', '1 min', 'x') FROM sagaz.claim_batch('w', 1, storage => 'x')",
	"SELECT sagaz.mark_sent(ARRAY[event_id], 'w', storage => 'x') FROM sagaz.claim_batch('w', 1, storage => 'x')",
	"SELECT sagaz.mark_failed(ARRAY[event_id], 'w', 'no', storage => 'x') FROM sagaz.claim_batch('w', 1, storage => 'x')",
	"SELECT sagaz.update_event_status($event, 'sent', storage => 'x')",
	"SELECT count(*) FROM sagaz.get_event($event, storage => 'x')",
	"SELECT count(*) FROM sagaz.get_events_by_saga('order-1', storage => 'x')",
	"SELECT count(*) FROM sagaz.get_stuck_events('0', storage => 'x')",
	"SELECT sagaz.get_pending_count(storage => 'x')",
	"SELECT * FROM sagaz.get_outbox_statistics(storage => 'x')",
	"SELECT count(*) FROM sagaz.get_saga_statistics('x')",
	"SELECT count(*) FROM sagaz.stuck_sagas('1 s', 'x')",
	"SELECT count(*) FROM sagaz.get_dead_letter_events(storage => 'x')",
	"SELECT sagaz.requeue_dead_letters(storage => 'x')",
	"SELECT sagaz.release_stuck_events('0', storage => 'x')",
	"SELECT sagaz.archive_sent_events('0', storage => 'x')",
	"SELECT status FROM sagaz.health_check('x')",
	"SELECT count(*) FROM sagaz.export_all('saga', 'x')",
	"SELECT count(*) FROM sagaz.export_all('outbox', 'x')",
	"SELECT sagaz.import_record('{\"saga_id\": \"order-3\", \"saga_name\": \"Order\", \"status\": \"pending\"}', 'saga', 'x')",
	"SELECT sagaz.import_records('[{\"saga_id\": \"order-4\", \"saga_name\": \"Order\", \"status\": \"pending\"}]', 'saga', 'skip', 'x')",
	"SELECT sagaz.checksum('saga', 'x'), sagaz.checksum('outbox', 'x')",
	"SELECT count(*) FROM sagaz.validate_transfer('x', 'native')",
	"CALL sagaz.transfer('x', 'memory://hostile', on_error => 'skip')",
	"CALL sagaz.transfer('native', 'x', on_error => 'skip')",
	"IMPORT FOREIGN SCHEMA sagaz FROM SERVER x INTO hostile",
	"SELECT count(*) FROM hostile.sagas WHERE status = 'executing'",
	"SELECT count(*) FROM (SELECT * FROM hostile.outbox_events ORDER BY created_at LIMIT 3) AS e",
	"UPDATE hostile.sagas SET status = 'failed' WHERE saga_id = 'order-1'",
	"ANALYZE hostile.sagas",
	"DROP SCHEMA hostile CASCADE; CREATE SCHEMA hostile",
	"SELECT sagaz.delete_saga_state('order-1', 'x')");

# A cluster that writes down which errors there were, and waits so long for answers.
sub hostile_node
{
	my ($timeout) = @_;
	my $node = new_node('hostile', conf => "fsync = off\nlog_error_verbosity = verbose\nsagaz.command_timeout = $timeout\nsagaz.max_reply = 4MB\nsagaz.max_crashes = 0\nsagaz.retry_backoff = 100ms\n");

	$node->safe_psql('postgres', 'CREATE SCHEMA hostile');
	return $node;
}

# SAGAZ_SEED repeats a run, or FUZZ_SEED all of "make fuzz".
sub hostile_seed
{
	my ($seed) = (grep({ length } $ENV{SAGAZ_SEED} // '', $ENV{FUZZ_SEED} // ''), int rand 1e9);

	diag "SAGAZ_SEED=$seed";
	return $seed;
}

# So many of the cases, or all where there is time.
sub hostile_some
{
	my ($count, @cases) = @_;

	return $ENV{FUZZ_SECONDS} ? @cases : map { $cases[rand @cases] } 1 .. $count;
}

# Asks all of a storage again and again, eight seconds or FUZZ_SECONDS long; the
# code gets the number of the round and returns what ask_all() takes.
sub hostile_rounds
{
	my ($node, $seed, $code) = @_;
	my ($rounds, %seen) = (0);
	my $until = time + ($ENV{FUZZ_SECONDS} || 8);

	while (time < $until)
	{
		my @asked = $code->($rounds++);

		$seen{$_}++ for ask_all($node, @asked) =~ /(?:ERROR|FATAL|WARNING):  (\w{5})/g;
		last unless $node->poll_query_until('postgres', 'SELECT true');
	}
	ok(%seen, "errors came of $rounds rounds") and note(join ' ', map { "$_: $seen{$_}" } sort keys %seen);
	stands($node, "seed $seed");
}

# All of it in one session, which ends where the server does; returns what it said.
# The further statements come before and after.
sub ask_all
{
	my ($node, $url, $before, $after) = @_;
	my $err = '';

	IPC::Run::run(
		[ $node->installed_command('psql'), '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres') ],
		'<', \join(";\n", "SELECT sagaz.create_storage('x', '$url')", "SET statement_timeout = '60s'",
			$before // '', @asked, $after // '', "SELECT sagaz.drop_storage('x')", ''),
		'>', \my $out, '2>', \$err);
	return $err;
}

# The server is the one that was started, no process of it has died, and no call
# was without an end or met what should not be.
sub stands
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $log = slurp_file($node->logfile);

	my @starts = $log =~ /ready to accept connections/g;

	is(scalar @starts, 1, "$name: the server stands");
	is(join("\n", $log =~ /(.*(?:was terminated by signal|TRAP:|PANIC).*)/g), '', "$name: no process has died");
	# where the other end is this server, it gives up its side by itself
	is(join("\n", $log =~ /((?:(?<!\] sagaz )(?:ERROR|FATAL):  57014|(?:ERROR|FATAL|WARNING):  XX).*(?:\n.* (?:LOCATION|STATEMENT):  .*)*)/g), '', "$name: each call has an answer or an error of its own");
}

1;
