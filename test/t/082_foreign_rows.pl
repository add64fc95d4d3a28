# Foreign tables over storages: every field of what is awkward and of what the
# Python library wrote; copies between foreign and native tables; what a storage
# takes for a hint only; changes as RETURNING shows them; whose login counts;
# storages that do not answer; 10,000 failing statements.
use strict;
use warnings;

use File::Copy;
use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use SagazTransfer;
use Test::More;

my $node = new_node('rows', conf => "fsync = off\ntimezone = 'UTC'\nsagaz.memory_limit = 256MB\n");
my $other = new_node('rows_other', conf => "fsync = off\ntimezone = 'UTC'\n");
my $files = PostgreSQL::Test::Utils::tempdir();
my $redis = SagazRedis->new(requirepass => 'hush')->start;
my $session = SagazSession->new($node, 'postgres');

# A storage, and its tables in a schema of the same name.
sub name_storage
{
	my ($name, $url) = @_;

	$session->query("SELECT sagaz.create_storage('$name', '$url'); CREATE SCHEMA $name; IMPORT FOREIGN SCHEMA sagaz FROM SERVER $name INTO $name");
}

# What each of several statements yields.
sub outcomes
{
	my ($sql) = @_;

	return join '', map { $session->outcome("$_;") } split /;\s*/, $sql;
}

$other->safe_psql('postgres', 'CREATE DATABASE main');
$other->safe_psql('main', 'CREATE EXTENSION sagaz');
$other->safe_psql('postgres', 'CREATE DATABASE library');
$other->safe_psql('postgres', 'CREATE DATABASE written');
name_storage('cache', $redis->url(password => 'hush'));
name_storage('file', "sqlite://$files/a.db");
name_storage('mem', 'memory://a');
name_storage('far', database_url($other, 'library') . '?layout=library');
name_storage('near', database_url($other, 'main'));
my @all = qw(cache file mem far near);

# ----------------------------------------------------------------------
# Every field, as sagaz.export_all() has it, which writes out steps and the times
# in documents, where a table shows what is stored

# How many records a table and its storage have, and how many differ in a field.
sub compare
{
	my ($name, $kind) = @_;
	my ($table, $key) = $kind eq 'saga' ? ('sagas', 'saga_id') : ('outbox_events', 'event_id');

	return $session->query(<<"SQL");
WITH t AS MATERIALIZED (SELECT $key AS id, to_jsonb(t) AS r FROM $name.$table AS t),
	s AS MATERIALIZED (SELECT r->>'$key' AS id, r FROM sagaz.export_all('$kind', '$name') AS r)
SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM s), (SELECT count(*) FROM t FULL JOIN s USING (id)
	WHERE (SELECT count(*) FROM jsonb_each(t.r) AS f(name, value)
		WHERE name <> 'version' AND CASE WHEN name IN ('created_at', 'updated_at', 'claimed_at', 'sent_at')
			THEN (t.r->>name)::timestamptz IS NOT DISTINCT FROM (s.r->>name)::timestamptz
			WHEN name = 'steps' THEN jsonb_path_query_array(s.r->name, '\$[*].name') = jsonb_path_query_array(value, '\$[*].name')
				AND jsonb_path_query_array(s.r->name, '\$[*].result ? (@ != null)') = jsonb_path_query_array(value, '\$[*].result ? (@ != null)')
			ELSE coalesce(s.r->name, 'null') = value END) IS DISTINCT FROM CASE '$kind' WHEN 'saga' THEN 8 ELSE 16 END)
SQL
}

my %awkward = (saga => [ awkward_sagas() ], outbox => [ awkward_events() ]);

