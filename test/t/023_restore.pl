# pg_dump while the application runs, restored into a cluster whose xids are
# lower, into another database of the same cluster, and into a cluster whose
# xids are higher: as of the dump's snapshot nothing is lost and nothing that
# was finished is delivered again.
use strict;
use warnings;

use SagazSession;
use SagazTest;
use SagazWork;
use Test::More;

# A transaction that writes nothing but takes an xid, so many times.
sub burn_xids
{
	my ($node, $count) = @_;

	$node->safe_psql('postgres', <<"SQL");
DO \$\$
BEGIN
	FOR i IN 1 .. $count LOOP
		PERFORM pg_current_xact_id();
		COMMIT;
	END LOOP;
END \$\$
SQL
}

sub next_xid
{
	return $_[0]->safe_psql('postgres', 'SELECT pg_current_xact_id()');
}

my $source = new_node('source', conf => work_conf());
my $target = new_node('target', conf => work_conf(), create => 0);
my $dump = $source->basedir . '/dump.sql';

prepare_work($source);
burn_xids($source, 5000);
my $work = start_work($source, 10);
$source->poll_query_until('postgres', is_busy()) or die 'no work';

# a writer that is still running when the snapshot is taken
my $writer = SagazSession->new($source, 'postgres');
$writer->query('BEGIN');
$writer->query(
	q(SELECT sagaz.insert_event('long', 'created', '{"n": 1}') IS NULL));
my $exporter = SagazSession->new($source, 'postgres');
$exporter->query('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $snapshot = $exporter->query('SELECT pg_export_snapshot()');
my $contents = $exporter->query(contents());
$writer->query(
	q(SELECT sagaz.insert_event('long', 'created', '{"n": 2}') IS NULL));
$writer->query('COMMIT');

$source->command_ok(
	[
		'pg_dump', "--snapshot=$snapshot", "--file=$dump",
		$source->connstr('postgres')
	],
	'pg_dump while the application runs');
$exporter->query('COMMIT');
$_->close for $writer, $exporter;
ok($work->finish, 'the application saw no error')
  or diag(PostgreSQL::Test::Utils::slurp_file($source->basedir . '/pgbench.log'));

# Restore the dump and see that nothing is lost or repeated.
sub check_restore
{
	my ($node, $db, $name) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->command_ok(
		[
			'psql', '--no-psqlrc', '--quiet', '--set=ON_ERROR_STOP=1',
			"--file=$dump", $node->connstr($db)
		],
		"$name: restored");
	is($node->safe_psql($db, contents()), $contents,
		"$name: the data are those of the dump");
	is( $node->safe_psql($db,
			q(SELECT count(*) FROM sagaz.outbox WHERE saga_id = 'long')),
		'0', "$name: a transaction that was running is not in it");
	check_inert($node, $db, $name);
	$node->safe_psql($db, 'SELECT sagaz.activate()');
	check_delivery($node, $db, $name);
	$node->safe_psql($db, 'SELECT sagaz.activate()');
	is( $node->safe_psql($db,
			q(SELECT count(*) FROM sagaz.claim_batch('w', 1, '0', 'free'))),
		'0', "$name: to activate again changes nothing");
}

cmp_ok(next_xid($target), '<', next_xid($source) / 2,
	'the other cluster has lower xids');
check_restore($target, 'low', 'lower xids');
check_restore($source, 'same', 'same cluster');
burn_xids($target, next_xid($source) - next_xid($target) + 1000);
cmp_ok(next_xid($target), '>', next_xid($source),
	'the other cluster has higher xids');
check_restore($target, 'high', 'higher xids');

# the original goes on as if nothing had been
$source->safe_psql('postgres',
	q(SELECT sagaz.insert_event('fresh', 'created', jsonb_build_object('n', n)) FROM generate_series(1, 2) n));
check_delivery($source, 'postgres', 'original');

# A delivery that no event has passed yet does not run in a copy either.
$source->safe_psql('postgres', 'CREATE DATABASE unused');
$source->safe_psql('unused', <<'SQL');
CREATE EXTENSION sagaz;
CREATE FUNCTION handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS '';
SELECT sagaz.create_delivery('d', 'public.handle(sagaz.outbox_event[])');
SQL
$source->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE unused');
for my $db ('unused', 'copy')
{
	is( $source->safe_psql($db,
			q(SELECT details->>'active' FROM sagaz.health_check())),
		$db eq 'unused' ? 'true' : 'false', "is the outbox active in $db?");
}
# in a restored one the function is another, until activate() binds it
$source->safe_psql('postgres', 'CREATE DATABASE restored');
$source->command_ok([ 'pg_dump', "--file=$dump", $source->connstr('unused') ], 'a dump of it');
$source->command_ok([ 'psql', '-Xq', "--file=$dump", $source->connstr('restored') ], 'restored');
is($source->safe_psql('restored', 'SELECT state FROM sagaz.stat_delivery'), 'stopped', 'its delivery is stopped');
unlike($source->safe_psql('restored', 'SELECT h::text FROM sagaz.health_check() h'), qr/stands still/,
	'and nothing is missing');
$source->safe_psql('restored', q(SELECT sagaz.insert_event('s', 'created', '1')));
like($source->safe_psql('restored', 'SELECT reason FROM sagaz.outbox, sagaz.explain_event(event_id)'),
	qr/^not handed out yet: .*; the outbox is not active in this database, see sagaz.activate\(\)$/, 'an event waits for activate() alone');
$_->stop for $source, $target;

done_testing();
