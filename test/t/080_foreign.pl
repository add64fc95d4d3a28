# Foreign tables over storages: what is in them, what is asked of the storage
# and what goes over the wire, what statements do and leave undone, who may.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use SagazTransfer;
use Test::More;

my $node = new_node('foreign', conf => "fsync = off\ntimezone = 'UTC'\nsagaz.memory_limit = 256MB\n");
my $other = new_node('foreign_other', conf => "fsync = off\n");
my $files = PostgreSQL::Test::Utils::tempdir();
my $redis = SagazRedis->new(requirepass => 'hush')->start;
my $session = SagazSession->new($node, 'postgres');

$other->safe_psql('postgres', 'CREATE DATABASE library');
$session->query("SELECT sagaz.create_storage('cache', '" . $redis->url(password => 'hush') . "')");
$session->query("SELECT sagaz.create_storage('file', 'sqlite://$files/a.db')");
$session->query("SELECT sagaz.create_storage('mem', 'memory://a')");
$session->query("SELECT sagaz.create_storage('far', '" . database_url($other, 'library') . "?layout=library')");

my %schema = (cache => 'c', file => 'f', mem => 'm', far => 'l');

# ----------------------------------------------------------------------
# IMPORT FOREIGN SCHEMA

for my $server (sort keys %schema)
{
	$session->query("CREATE SCHEMA $schema{$server}");
	$session->query("IMPORT FOREIGN SCHEMA sagaz FROM SERVER $server INTO $schema{$server}");
}
is( $session->query("SELECT string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attnum)"
		  . " FROM pg_attribute WHERE attrelid = 'c.outbox_events'::regclass AND attnum > 0"),
	'event_id text, saga_id text, aggregate_type text, aggregate_id text, event_type text, payload jsonb, headers jsonb, '
	  . 'status text, created_at timestamp with time zone, claimed_at timestamp with time zone, sent_at timestamp with time zone, '
	  . 'retry_count integer, last_error text, worker_id text, routing_key text, partition_key text',
	'the 16 fields of an event');
is( $session->query("SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute"
		  . " WHERE attrelid = 'c.sagas'::regclass AND attnum > 0"),
	'saga_id saga_name status context metadata version created_at updated_at steps', 'the fields of a saga');
$session->query('CREATE SCHEMA part');
$session->query('IMPORT FOREIGN SCHEMA sagaz LIMIT TO (sagas) FROM SERVER cache INTO part');
$session->query('IMPORT FOREIGN SCHEMA sagaz EXCEPT (sagas) FROM SERVER file INTO part');
is($session->query("SELECT string_agg(relname || ' ' || srvname, ', ' ORDER BY relname) FROM pg_class JOIN pg_foreign_table ON ftrelid = pg_class.oid"
		  . " JOIN pg_foreign_server s ON s.oid = ftserver WHERE relnamespace = 'part'::regnamespace"),
	'outbox_events file, sagas cache', 'LIMIT TO and EXCEPT');
$session->query("SELECT sagaz.create_outbox_storage('events_only', 'memory://b')");
$session->query('CREATE SCHEMA e; IMPORT FOREIGN SCHEMA sagaz FROM SERVER events_only INTO e');
is($session->query("SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'e'::regnamespace"),
	'outbox_events', 'only what the storage keeps');
is($session->outcome('IMPORT FOREIGN SCHEMA public FROM SERVER cache INTO part;'), "ERROR 3F000\n" =~ s/3F000/HV00Q/r,
	'the schema of a storage has one name');

# ----------------------------------------------------------------------
# Rows as sagaz.export_all() has the records