for my $kind (qw(saga outbox))
{
	my $table = $kind eq 'saga' ? 'sagas' : 'outbox_events';
	my $count = @{ $awkward{$kind} };

	import_into($session, $kind, 'mem', @{ $awkward{$kind} });
	is(compare('mem', $kind), "$count|$count|0", "mem, $kind: every field");
	my $checksum = $session->query("SELECT sagaz.checksum('$kind', 'mem')");
	for my $pair ([qw(mem file)], [qw(file cache)])
	{
		my ($from, $to) = @$pair;

		is($session->outcome("INSERT INTO $to.$table SELECT * FROM $from.$table;"), '', "$kind: from $from to $to");
		is(compare($to, $kind), "$count|$count|0", "$to, $kind: every field");
		is($session->query("SELECT sagaz.checksum('$kind', '$to')"), $checksum, "$to, $kind: nothing is another");
	}
}

copy("test/data/sqlite-$_.db", "$files/$_.db") or die $! for qw(clean hostile);
name_storage('sqlite_clean', "sqlite://$files/clean.db");
name_storage('sqlite_hostile', "sqlite://$files/hostile.db");
my $written = SagazRedis->new->start;
$written->load('test/data/redis-clean.resp');
name_storage('redis_clean', $written->url);
$other->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('written'), '-o', '/dev/null', '-f', 'test/data/pg-clean.sql' ],
	'what the library wrote to PostgreSQL');
name_storage('tables_clean', database_url($other, 'written') . '?layout=library');
for my $name (qw(sqlite_clean redis_clean tables_clean))
{
	for my $kind (qw(saga outbox))
	{
		my ($rows, $records, $differing) = split /\|/, compare($name, $kind);

		cmp_ok($rows, '>', 50, "$name, $kind: rows");
		# a time inside a document has another offset than UTC there
		my $respelled = "$name $kind" eq 'sqlite_clean saga' ? 1 : 0;
		is("$records|$differing", "$rows|$respelled", "$name, $kind: every field");
	}
}

# What cannot be read is named, and hides nothing else.
my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT count(*) FROM sqlite_hostile.sagas");
like($err, qr/ERROR:  SZ003: record "[^"]+" of storage "sqlite_hostile" cannot be read/, 'a record that cannot be read');
my $readable = $session->query(q{SET client_min_messages = error; SELECT max(r->>'saga_id') FROM sagaz.export_all('saga', 'sqlite_hostile') r});
isnt($readable, '', 'others can');
is($session->query("SELECT count(*) FROM sqlite_hostile.sagas WHERE saga_id = '$readable'"), '1', 'another is read by its key');
$session->query('RESET client_min_messages');

# ----------------------------------------------------------------------
# From and to native tables

$session->query(q{SELECT sagaz.insert_event('native ' || i, 'T', to_jsonb(i), routing_key => 'r') FROM generate_series(1, 120) i});
$session->query('DELETE FROM file.outbox_events');
is($session->outcome('INSERT INTO file.outbox_events SELECT event_id, saga_id, aggregate_type, aggregate_id, event_type, payload, headers,'
		  . ' status, created_at, claimed_at, sent_at, retry_count, last_error, worker_id, routing_key, partition_key FROM sagaz.outbox_events;'), '', 'from native events');
is($session->query("SELECT sagaz.checksum('outbox', 'file') = sagaz.checksum('outbox', 'native')"), 't', 'each as it is there');
is($session->outcome('INSERT INTO sagaz.emit (saga_id, event_type, payload) SELECT saga_id, event_type, payload FROM file.outbox_events WHERE payload > to_jsonb(100);'
		  . ' SELECT count(*) FROM sagaz.outbox_events;'), "140\n", 'and to native events');
$session->query("SELECT count(sagaz.save_saga_state('native ' || i, 'N', 'executing', '[{\"name\": \"a\"}]')) FROM generate_series(1, 7) i");
is($session->outcome('INSERT INTO file.sagas (saga_id, saga_name, status, version, context) SELECT saga_id, saga_name, status, version, context FROM sagaz.sagas;'
		  . " SELECT count(*) FROM sagaz.sagas JOIN file.sagas f USING (saga_id, saga_name) WHERE f.status = 'executing';"), "7\n", 'native sagas');

