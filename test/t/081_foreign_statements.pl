# Foreign tables over storages in larger statements: cursors that are open while
# the storage changes, COPY, triggers, partitions, views, CTEs; when the storage
# is asked for its size; databases with sagaz at the other end.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use SagazTransfer;
use Test::More;

my $node = new_node('statements', conf => "fsync = off\ntimezone = 'UTC'\n");
my $other = new_node('statements_other', conf => "fsync = off\n");
my $files = PostgreSQL::Test::Utils::tempdir();
my $redis = SagazRedis->new->start;
my $session = SagazSession->new($node, 'postgres');

$other->safe_psql('postgres', 'CREATE DATABASE main');
$other->safe_psql('main', 'CREATE EXTENSION sagaz');
$other->safe_psql('postgres', 'CREATE DATABASE library');
$session->query("SELECT sagaz.create_storage('cache', '" . $redis->url . "')");
$session->query("SELECT sagaz.create_storage('file', 'sqlite://$files/a.db')");
$session->query("SELECT sagaz.create_storage('mem', 'memory://a')");
$session->query("SELECT sagaz.create_storage('far', '" . database_url($other, 'library') . "?layout=library')");
$session->query("SELECT sagaz.create_storage('near', '" . database_url($other, 'main') . "')");

my %schema = (cache => 'c', file => 'f', mem => 'm', far => 'l', near => 'n');

for my $server (sort keys %schema)
{
	my $s = $schema{$server};

	$session->query("CREATE SCHEMA $s; IMPORT FOREIGN SCHEMA sagaz FROM SERVER $server INTO $s");
	is($session->outcome("INSERT INTO $s.sagas (saga_id, saga_name) SELECT 's' || i, 'n' FROM generate_series(1, 300) i;"), '', "$server: sagas");
}

# How often a command reached the server meanwhile.
sub calls
{
	my ($command, $act) = @_;
	my $before = $redis->cli('INFO', 'commandstats') =~ /cmdstat_$command:calls=(\d+)/ ? $1 : 0;

	$act->();
	return ($redis->cli('INFO', 'commandstats') =~ /cmdstat_$command:calls=(\d+)/ ? $1 : 0) - $before;
}

# ----------------------------------------------------------------------
# Cursors that are open

for my $server (sort keys %schema)
{
	my $s = $schema{$server};

	is($session->query("BEGIN; DECLARE k CURSOR FOR SELECT saga_id FROM $s.sagas; MOVE 10 IN k;"
			  . " SELECT count(*) FROM $s.sagas a JOIN $s.sagas b USING (saga_id); MOVE 10 IN k; COMMIT"),
		'300', "$server: two readers beside a cursor");
	next if $server eq 'mem';

	# the storage is opened anew, and the cursor goes on with the one it has
	is($session->outcome("BEGIN; DECLARE k CURSOR FOR SELECT saga_id FROM $s.sagas; MOVE 10 IN k;"
			  . " ALTER SERVER $server OPTIONS (ADD closed 'false');"
			  . " SELECT count(*) FROM $s.sagas;"
			  . " CREATE TEMP TABLE rest (saga_id text) ON COMMIT DROP;"
			  . q{ DO $$DECLARE c refcursor := 'k'; r record; BEGIN LOOP FETCH c INTO r; EXIT WHEN NOT FOUND; INSERT INTO rest VALUES (r.saga_id); END LOOP; END$$;}
			  . ' SELECT count(DISTINCT saga_id) FROM rest; COMMIT;'),
		"300\n290\n", "$server: a cursor outlasts ALTER SERVER");
	is($session->query("SELECT count(*) FROM $s.sagas"), '300', "$server: and all goes on");
}

# A statement does not meet the rows that it inserts.
for my $server (sort keys %schema)
{
	my $s = $schema{$server};

	is($session->outcome("BEGIN; SET LOCAL statement_timeout = '60s'; SET LOCAL work_mem = '64kB';"
			  . " INSERT INTO $s.sagas (saga_id, saga_name) SELECT saga_id || 'x', 'own' FROM $s.sagas;"
			  . " SELECT count(*) FROM $s.sagas WHERE saga_name = 'own'; COMMIT;"),
		"300\n", "$server: INSERT from the same table");
	$session->query("DELETE FROM $s.sagas WHERE saga_name = 'own'");
}

# ----------------------------------------------------------------------
# COPY, and who looks at rows

my $rows = "$files/rows.csv";
append_to_file($rows, join '', map { "c$_,n\n" } 1 .. 250);
# How many commands reached the server meanwhile, this question not counted.
sub commands
{
	my ($act) = @_;
	my $count = sub { $redis->cli('INFO', 'stats') =~ /total_commands_processed:(\d+)/ ? $1 : die };
	my $before = $count->();

	$act->();
	return $count->() - $before - 1;
}