sub differing
{
	my ($server) = @_;
	my $s = $schema{$server};

	return $session->query(<<"SQL" =~ s/\n/ /gr);
SELECT count(*) FROM sagaz.export_all('saga', '$server') AS r LEFT JOIN $s.sagas AS t
	ON t.saga_id = r->>'saga_id' AND t.saga_name = r->>'saga_name' AND t.status = r->>'status'
		AND coalesce(t.context, 'null') = r->'context' AND coalesce(t.metadata, 'null') = r->'metadata'
		AND t.created_at = (r->>'created_at')::timestamptz AND t.updated_at = (r->>'updated_at')::timestamptz
		AND jsonb_array_length(t.steps) = jsonb_array_length(r->'steps')
	WHERE t.saga_id IS NULL
SQL
}

for my $server (sort keys %schema)
{
	my $s = $schema{$server};

	is( $session->outcome("INSERT INTO $s.sagas (saga_id, saga_name, status, steps, context, metadata)"
			  . " SELECT 's' || i, 'n' || i % 3, (ARRAY['pending', 'failed'])[1 + i % 2], '[{\"name\": \"a\"}]',"
			  . q{ '{"ä": 1.50}', NULLIF('{"k": null}', CASE WHEN i = 1 THEN '{"k": null}' END)::jsonb}
			  . ' FROM generate_series(1, 250) i;'), '', "$server: sagas are inserted");
	is($session->outcome("INSERT INTO $s.outbox_events (saga_id, event_type, payload)"
			  . q{ SELECT 's' || i, 't', to_jsonb(i) FROM generate_series(1, 40) i;}), '', "$server: events are inserted");
	is($session->query("SELECT count(*), count(DISTINCT saga_id), min(status), max(status) FROM $s.sagas"),
		'250|250|failed|pending', "$server: all are there");
	is(differing($server), '0', "$server: each is as it is exported");
	is($session->query("SELECT count(*), sum((payload)::int), min(status), bool_and(aggregate_id = saga_id) FROM $s.outbox_events"),
		'40|820|pending|t', "$server: events with their defaults");
}

# ----------------------------------------------------------------------
# What is asked of the storage

sub plan_of
{
	my ($sql) = @_;
	return $session->query("EXPLAIN (COSTS OFF) $sql");
}

for my $case (
	[ 'SELECT * FROM c.sagas WHERE saga_id = $$s5$$', 'Asked of the storage: saga_id$' ],
	[ 'SELECT * FROM c.sagas WHERE saga_id IN ($$s5$$, $$s6$$)', 'Asked of the storage: saga_id$' ],
	[ 'SELECT * FROM c.sagas WHERE status = $$failed$$ AND saga_name LIKE $$n%$$', 'Asked of the storage: status$' ],
	[ 'SELECT * FROM c.sagas WHERE status = $$failed$$ LIMIT 3', 'Asked of the storage: status, LIMIT$' ],
	[ 'SELECT * FROM c.outbox_events WHERE saga_id = $$s5$$', 'Asked of the storage: saga_id$' ],
	[ 'SELECT * FROM c.outbox_events LIMIT 2', 'Asked of the storage: LIMIT$' ],
	[ 'SELECT * FROM (VALUES ($$s1$$), ($$s2$$)) v(id) JOIN c.sagas s ON s.saga_id = v.id',
		'Nested Loop.*Foreign Scan on sagas s.*Asked of the storage: saga_id' ])
{
	like(plan_of($case->[0]), qr/$case->[1]/, "plan of $case->[0]");
}
for my $sql (
	'SELECT * FROM c.sagas WHERE saga_name = $$n1$$',
	'SELECT * FROM c.sagas WHERE lower(saga_id) = $$s5$$',
	'SELECT * FROM c.sagas WHERE saga_id = saga_name')
{
	unlike(plan_of($sql), qr/Asked/, "nothing can be asked: $sql");
}
unlike(plan_of("SELECT * FROM c.sagas WHERE status = 'failed' AND saga_name = 'n1' LIMIT 3"),
	qr/LIMIT$/, 'no limit is asked for where a condition is not');
unlike(plan_of("SELECT * FROM c.sagas ORDER BY saga_name LIMIT 3"), qr/LIMIT$/, 'nor below a sort');
is($session->query("SELECT count(*) FROM (SELECT FROM c.sagas WHERE status = 'failed' AND saga_name = 'n1' LIMIT 30) x"),
	'30', 'and the rows are those');