# ----------------------------------------------------------------------
# What is asked for is a hint

for my $s (@all)
{
	$session->query("DELETE FROM $s.outbox_events; DELETE FROM $s.sagas");
	is($session->outcome("INSERT INTO $s.sagas (saga_id, saga_name, status) SELECT 's' || i, 'n', CASE WHEN i > 10 THEN 'failed' ELSE 'pending' END FROM generate_series(1, 20) i;"
			  . "INSERT INTO $s.outbox_events (saga_id, event_type, payload) SELECT 's' || i, 't', '1' FROM generate_series(1, 20) i;"), '', "$s: records");
	for my $case (
		[ "saga_id = ANY ('{s5,s5,NULL,nix,s6,s6}')", 2 ], [ "saga_id IN ('s5', 's5')", 1 ],
		[ "status = ANY ('{failed,failed,nix}')", 10 ], [ "status = 'FAILED'", 0 ], [ "status = 'nix'", 0 ], [ "status = ''", 0 ],
		[ "saga_id = ''", 0 ], [ "saga_id = 'S5'", 0 ], [ "saga_id = repeat('x', 100000)", 0 ], [ q{saga_id = E'a\nb:*[]?%_''"'}, 0 ],
		[ "saga_id = ANY ('{}')", 0 ], [ "saga_id = ANY ('{{s1,s2},{s3,nix}}')", 3 ],
		[ "saga_id = ANY ((SELECT array_agg('s' || i) FROM generate_series(1, 20000) i)::text[])", 20 ],
		[ "saga_id = ANY ('{s1,s2,s11}') AND status = 'pending'", 2 ], [ "saga_id = 's1' AND saga_id = 's2'", 0 ],
		[ "saga_id = 's1' OR status = 'failed'", 11 ], [ "NOT saga_id = 's1'", 19 ])
	{
		is($session->outcome("SELECT count(*) FROM $s.sagas WHERE $case->[0];"), "$case->[1]\n", "$s: sagas where $case->[0]");
	}
	for my $case (
		[ "event_id = 'nix'", 0 ], [ "event_id = ANY ('{nix,00000000-0000-4000-8000-000000000000}')", 0 ],
		[ "event_id = (SELECT upper(max(event_id)) FROM $s.outbox_events)", 0 ], [ "event_id = (SELECT max(event_id) FROM $s.outbox_events)", 1 ],
		[ "event_id = ANY (SELECT event_id FROM $s.outbox_events) AND saga_id = 's4'", 1 ],
		[ "saga_id = 's4' AND status = 'sent'", 0 ], [ "saga_id = 's4' AND status = 'pending'", 1 ], [ "status = 'nix'", 0 ])
	{
		is($session->outcome("SELECT count(*) FROM $s.outbox_events WHERE $case->[0];"), "$case->[1]\n", "$s: events where $case->[0]");
	}
	is($session->query("SELECT count(*) FROM (SELECT FROM $s.sagas WHERE saga_id = ANY ('{nix,s1,s2,s2,s4}') LIMIT 3) x"), '3', "$s: so many as the limit says");
	is($session->query("SELECT count(*) FROM (SELECT FROM $s.sagas WHERE status = 'failed' LIMIT 3 OFFSET 8) x"), '2', "$s: with an offset");
}