my $by_copy = commands(sub { is($session->outcome("COPY c.sagas (saga_id, saga_name) FROM '$rows' (FORMAT csv);"), '', 'COPY') });
my $by_insert = commands(sub { $session->query(q{INSERT INTO c.sagas (saga_id, saga_name) SELECT 'd' || i, 'n' FROM generate_series(1, 250) i}) });
cmp_ok($by_copy, '>', 0, 'COPY asks the server');
is($by_copy, $by_insert, 'as often as INSERT');
is($session->query(q{SELECT count(*) FROM c.sagas WHERE saga_id LIKE 'c%' OR saga_id LIKE 'd%'}), '500', 'and all are there');
append_to_file($rows, "c1,n\n");
is($session->outcome("COPY f.sagas (saga_id, saga_name) FROM '$rows' (FORMAT csv);"), "ERROR 23505\n", 'COPY with one twice');
is($session->query(q{SELECT count(*) FROM f.sagas WHERE saga_id LIKE 'c%'}), '200', 'two whole batches are there, and nothing of the third');

$session->query(<<'SQL');
CREATE TABLE log (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log SELECT TG_OP || ' ' || COALESCE(NEW.saga_id, OLD.saga_id) || ' ' || count(*) FROM f.sagas WHERE saga_id LIKE 't%';
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR DELETE ON f.sagas FOR EACH ROW EXECUTE FUNCTION note();
INSERT INTO f.sagas (saga_id, saga_name) VALUES ('t1', 'n'), ('t2', 'n');
DELETE FROM f.sagas WHERE saga_id = 't1';
SQL
is($session->query("SELECT string_agg(what, ', ') FROM log"), 'INSERT t1 2, INSERT t2 2, DELETE t1 2', 'AFTER triggers');
$session->query('DROP TRIGGER note ON f.sagas');
is($session->query("SELECT count(*) FROM f.sagas WHERE saga_id LIKE 't%'"), '1', 'and the deletion is done');

$session->query('CREATE TABLE taken (saga_id text, saga_name text)');
is($session->outcome("WITH gone AS (DELETE FROM c.sagas WHERE saga_id LIKE 'd1%' RETURNING saga_id, saga_name)"
		  . " INSERT INTO taken SELECT * FROM gone; SELECT count(*) FROM taken; SELECT count(*) FROM c.sagas WHERE saga_id LIKE 'd1%';"),
	"111\n0\n", 'a CTE that deletes');
is($session->outcome("UPDATE c.sagas s SET saga_name = t.saga_name || '!' FROM (VALUES ('d20', 'x')) t(saga_id, saga_name)"
		  . " WHERE s.saga_id = t.saga_id RETURNING s.saga_id, s.saga_name;"), "d20|x!\n", 'UPDATE from a local table');
is($session->outcome("BEGIN; UPDATE c.sagas SET saga_name = 'y' WHERE saga_id = 'd20'; ROLLBACK;"
		  . " SELECT saga_name FROM c.sagas WHERE saga_id = 'd20';"), "y\n", 'which is not rolled back');

# ----------------------------------------------------------------------
# Partitions and views: whose rights decide

$session->query(<<'SQL');
CREATE TABLE parted (saga_id text, saga_name text) PARTITION BY LIST (saga_name);
CREATE TABLE parted_here PARTITION OF parted FOR VALUES IN ('here');
CREATE FOREIGN TABLE parted_there PARTITION OF parted FOR VALUES IN ('there') SERVER cache OPTIONS (type 'saga');
CREATE VIEW over_parted AS SELECT * FROM parted;
CREATE VIEW over_one AS SELECT saga_id, status FROM c.sagas WHERE saga_id = 's1';
CREATE ROLE reader LOGIN;
GRANT SELECT, INSERT ON over_parted TO reader;
GRANT SELECT, UPDATE ON over_one TO reader;
GRANT USAGE ON SCHEMA c TO reader;
SQL
is($session->outcome("INSERT INTO parted SELECT 'p' || i, CASE WHEN i % 2 = 0 THEN 'here' ELSE 'there' END FROM generate_series(1, 6) i;"
		  . " SELECT count(*) FROM parted_here; SELECT count(*) FROM c.sagas WHERE saga_name = 'there';"), "3\n3\n", 'rows go to their partitions');
is($session->outcome("SELECT count(*) FROM parted WHERE saga_id IN ('p1', 'p2');"), "2\n", 'and come from them');

sub as_reader
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "SET ROLE reader; \\set VERBOSITY sqlstate\n$sql", on_error_stop => 0);

	return join ' ', grep { length } $out, $err =~ /ERROR:\s+(\w{5})/;
}