# How often a command reached the server meanwhile.
sub calls
{
	my ($command, $sql) = @_;
	my $before = $redis->cli('INFO', 'commandstats') =~ /cmdstat_$command:calls=(\d+)/ ? $1 : 0;

	$session->query($sql);
	return ($redis->cli('INFO', 'commandstats') =~ /cmdstat_$command:calls=(\d+)/ ? $1 : 0) - $before;
}

SKIP: {
	local $ENV{REDISCLI_AUTH} = 'hush';

	is(calls('hmget', "SELECT * FROM c.sagas WHERE saga_id = 's5'"), 1, 'one saga is read by its key');
	is(calls('hmget', "SELECT * FROM c.sagas WHERE saga_id = ANY ('{s5,s6,none}')"), 3, 'three by theirs');
	is(calls('hmget', "SELECT * FROM c.sagas WHERE saga_id = NULL"), 0, 'none for null');
	is(calls('hmget', "SELECT * FROM c.sagas WHERE status = 'failed'"), 125, 'those of a status');
	cmp_ok(calls('hmget', 'SELECT * FROM c.sagas LIMIT 1'), '<', 50, 'a limit ends the reading');
	is( calls('hmget', "SELECT * FROM (VALUES ('s1'), ('s2')) v(id) JOIN c.sagas s ON s.saga_id = v.id"),
		2, 'a join by key reads two');
	cmp_ok(calls('scan', 'SELECT count(*) FROM c.sagas'), '<', 10, 'all are read in few scans');
	is(calls('evalsha', "INSERT INTO c.outbox_events (saga_id, event_type, payload) SELECT 'b', 't', '1' FROM generate_series(1, 300)"),
		3, 'events are inserted by 100');
	$session->query("ALTER FOREIGN TABLE c.outbox_events OPTIONS (ADD batch_size '50')");
	is(calls('evalsha', "INSERT INTO c.outbox_events (saga_id, event_type, payload) SELECT 'b', 't', '1' FROM generate_series(1, 300)"),
		6, 'or by batch_size');
	$session->query("DELETE FROM c.outbox_events WHERE saga_id = 'b'");
	is($session->query('SELECT count(*) FROM c.outbox_events'), 40, 'and deleted');
}

# A filter is a hint: what compares otherwise is not asked for, and right.
$session->query(q{CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)});
is($session->query(q{SELECT count(*) FROM c.sagas WHERE saga_id = 'S5' COLLATE nocase}), 1, 'another collation');
$session->query(q{CREATE FOREIGN TABLE odd (event_id uuid, status varchar(20), created_at text, payload text) SERVER cache OPTIONS (type 'outbox')});
is($session->query('SELECT count(*) FROM odd WHERE event_id = (SELECT event_id::uuid FROM c.outbox_events LIMIT 1)'), 1, 'a column of type uuid');
is($session->query(q{SELECT count(*) FROM odd WHERE status = 'pending' AND payload::int > 0 AND created_at LIKE '20%'}), 40, 'columns of other types');

# ----------------------------------------------------------------------
# Ways of reading

$session->query(q{PREPARE by_key(text) AS SELECT saga_id FROM c.sagas WHERE saga_id = $1});
is($session->query("EXECUTE by_key('s$_')"), "s$_", "prepared, $_") for 1 .. 7;
is($session->query('BEGIN; DECLARE k CURSOR FOR SELECT saga_id FROM f.sagas ORDER BY 1; MOVE 10 IN k; FETCH 1 FROM k; COMMIT'), 's108', 'a cursor');
is($session->query(q{BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT saga_id FROM c.sagas ORDER BY 1; COMMIT}), '', 'a cursor that outlasts its transaction');
is($session->query('FETCH 1 FROM h; CLOSE h'), 's1', 'is read');
is($session->query('SELECT count(*) FROM c.sagas a JOIN c.sagas b USING (saga_id)'), 250, 'a table with itself');
is($session->query('SELECT count(*) FROM generate_series(1, 3) i, LATERAL (SELECT FROM c.sagas WHERE status = (ARRAY[$$failed$$, $$pending$$, $$nix$$])[i]) x'),
	250, 'rescans with parameters');