# Plans that are used again ask for what is asked this time.
$session->query('SET plan_cache_mode = force_generic_plan');
$session->query(q{PREPARE guessed AS SELECT count(*) FROM (SELECT FROM file.sagas WHERE status = 'failed' LIMIT current_setting('my.n')::int) x});
is($session->query("SET my.n = $_; EXECUTE guessed"), $_, "a limit of $_ that the planner only guesses") for 2, 9, 1;
$session->query(q{PREPARE first AS SELECT count(*) FROM (SELECT FROM file.sagas LIMIT $1) x});
is($session->query("EXECUTE first($_)"), $_, "a limit of $_ as parameter") for 3, 12, 1;
$session->query(q{PREPARE listed(text[], text) AS SELECT count(*) FROM file.sagas WHERE saga_id = ANY ($1) AND status = $2});
is($session->query(q{EXECUTE listed('{s1,s2,s11}', 'pending')}), '2', 'a list as parameter');
is($session->query(q{EXECUTE listed('{s11}', 'failed')}), '1', 'and another');
is($session->query(q{EXECUTE listed(NULL, 'failed')}), '0', 'and none');
like($session->query(q{EXPLAIN (COSTS OFF) EXECUTE listed('{s1}', 'x')}), qr/Asked of the storage: saga_id, status/, 'asked of the storage');
$session->query('RESET plan_cache_mode');

# Cursors that errors meet
for my $s (@all)
{
	is($session->outcome("BEGIN; DECLARE k CURSOR FOR SELECT saga_id FROM $s.sagas; MOVE 5 IN k; SAVEPOINT a;"
			  . " SELECT 1 / count(*) FROM $s.sagas WHERE saga_id = 'nix'; ROLLBACK TO a; MOVE ALL IN k;"
			  . " SELECT count(*) FROM $s.sagas; COMMIT;"), "20\n", "$s: a cursor across an error");
	is($session->outcome("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT saga_id FROM $s.sagas; COMMIT; SELECT 1 / 0; FETCH 1 FROM h; CLOSE h;") =~ tr/\n//, 1,
		"$s: one that is held");
}

# ----------------------------------------------------------------------
# Changes

for my $s (grep { $_ ne 'near' } @all)
{
	for my $case ([ sagas => q{(saga_id, saga_name) VALUES ('new', 'n')} ], [ outbox_events => q{(saga_id, event_type, payload) VALUES ('new', 't', '1.0')} ])
	{
		my ($table, $row) = @$case;
		my $shown = $session->query("INSERT INTO $s.$table $row RETURNING *");

		like($shown, qr/new/, "$s: a new row in $table");
		is($shown, $session->query("SELECT * FROM $s.$table WHERE saga_id = 'new'"), "$s: RETURNING shows it as it is stored");
		$session->query("DELETE FROM $s.$table WHERE saga_id = 'new'");
	}
	is($session->query("UPDATE $s.sagas SET status = 'completed' WHERE saga_id = 's1' RETURNING saga_id, status, version, updated_at > created_at"),
		's1|completed|2|t', "$s: RETURNING shows the next version");
	is($session->query("UPDATE $s.sagas SET context = '{\"a\": 1}' WHERE saga_id = 's1' RETURNING version, updated_at")
		  . '|' . $session->query("SELECT context FROM $s.sagas WHERE saga_id = 's1'"),
		$session->query("SELECT version, updated_at, context FROM $s.sagas WHERE saga_id = 's1'"), "$s: which is the one that is read then");
	is($session->query("UPDATE $s.sagas SET status = status WHERE saga_id = 's1' RETURNING version"), '3', "$s: what stays as it is has no other");
	is($session->query("UPDATE $s.sagas SET version = version + 4, updated_at = '2030-01-01' WHERE saga_id = 's1' RETURNING version, updated_at"),
		'7|2030-01-01 00:00:00+00', "$s: a version and a time that are set");
	is($session->query("SELECT version, updated_at FROM $s.sagas WHERE saga_id = 's1'"), '7|2030-01-01 00:00:00+00', "$s: and are so");
	is($session->outcome("UPDATE $s.sagas SET updated_at = 'infinity' WHERE saga_id = 's1';"), "ERROR SZ003\n", "$s: no time without end");
	$session->query("ALTER FOREIGN TABLE $s.outbox_events OPTIONS (ADD batch_size '3')");
	is(outcomes("UPDATE $s.outbox_events SET status = CASE WHEN event_id = (SELECT max(event_id) FROM $s.outbox_events) THEN 'nix' ELSE 'failed' END;"
			  . " SELECT count(*) FROM $s.outbox_events WHERE status = 'failed';"), "ERROR SZ003\n0\n", "$s: a bad status in the last batch leaves the first alone");
	is(outcomes("INSERT INTO $s.outbox_events (event_id, saga_id, event_type, payload) SELECT COALESCE(e, gen_random_uuid()::text), 'x', 't', '1'"
			  . " FROM generate_series(1, 6) i LEFT JOIN (SELECT max(event_id) FROM $s.outbox_events) m(e) ON i = 6; SELECT count(*) FROM $s.outbox_events WHERE saga_id = 'x';"),
		"ERROR 23505\n3\n", "$s: one that is there leaves nothing of its batch");
}
is($session->outcome("UPDATE near.sagas SET status = 'failed' WHERE saga_id = 's1';"), "ERROR SZ000\n", 'sagaz at the other end keeps its own state');