is(as_reader(q{INSERT INTO over_parted VALUES ('p7', 'there')}), '', "a view's owner inserts into a partition");
is(as_reader(q{UPDATE over_one SET status = 'failed' RETURNING saga_id}), 's1', 'and updates');
is($session->query(q{SELECT string_agg(saga_id || status, ',' ORDER BY saga_id) FROM c.sagas WHERE saga_id IN ('p7', 's1')}), 'p7pending,s1failed', 'as the owner of the view');
is(commands(sub { is(as_reader('SELECT * FROM c.sagas'), '42501', 'no privilege') }), 0, 'and nothing is asked of the storage');

# ----------------------------------------------------------------------
# When the storage is asked how many there are

my $fresh = SagazSession->new($node, 'postgres');
is(calls('scan', sub { is($fresh->query("SELECT saga_id FROM c.sagas WHERE saga_id = 's7'"), 's7', 'by key') }), 0, 'a search by key scans nothing');
cmp_ok(calls('scan', sub { $fresh->query("EXPLAIN SELECT * FROM c.sagas") }), '>', 0, 'what is not analyzed is counted');
is(calls('scan', sub { $fresh->query('EXPLAIN SELECT * FROM c.sagas') for 1 .. 3 }), 0, 'but not each time');
like($fresh->query('EXPLAIN SELECT * FROM c.sagas'), qr/rows=\d{3} /, 'that many');
$fresh->query('ANALYZE c.sagas');
$fresh->close;
$fresh = SagazSession->new($node, 'postgres');
is(calls('scan', sub { $fresh->query("EXPLAIN SELECT * FROM c.sagas") }), 0, 'what is analyzed is not counted');
$fresh->close;
like($session->query("EXPLAIN (VERBOSE, COSTS OFF) INSERT INTO c.sagas (saga_id, saga_name) SELECT 'e', 'n'"), qr/Batch Size: 100/, 'EXPLAIN of INSERT');
like($session->query("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) DELETE FROM c.sagas WHERE saga_id = 'd20'"),
	qr/Delete on sagas.*Foreign Scan on sagas .*Asked of the storage: saga_id/, 'EXPLAIN ANALYZE of DELETE');
is($session->query("SELECT count(*) FROM c.sagas WHERE saga_id = 'd20'"), '0', 'which does it');

# ----------------------------------------------------------------------
# Tables with some of the columns

$session->query("CREATE FOREIGN TABLE thin (saga_id text) SERVER file OPTIONS (type 'saga')");
$session->query("CREATE FOREIGN TABLE thin_event (event_id text, saga_id text) SERVER file OPTIONS (type 'outbox')");
$session->query("CREATE FOREIGN TABLE keyless (saga_name text) SERVER file OPTIONS (type 'saga')");
for my $case (
	[ "INSERT INTO thin VALUES ('x')", 'SZ003', 'no name' ],
	[ "INSERT INTO thin_event VALUES ('x', 'y')", 'SZ003', 'no type of event' ],
	[ "INSERT INTO keyless VALUES ('x')", '23502', 'no key' ],
	[ "UPDATE keyless SET saga_name = 'x'", '55000', 'no key to update by' ],
	[ 'DELETE FROM keyless', '55000', 'nor to delete by' ])
{
	is($session->outcome("$case->[0];"), "ERROR $case->[1]\n", $case->[2]);
}
is($session->query('SELECT count(*) FROM keyless'), $session->query('SELECT count(*) FROM f.sagas'), 'reading needs none');

# ----------------------------------------------------------------------
# sagaz at the other end

is($other->safe_psql('main', 'SELECT count(*) FROM sagaz.sagas'), '300', 'its tables have the sagas');
is($session->outcome("UPDATE n.sagas SET status = 'failed' WHERE saga_id = 's1';"), "ERROR SZ000\n", 'sagas there are not updated from here');
is($session->outcome("DELETE FROM n.sagas WHERE saga_id IN ('s1', 's2') RETURNING saga_name; SELECT count(*) FROM n.sagas;"), "n\nn\n298\n", 'but deleted');
is($session->outcome("INSERT INTO n.outbox_events (saga_id, event_type, payload) SELECT 's', 't', '{}' FROM generate_series(1, 5);"
		  . ' SELECT count(*), min(status), min(aggregate_id) FROM n.outbox_events;'), "5|pending|s\n", 'and events inserted');
is($other->safe_psql('main', "SELECT count(*) FROM sagaz.claim_batch('w', 10)"), '5', 'which are handed out there');
like($session->query("EXPLAIN (COSTS OFF) SELECT * FROM n.sagas WHERE saga_id = 's5'"), qr/Asked of the storage: saga_id/, 'and found by key');

$session->close;
done_testing();