is($session->query('SELECT count(*) FROM c.sagas WHERE saga_id = (SELECT min(saga_id) FROM f.sagas)'), 1, 'a value from another table');
like(plan_of('SELECT count(*) FROM c.sagas'), qr/^(?!.*Gather)/, 'never in parallel');
$session->query('ANALYZE f.sagas');
is($session->query("SELECT reltuples FROM pg_class WHERE oid = 'f.sagas'::regclass"), 250, 'ANALYZE counts');
is($session->query("SELECT n_distinct FROM pg_stats WHERE schemaname = 'f' AND attname = 'status'"), 2, 'and samples');
like($session->query('EXPLAIN SELECT * FROM f.sagas'), qr/rows=250 /, 'the planner knows how many there are');

# ----------------------------------------------------------------------
# Changes

is( $session->query("UPDATE c.sagas SET status = 'completed' WHERE saga_id IN ('s1', 's2') RETURNING saga_id, status"),
	's1|completed s2|completed', 'UPDATE RETURNING');
is($session->query("SELECT version, updated_at > created_at FROM c.sagas WHERE saga_id = 's1'"), '2|t', 'a changed saga has another version');
is($session->outcome("UPDATE f.sagas SET status = 'pending' WHERE status = 'failed'; SELECT count(*) FROM f.sagas WHERE status = 'pending';"),
	"250\n", 'a statement does not see its own changes');
is($session->outcome("UPDATE f.sagas SET saga_name = x.name FROM (VALUES ('s1', 'one'), ('s2', 'two')) x(id, name) WHERE saga_id = x.id;"
		  . " SELECT string_agg(saga_name, ' ' ORDER BY saga_id) FROM f.sagas WHERE saga_id IN ('s1', 's2');"), "one two\n", 'UPDATE FROM');
is($session->query("DELETE FROM f.sagas WHERE saga_id = 's3' RETURNING saga_name"), 'n0', 'DELETE RETURNING');
is($session->query("SELECT count(*) FROM f.sagas"), 249, 'one is gone');
is($session->query("INSERT INTO c.outbox_events (saga_id, event_type, payload) VALUES ('r', 't', '1') RETURNING status, event_id <> '', retry_count"),
	'pending|t|0', 'INSERT RETURNING');

# Fails, and nothing has changed.
for my $case (
	[ "UPDATE c.sagas SET saga_id = 'x' WHERE saga_id = 's1'", '0A000', 'the key is not changed' ],
	[ "UPDATE c.outbox_events SET status = 'nix'", 'SZ003', 'a status that is none' ],
	[ "UPDATE c.sagas SET status = NULL WHERE saga_id = 's1'", '23502', 'a status that is null' ],
	[ "INSERT INTO c.sagas (saga_id) VALUES ('y')", '23502', 'a name that is missing' ],
	[ "INSERT INTO c.sagas (saga_id, saga_name) SELECT 'z' || i, CASE WHEN i < 60 THEN 'n' END FROM generate_series(1, 60) i", '23502', 'the last of a batch' ],
	[ "INSERT INTO c.sagas (saga_id, saga_name) VALUES ('y', 'n'), ('s1', 'n')", '23505', 'one of a batch is there' ],
	[ "INSERT INTO c.sagas (saga_id, saga_name) VALUES ('y', 'n') ON CONFLICT DO NOTHING", '0A000', 'ON CONFLICT' ],
	[ "UPDATE c.sagas SET context = to_jsonb(1 / (CASE saga_id WHEN 's99' THEN 0 ELSE 1 END))", '22012', 'an UPDATE that fails midway' ],
	[ 'TRUNCATE c.sagas', '0A000', 'TRUNCATE' ])
{
	my ($sql, $state, $name) = @$case;
	my $before = $session->query("SELECT sagaz.checksum('saga', 'cache'), sagaz.checksum('outbox', 'cache')");

	is($session->outcome("$sql;"), "ERROR $state\n", $name);
	is($session->query("SELECT sagaz.checksum('saga', 'cache'), sagaz.checksum('outbox', 'cache')"), $before, "$name: nothing has changed");
}