$session->query(<<'SQL');
CREATE TABLE parted (saga_name text, saga_id text) PARTITION BY LIST (saga_name);
CREATE TABLE parted_here PARTITION OF parted FOR VALUES IN ('here');
CREATE FOREIGN TABLE parted_there (saga_id text, saga_name text) SERVER file OPTIONS (type 'saga');
ALTER TABLE parted ATTACH PARTITION parted_there FOR VALUES IN ('there');
INSERT INTO parted VALUES ('here', 'p1'), ('here', 'p2'), ('there', 'p3');
SQL
is($session->outcome("UPDATE parted SET saga_id = saga_id WHERE saga_id LIKE 'p_' RETURNING tableoid::regclass, saga_id;"),
	"parted_here|p1\nparted_here|p2\nparted_there|p3\n", 'partitions of both kinds are updated together');
is(outcomes("UPDATE parted SET saga_name = 'there' WHERE saga_id LIKE 'p_'; SELECT count(*) FROM file.sagas WHERE saga_name = 'there';"),
	"ERROR 0A000\n1\n", 'but rows are not moved into one that is updated as well');
is($session->outcome("UPDATE parted SET saga_name = 'there' WHERE saga_name = 'here'; SELECT count(*) FROM file.sagas WHERE saga_name = 'there';"), "3\n", 'others are moved');
is($session->outcome("DELETE FROM parted WHERE saga_id LIKE 'p_'; SELECT count(*) FROM file.sagas WHERE saga_name = 'there';"), "0\n", 'and deleted');

$session->query("CREATE FOREIGN TABLE typed (event_id uuid, status varchar(20)) SERVER file OPTIONS (type 'outbox')");
$session->query("CREATE FOREIGN TABLE short (event_id varchar(36), status varchar(20), created_at text) SERVER file OPTIONS (type 'outbox')");
is($session->outcome('DELETE FROM typed;'), "ERROR 55000\n", 'a key that is not shown as it is');
is($session->query("UPDATE short SET status = 'sent' WHERE event_id = (SELECT max(event_id) FROM short) RETURNING status"), 'sent', 'varchar is');
is($session->query("SELECT count(*) FROM file.outbox_events WHERE status = 'sent'"), '1', 'and changes it');

# ids and names that no function takes
my $event = "'11111111-1111-4111-8111-111111111111', 's', 'E', '1'";
for my $bad ("sagas (saga_id, saga_name) VALUES ('', 'N')", "sagas (saga_id, saga_name) VALUES ('s', '')",
	"sagas (saga_id, saga_name) VALUES (repeat('x', 1025), 'N')", "sagas (saga_id, saga_name) VALUES ('s', repeat('x', 2049))",
	map { "outbox_events (event_id, saga_id, event_type, payload) VALUES ($_)" } $event =~ s/'11111[^']*'/'nix'/r,
	$event =~ s/'11111[^']*'/'1111111A-1111-4111-8111-111111111111'/r, $event =~ s/'s'/''/r, $event =~ s/'s'/repeat('x', 2601)/r, $event =~ s/'E'/''/r)
{
	my ($table) = $bad =~ /^(\w+)/;
	is(outcomes("SELECT count(*) AS before FROM $_.$table \\gset\nINSERT INTO $_.$bad; SELECT count(*) - :before FROM $_.$table;"), "ERROR SZ009\n0\n", "$_: refused: $bad") for @all;
}
is(outcomes("SELECT sagaz.insert_event(repeat('x', 2601), 'E', '1', storage => '$_');"), "ERROR SZ009\n", "too long for a function: $_") for 'native', 'file';

