# Asks all that can be asked of a storage whose other end is hostile, and sees
# that the server stands and that nothing but an error comes of it.
package SagazHostile;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes 'time';

our @EXPORT = qw(hostile_seconds hostile_seed ask_all stands);

# Reads and writes of a storage named x; an error ends none of the others.
my @asked = (
	"SELECT sagaz.count_records('saga', 'x'), sagaz.count_records('outbox', 'x')",
	"SELECT sagaz.load_saga_state('order-1', 'x')",
	"SELECT count(*) FROM sagaz.list_sagas(storage => 'x')",
	"SELECT sagaz.save_saga_state('order-1', 'Order', 'executing', '[{\"name\": \"a\"}]', '{\"b\": 1}', storage => 'x')",
	"SELECT sagaz.update_step_state('order-1', 'a', 'completed', storage => 'x')",
	"SELECT sagaz.insert_event('order-1', 'E', '{}', storage => 'x')",
	"SELECT count(*) FROM sagaz.claim_batch('w', 10, storage => 'x')",
	"SELECT sagaz.finish_batch(batch_id, 'w', 'x') FROM sagaz.claim_batch('w', 1, storage => 'x')",
	"SELECT count(*) FROM sagaz.get_events_by_saga('order-1', 'x')",
	"SELECT * FROM sagaz.get_outbox_statistics(storage => 'x')",
	"SELECT count(*) FROM sagaz.get_saga_statistics('x')",
	"SELECT count(*) FROM sagaz.stuck_sagas('1 s', 'x')",
	"SELECT count(*) FROM sagaz.get_dead_letter_events(storage => 'x')",
	"SELECT status FROM sagaz.health_check('x')",
	"SELECT count(*) FROM sagaz.export_all('saga', 'x')",
	"SELECT count(*) FROM sagaz.export_all('outbox', 'x')",
	"SELECT sagaz.checksum('saga', 'x')",
	"SELECT count(*) FROM sagaz.validate_transfer('x', 'native')",
	"CALL sagaz.transfer('x', 'memory://hostile', on_error => 'skip')",
	"CALL sagaz.transfer('native', 'x', on_error => 'skip')",
	"SELECT sagaz.delete_saga_state('order-1', 'x')");

# How long it goes on; FUZZ_SECONDS for long.
sub hostile_seconds
{
	return $ENV{FUZZ_SECONDS} // 8;
}

# SAGAZ_SEED repeats a run.
sub hostile_seed
{
	my $seed = $ENV{SAGAZ_SEED} // int rand 1e9;

	note "SAGAZ_SEED=$seed";
	return $seed;
}

# All of it in one session, which ends where the server does; returns what it said.
sub ask_all
{
	my ($node) = @_;
	my $err = '';

	IPC::Run::run(
		[ $node->installed_command('psql'), '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres') ],
		'<', \join(";\n", "SET sagaz.command_timeout = '1s'", "SET statement_timeout = '20s'", @asked, ''),
		'>', \my $out, '2>', \$err);
	return $err;
}

# The server is the one that was started, and no process of it has died.
sub stands
{
	my ($node, $started, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, "$name: the server stands");
	unlike(slurp_file($node->logfile), qr/was terminated by signal|TRAP:|Segmentation|PANIC/, "$name: no process has died");
}

1;