my $copy = "$files/rows.csv";
append_to_file($copy, "k1,n\nk2,n\n");
is($session->outcome("COPY c.sagas (saga_id, saga_name) FROM '$copy' (FORMAT csv); SELECT count(*) FROM c.sagas WHERE saga_id LIKE 'k%' AND status = 'pending';"), "2\n", 'COPY FROM');
is($session->outcome("INSERT INTO l.sagas SELECT * FROM c.sagas WHERE saga_id LIKE 'k%'; SELECT count(*) FROM l.sagas;"), "252\n", 'from one storage to another');
is( $session->outcome("INSERT INTO f.sagas (saga_id, saga_name, context) SELECT saga_id, 'lib', context FROM l.sagas WHERE saga_id = 'k1';"
		  . " SELECT saga_name FROM f.sagas WHERE saga_id = 'k1';"), "lib\n", 'and between any two');

# ----------------------------------------------------------------------
# Options

for my $case (
	[ "CREATE FOREIGN TABLE bad (saga_id text) SERVER cache OPTIONS (nix 'x')", qr/Valid options in this context are: type, batch_size/ ],
	[ "CREATE FOREIGN TABLE bad (saga_id text) SERVER cache OPTIONS (type 'x')", qr/type "x" is unknown/ ],
	[ "CREATE FOREIGN TABLE bad (saga_id text) SERVER cache OPTIONS (type 'saga', batch_size '0')", qr/batch_size must be between/ ],
	[ "CREATE FOREIGN TABLE bad (nix text) SERVER cache OPTIONS (type 'saga'); SELECT * FROM bad", qr/column "nix" of foreign table "bad" is no field of a saga/ ],
	[ "CREATE FOREIGN TABLE bad (saga_id text) SERVER cache; SELECT * FROM bad", qr/has no option type/ ],
	[ "ALTER SERVER cache OPTIONS (ADD nix 'x')", qr/Valid options in this context are: host, port/ ],
	[ "ALTER USER MAPPING FOR postgres SERVER cache OPTIONS (ADD host 'x')", qr/Valid options in this context are: .*user, password/ ],
	[ "CREATE FOREIGN TABLE bad (saga_id text) SERVER cache OPTIONS (type 'saga'); UPDATE bad SET saga_id = NULL", qr/saga_id/ ])
{
	my ($status, $out, $err) = $node->psql('postgres', "BEGIN; SET LOCAL client_min_messages = error; $case->[0]", on_error_stop => 1);
	like($err, $case->[1], $case->[0]);
}
is($session->outcome("SELECT count(*) > 0 FROM c.sagas; ALTER USER MAPPING FOR CURRENT_USER SERVER cache OPTIONS (SET password 'other'); SELECT count(*) FROM c.sagas;"),
	"t\nERROR SZ001\n", 'another password acts on the next statement');
is($session->outcome("ALTER USER MAPPING FOR CURRENT_USER SERVER cache OPTIONS (SET password 'hush'); SELECT count(*) > 0 FROM c.sagas;"), "t\n", 'and the right one');
is($session->outcome("ALTER SERVER cache OPTIONS (SET database '3'); SELECT count(*) FROM c.sagas; ALTER SERVER cache OPTIONS (SET database '0'); SELECT count(*) > 0 FROM c.sagas;"), "0\nt\n", 'and another database')
  if $session->query("SELECT srvoptions::text LIKE '%database%' FROM pg_foreign_server WHERE srvname = 'cache'") eq 't';