# ----------------------------------------------------------------------
# Whose login counts, and what depends on a server

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE reader LOGIN;
GRANT USAGE ON SCHEMA cache TO reader;
GRANT SELECT ON cache.sagas TO reader;
CREATE VIEW cache.few AS SELECT saga_id FROM cache.sagas WHERE saga_id = 's1';
GRANT SELECT ON cache.few TO reader;
SQL

sub as_reader
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "SET ROLE reader; \\set VERBOSITY verbose\n$sql", on_error_stop => 0);

	unlike($err, qr/hush/, "no secret: $sql");
	return join ' ', grep { length } $out, $err =~ /ERROR:\s+(\w{5})/;
}

is(as_reader('SELECT count(*) FROM cache.sagas'), 'SZ001', 'without a login of its own, or of PUBLIC');
is(as_reader('SELECT * FROM cache.few'), 's1', "by the login of the view's owner");
$session->query("CREATE USER MAPPING FOR PUBLIC SERVER cache OPTIONS (password 'wrong')");
is(as_reader('SELECT count(*) FROM cache.sagas'), 'SZ001', "by PUBLIC's");
$session->query("ALTER USER MAPPING FOR PUBLIC SERVER cache OPTIONS (SET password 'hush')");
is(as_reader('SELECT count(*) FROM cache.sagas'), '20', "by PUBLIC's right one");
$session->query("CREATE USER MAPPING FOR reader SERVER cache OPTIONS (password 'wrong')");
is(as_reader('SELECT count(*) FROM cache.sagas'), 'SZ001', 'its own comes first');
is(as_reader('EXPLAIN (VERBOSE, ANALYZE) SELECT * FROM cache.few') =~ /Foreign Scan/, 1, 'EXPLAIN by way of the view');
is($session->outcome('DROP SERVER file;'), "ERROR 2BP01\n", 'a server with tables stays');
for my $wrapper (qw(sagaz_redis sagaz_sqlite sagaz_postgresql sagaz_memory))
{
	my ($status, $out, $err) = $node->psql('postgres', "ALTER FOREIGN DATA WRAPPER $wrapper OPTIONS (ADD nix 'x')");
	like($err, qr/invalid option "nix"\n.*There are no valid options in this context/, "$wrapper has no options");
	for my $object ('FOREIGN TABLE bad (saga_id text)', 'SERVER bad FOREIGN DATA WRAPPER ' . $wrapper)
	{
		my $where = $object =~ /TABLE/ ? " SERVER " . { sagaz_redis => 'cache', sagaz_sqlite => 'file', sagaz_postgresql => 'far', sagaz_memory => 'mem' }->{$wrapper} : '';

		($status, $out, $err) = $node->psql('postgres', "CREATE $object$where OPTIONS (nix 'x')");
		like($err, qr/invalid option "nix"\n.*Valid options in this context are: \w+/, "$wrapper: $object");
	}
}

# ----------------------------------------------------------------------
# Statements that end early, and storages that do not answer

is(outcomes("SET statement_timeout = '300ms'; SELECT count(*) FROM $_.sagas a, $_.sagas b, $_.sagas c, $_.sagas d, $_.sagas e, $_.sagas f; RESET statement_timeout; SELECT count(*) FROM $_.sagas;"),
	"ERROR 57014\n20\n", "$_: a time limit ends a scan") for @all;