# ----------------------------------------------------------------------
# Privileges

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE reader LOGIN;
CREATE ROLE maker LOGIN;
GRANT USAGE ON SCHEMA c, f TO reader, maker;
GRANT CREATE ON SCHEMA public TO maker;
GRANT SELECT ON f.sagas TO reader;
CREATE VIEW public.few AS SELECT saga_id FROM c.sagas WHERE saga_id = 's1';
GRANT SELECT ON public.few TO reader;
SQL

sub as_role
{
	my ($role, $sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "SET ROLE $role; \\set VERBOSITY sqlstate\n$sql", on_error_stop => 0);
	return join ' ', grep { length } $out, $err =~ /ERROR:\s+(\w{5})/;
}

is(as_role('reader', 'SELECT count(*) FROM c.sagas'), '42501', 'no privilege on the table');
is(as_role('reader', 'SELECT * FROM public.few'), 's1', 'a view reads as its owner does');
is(as_role('reader', "DELETE FROM f.sagas WHERE saga_id = 's1'"), '42501', 'SELECT is not DELETE');
is(as_role('maker', "CREATE FOREIGN TABLE public.mine (saga_id text) SERVER cache OPTIONS (type 'saga')"), '42501', 'no USAGE, no table');

# ----------------------------------------------------------------------
# Storages that are gone, and secrets

unlike($session->query('EXPLAIN (VERBOSE) SELECT * FROM c.sagas'), qr/hush/, 'no secret in a plan');
my $slow = SagazSession->new($node, 'postgres');
$slow->query(q{SET sagaz.command_timeout = '60s'; SELECT count(*) FROM c.sagas});
$redis->signal('STOP');
$slow->send('SELECT count(*) FROM c.sagas');
ok($node->poll_query_until('postgres', "SELECT wait_event IS NOT NULL FROM pg_stat_activity WHERE pid = $slow->{pid}"), 'a scan waits for the storage');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($slow->{pid})");
$slow->{psql}->pump until $slow->{err} =~ /ERROR/;
like($slow->{err}, qr/canceling statement/, 'and can be cancelled');
$slow->{err} = '';
$slow->result;
$redis->signal('CONT');
is($slow->query('SELECT count(*) > 0 FROM c.sagas'), 't', 'and goes on afterwards');
$redis->stop;
my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT count(*) FROM c.sagas");
like($err, qr/SZ001: .*storage "cache"/, 'a server that is gone');
unlike($err, qr/hush/, 'without the secret');
$redis->start;

# ----------------------------------------------------------------------
# Many rows, in little memory

sub memory_of
{
	my ($pid) = @_;
	return slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+)/m ? $1 : die;
}

my $rows = 1_000_000;
my $many = SagazSession->new($node, 'postgres');
$many->query('SELECT count(*) FROM f.outbox_events');
my $before = memory_of($many->{pid});
is($many->outcome("INSERT INTO f.outbox_events (saga_id, event_type, payload) SELECT 's', 't', to_jsonb(i) FROM generate_series(1, $rows) i;"), '', 'many rows are inserted');
is($many->query('SELECT count(*), sum(payload::int) FROM f.outbox_events WHERE saga_id = $$s$$'), "$rows|500000500000", 'and read');
grows_less(memory_of($many->{pid}) - $before, 32 * 1024, 'in less than 32 MB');
$many->close;

# ----------------------------------------------------------------------
# Dump and restore

my $dump = "$files/dump.sql";
command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-n', 'c', '-f', $dump, '--no-owner' ], 'foreign tables are dumped');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->safe_psql('copy', "CREATE EXTENSION sagaz; SELECT sagaz.create_storage('cache', 'memory://x')");
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-o', '/dev/null', '-f', $dump ], 'and restored');
is($node->safe_psql('copy', 'SELECT count(*) FROM c.sagas'), '0', 'and read');

$session->close;
done_testing();