$redis->signal('STOP');
my $started = time;
is(outcomes("SET sagaz.command_timeout = '300ms'; SELECT count(*) FROM cache.sagas; DELETE FROM cache.sagas; INSERT INTO cache.sagas (saga_id, saga_name) VALUES ('y', 'n');"),
	"ERROR SZ001\n" x 3, 'a storage that does not answer');
cmp_ok(time - $started, '<', 30, 'soon');
$redis->signal('CONT');
is($session->outcome('RESET sagaz.command_timeout; SELECT count(*) FROM cache.sagas;'), "20\n", 'and once it does');

# ----------------------------------------------------------------------
# Failing statements leave nothing open

my @failing = (
	"SELECT 1 / (count(*) - 20) FROM (SELECT FROM file.sagas) x",
	"SELECT 1 / (length(saga_id) - 2) FROM file.sagas",
	"SELECT 1 / (length(saga_id) - 2) FROM cache.sagas",
	"SELECT 1 / (length(saga_id) - 2) FROM mem.sagas",
	"INSERT INTO file.sagas (saga_id, saga_name) VALUES ('y', 'n'), ('s1', 'n')",
	"INSERT INTO cache.sagas (saga_id, saga_name) VALUES ('y', 'n'), ('s1', 'n')",
	"INSERT INTO mem.sagas (saga_id, saga_name) VALUES ('y', 'n'), ('s2', NULL)",
	"UPDATE file.sagas SET context = to_jsonb(1 / (length(saga_id) - 2))",
	"UPDATE cache.outbox_events SET status = 'nix'",
	"UPDATE file.sagas SET saga_id = 'x'",
	"DELETE FROM file.sagas WHERE 1 / (length(saga_id) - 2) > 0",
	"SELECT * FROM far.sagas WHERE 1 / (length(saga_id) - 2) > 0",
	"SELECT * FROM sqlite_hostile.sagas",
	"TRUNCATE file.sagas",
	"BEGIN; DECLARE k CURSOR FOR SELECT * FROM file.sagas; FETCH 3 FROM k; SAVEPOINT a; SELECT 1 / 0 FROM cache.sagas; ROLLBACK TO a; SELECT 1 / (count(*) - 20) FROM near.sagas; COMMIT");
my $look = q{SELECT sum(used_bytes), (SELECT count(*) FROM pg_ls_dir('/proc/' || pg_backend_pid() || '/fd')) FROM pg_backend_memory_contexts};
my $count = () = $redis->cli('CLIENT', 'LIST') =~ /^id=/mg;

sub fail_often
{
	my ($rounds) = @_;
	my $file = "$files/failing_$rounds.sql";

	append_to_file($file, join '', map { "$_;\n" } (@failing) x $rounds);
	return $session->outcome("\\o /dev/null\n\\i $file\n\\o\n$look;");
}

for my $sql (@failing)
{
	# in a transaction it is the second last that tells
	like($session->outcome(($sql =~ s/; COMMIT$//r) . ';'), qr/ERROR/, "fails: $sql");
	$session->outcome('ROLLBACK;') if $sql =~ /^BEGIN/;
}
fail_often(5);
my @before = split /[|\n]/, fail_often(1);
my $rounds = int(10_000 / (@failing + 1)) + 1;
my @after = split /[|\n]/, fail_often($rounds);
cmp_ok($after[0] - $before[0], '<', 100_000, "memory after failures: $before[0] bytes, then $after[0]");
is($after[1], $before[1], 'no file is left open');
is(scalar(() = $redis->cli('CLIENT', 'LIST') =~ /^id=/mg), $count, 'and no connection');
is($session->query('SELECT count(*) FROM cache.sagas') . $session->query('SELECT count(*) FROM file.sagas WHERE saga_id LIKE $$s%$$'), '2020', 'and all is as it was');

$session->close;
done_testing();
