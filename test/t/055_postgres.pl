# Storages in another PostgreSQL database with this extension: who may use
# what, what a slow, a stuck and a lost server do, what comes back, copies.
use strict;
use warnings;

use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazSession;
use SagazTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('near', conf => "fsync = off\nlog_min_messages = debug1");
plan skip_all => 'built without the PostgreSQL backend'
  if $node->safe_psql('postgres', q{SELECT count(*) FROM sagaz.backends() WHERE name = 'postgresql'}) eq '0';

my $other = new_node('far', conf => <<'CONF');
fsync = off
log_connections = on
CONF
my $secret = 'Gr33nT0mato';

$other->safe_psql('postgres', <<"SQL");
SET password_encryption = 'scram-sha-256';
CREATE ROLE app LOGIN PASSWORD '$secret';
CREATE ROLE nobody LOGIN;
ALTER ROLE app SET search_path = public, sagaz;
ALTER ROLE app SET TimeZone = 'Asia/Tokyo';
ALTER ROLE app SET DateStyle = 'German';
ALTER ROLE app SET IntervalStyle = 'iso_8601';
ALTER ROLE app SET extra_float_digits = -10;
ALTER ROLE app SET statement_timeout = '300ms';
ALTER ROLE app SET default_transaction_isolation = 'serializable';
ALTER ROLE app SET default_transaction_read_only = on;
SELECT sagaz.grant_access('app', 'producer'), sagaz.grant_access('app', 'consumer'), sagaz.grant_access('app', 'operator');
SQL
my $hba = slurp_file($other->data_dir . '/pg_hba.conf');
append_to_file($other->data_dir . '/pg_hba.conf.new', "local all app scram-sha-256\n$hba");
rename $other->data_dir . '/pg_hba.conf.new', $other->data_dir . '/pg_hba.conf' or die $!;
$other->reload;

sub url
{
	my ($user, $password, $more) = @_;
	my $login = defined $password ? "$user:$password" : $user;

	return "postgresql://$login@" . ($other->host =~ s{/}{%2F}gr) . ':' . $other->port . '/postgres' . ($more // '');
}

my @seen;
sub fails
{
	my ($role, $query, $pattern, $name) = @_;
	my $error = error_of($node, $query, role => $role);

	like($error, $pattern, $name);
	push @seen, $error;
}

$node->safe_psql('postgres', <<"SQL");
CREATE ROLE plain;
CREATE ROLE tenant;
SELECT sagaz.grant_access('plain', 'operator'), sagaz.grant_access('plain', 'producer'), sagaz.grant_access('tenant', 'operator');
GRANT USAGE ON FOREIGN DATA WRAPPER sagaz_postgresql TO plain;
SELECT sagaz.create_storage('far', '@{[url('app', $secret)]}');
SELECT sagaz.create_storage('super', '@{[url('postgres')]}');
GRANT USAGE ON FOREIGN SERVER super TO tenant;
SQL
$node->safe_psql('postgres', "SET ROLE plain; SELECT sagaz.create_storage('mine', '" . url('app', $secret) . "')");

# What the environment of the server says about libpq does not matter.
{
	local $ENV{PGTARGETSESSIONATTRS} = 'read-only';
	local $ENV{PGOPTIONS} = '-c search_path=nowhere -c role=none_such';
	local $ENV{PGDATABASE} = 'none_such';
	$node->restart;
}

# Who may use what.
is($node->safe_psql('postgres', "SELECT sagaz.count_records('saga', 'super')"), '0', 'a superuser needs no password');
is($node->safe_psql('postgres', "SET ROLE plain; SELECT sagaz.count_records('saga', 'mine')"), '0', 'others do with one');
fails('tenant', "SELECT sagaz.count_records('saga', 'far')", qr/42501.*permission denied/, 'USAGE is needed');
fails('tenant', "SELECT sagaz.count_records('saga', '" . url('app', $secret) . "')", qr/42501/, 'for a URL, of the wrapper');
fails('tenant', "SELECT sagaz.count_records('saga', 'super')", qr/42501.*password is required/,
	'the own user of the server is let in for no tenant');
fails('tenant', "CREATE USER MAPPING FOR tenant SERVER super OPTIONS (user 'postgres'); SELECT sagaz.count_records('saga', 'super')",
	qr/42501.*password is required/, 'not with a user mapping of his own');
fails('tenant', "ALTER USER MAPPING FOR tenant SERVER super OPTIONS (ADD password 'x'); SELECT sagaz.count_records('saga', 'super')",
	qr/42501.*password is required|authentication method requirement/, 'not where nobody asks for the password');
fails('plain', "SELECT sagaz.count_records('saga', '" . url('postgres') . "')", qr/42501.*password is required/, 'not with a URL');
$node->safe_psql('postgres', "CREATE USER MAPPING FOR postgres SERVER mine OPTIONS (user 'postgres')");
fails('postgres', "SELECT sagaz.count_records('saga', 'mine')", qr/42501.*password is required/,
	'nor a superuser where a tenant says with whom he talks');
fails('plain', "SELECT sagaz.count_records('saga', '" . url('app', "not$secret") . "')", qr/SZ001.*password authentication failed/s, 'a wrong password');
fails('plain', "SELECT sagaz.count_records('saga', '" . url('app', "$secret%zz") . "')", qr/SZ009/, 'a URL that is none');
fails('plain', "SELECT sagaz.create_storage('x', '" . url('app', $secret, '?passfile=/etc/x') . "')", qr/SZ009.*\n.*passfile/, 'an option that is not for storages');
fails('plain', "CREATE SERVER x FOREIGN DATA WRAPPER sagaz_postgresql OPTIONS (service 'x')", qr/HV00D/, 'nor for servers');
fails('plain', "CREATE SERVER x FOREIGN DATA WRAPPER sagaz_postgresql OPTIONS (password 'x')", qr/HV00D/, 'a password is of the mapping');
fails('plain', "CREATE SERVER x FOREIGN DATA WRAPPER sagaz_postgresql OPTIONS (layout 'x')", qr/SZ009/, 'a layout that is none');
unlike(join('', @seen), qr/$secret/, 'no message has the password');
unlike(slurp_file($node->logfile), qr/(FATAL|ERROR|STATEMENT|DETAIL|CONTEXT):.*$secret/, 'nor has an error in the log');

# Rows that a policy hides are not absent.
$other->safe_psql('postgres', 'CREATE DATABASE hidden');
$node->safe_psql('postgres', "SELECT sagaz.create_storage('whole', '" . (url('postgres') =~ s{/postgres$}{/hidden?layout=library}r) . "');
	SELECT sagaz.save_saga_state('s' || n, 'S', 'pending', storage => 'whole') FROM generate_series(1, 3) n");
$other->safe_psql('hidden', 'GRANT ALL ON ALL TABLES IN SCHEMA public TO nobody; ALTER TABLE sagas ENABLE ROW LEVEL SECURITY;'
	  . " CREATE POLICY one ON sagas USING (saga_id = 's1')");
$node->safe_psql('postgres', "SELECT sagaz.create_storage('part', '" . (url('nobody') =~ s{/postgres$}{/hidden?layout=library}r) . "')");
fails('postgres', "SELECT sagaz.count_records('saga', 'part')", qr/row.level security/, 'rows that a policy hides are an error to count');
fails('postgres', "SELECT sagaz.load_saga_state('s2', 'part')", qr/row.level security/, 'and to load');
fails('postgres', "CALL sagaz.transfer('part', 'memory://part', 'saga')", qr/row.level security/, 'and to transfer');

# The rights and the settings of the user there.
$node->safe_psql('postgres', "SELECT sagaz.create_storage('weak', '" . url('nobody') . "')");
fails('postgres', "SELECT sagaz.save_saga_state('s', 'S', 'pending', storage => 'weak')", qr/42501.*permission denied/, 'who may nothing there');
is($node->safe_psql('postgres', <<'SQL'), '2024-07-01 10:00:00.123456+00|(1,2024-07-01,10)', 'its settings make no difference');
SET TimeZone = 'UTC';
SELECT sagaz.save_saga_state('times', 'Times', 'executing', '[{"name": "a"}]', storage => 'far') IS NULL AS a,
	sagaz.update_step_state('times', 'a', 'completed', executed_at => '2024-07-01 12:00:00.123456+02', storage => 'far') IS NULL AS b \gset
SELECT s->'steps'->0->>'executed_at' AS t FROM sagaz.load_saga_state('times', 'far') AS s \gset
SELECT :'t'::timestamptz, (1, '2024-07-01'::date, 10);
SQL
$node->safe_psql('postgres', "SELECT sagaz.insert_event('s', 'E', '1', storage => 'far')");
is($node->safe_psql('postgres', <<'SQL'), 't|t', 'nor do ours');
SET DateStyle = 'German'; SET TimeZone = 'America/New_York'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -15;
SELECT updated_at BETWEEN now() - interval '1 min' AND clock_timestamp(),
	EXISTS (SELECT FROM sagaz.get_outbox_statistics('sagaz-workers', 'far') AS o WHERE o.oldest_pending BETWEEN '0' AND '1 min' AND o.pending = 1)
	FROM sagaz.list_sagas(storage => 'far') WHERE saga_id = 'times';
SQL

# Who waits can be cancelled, and waits no longer than the settings say.
my $session = SagazSession->new($node, 'postgres');
my $lock = SagazSession->new($other, 'postgres');
my $save = "SELECT sagaz.save_saga_state('times', 'Times', 'completed', storage => 'super');";
my $there = q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sagaz' AND state <> 'idle'};

$session->query("SELECT sagaz.count_records('saga', 'super')");
$lock->query('BEGIN; LOCK TABLE sagaz.sagas');
$session->query("SET sagaz.command_timeout = '1h'; SET statement_timeout = '300ms'");
is($session->outcome($save), "ERROR 57014\n", 'a statement that is cancelled');
query_is($other, 'postgres', $there, '0', 'ends there, too, long before sagaz.command_timeout');
$session->query("SET statement_timeout = 0; SET sagaz.command_timeout = '500ms'");
my $start = time;
is($session->outcome($save), "ERROR SZ001\n", 'sagaz.command_timeout');
cmp_ok(time - $start, '<', 5, 'is kept');
query_is($other, 'postgres', $there, '0', 'there, too');
$lock->query('ROLLBACK');
is($session->outcome($save), "3\n", 'and then it goes on');

# A process there that is stopped answers nothing at all.
my $stopped = $other->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'sagaz' AND backend_type = 'client backend' AND usename = 'postgres'});
kill 'STOP', $stopped;
is($session->outcome("SELECT sagaz.count_records('saga', 'super');"), "ERROR SZ001\n", 'one that is stopped');
is($session->outcome("SELECT sagaz.count_records('saga', 'super');"), "1\n", 'and a new connection');
kill 'CONT', $stopped;

# A socket that nobody answers.
my $deaf = PostgreSQL::Test::Utils::tempdir_short();
my $socket = IO::Socket::UNIX->new(Local => "$deaf/.s.PGSQL.5432", Listen => 1) or die $!;
my $nobody = 'postgresql://x@' . ($deaf =~ s{/}{%2F}gr) . '/x';
$session->query("SET sagaz.connect_timeout = '300ms'");
$start = time;
is($session->outcome("SELECT sagaz.count_records('saga', '$nobody');"), "ERROR SZ001\n", 'sagaz.connect_timeout');
cmp_ok(time - $start, '<', 5, 'is kept, too');
$session->query("SET sagaz.connect_timeout = '1min'; SET statement_timeout = '300ms'");
is($session->outcome("SELECT sagaz.count_records('saga', '$nobody');"), "ERROR 57014\n", 'connecting can be cancelled');
$session->query('RESET sagaz.connect_timeout; RESET sagaz.command_timeout; RESET statement_timeout');

# Connections that the other side closes.
is($session->outcome("SELECT sagaz.count_records('saga', 'super');"), "1\n", 'a kept connection');
$other->safe_psql('postgres', q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'sagaz'});
is($session->outcome("SELECT sagaz.count_records('saga', 'super');"), "1\n", 'is made anew where it was closed');
$other->restart;
is($session->outcome("SELECT sagaz.count_records('saga', 'super');"), "1\n", 'after a restart, too');

# Files of the process: as many after many errors as before.
my $files = sub { my @files = glob "/proc/$session->{pid}/fd/*"; scalar @files };
$session->outcome("SELECT sagaz.count_records('saga', 'weak');");
my $before = $files->();
$session->outcome("SELECT sagaz.count_records('saga', 'weak');") for 1 .. 20;
$session->outcome("SELECT sagaz.count_records('saga', '" . url('app', 'wrong') . "');") for 1 .. 20;
is($files->(), $before, 'no error leaves a connection open');
$other->stop;
is($session->outcome("SELECT sagaz.count_records('saga', 'super');"), "ERROR SZ001\n", 'a server that is not there');
is($node->safe_psql('postgres', "SELECT status FROM sagaz.health_check('super')"), 'unhealthy', 'health tells');
$other->start;
is($session->outcome("SELECT sagaz.count_records('saga', 'super');"), "1\n", 'and is there again');

# What is there.
is($node->safe_psql('postgres', "SELECT details->>'layout' FROM sagaz.health_check('super')"), 'sagaz', 'health tells the layout');
$other->safe_psql('postgres', "UPDATE pg_extension SET extversion = '9.9' WHERE extname = 'sagaz'");
like(error_of($node, "SELECT sagaz.count_records('saga', 'super')"), qr/SZ000.*9\.9/, 'another version is refused');
$other->safe_psql('postgres', "UPDATE pg_extension SET extversion = '0.1' WHERE extname = 'sagaz'");
$other->safe_psql('postgres', 'CREATE DATABASE strange');
$other->safe_psql('strange', 'CREATE TABLE sagas (id int)');
(my $strange = url('postgres')) =~ s{/postgres$}{/strange};
like(error_of($node, "SELECT sagaz.count_records('saga', '$strange')"), qr/SZ000/, 'tables of others are refused');
like(error_of($node, "SELECT sagaz.count_records('saga', '$strange?layout=sagaz')"), qr/SZ000.*no extension/, 'so is what layout denies');

# Copies there and back.
$node->safe_psql('postgres', <<'SQL');
SELECT count(sagaz.save_saga_state('s' || n, 'Copied', 'executing', '[{"name": "a"}]', jsonb_build_object('n', n))),
	count(sagaz.insert_event('s' || n, 'Made', to_jsonb(n), routing_key => 'r'))
	FROM generate_series(1, 1100) AS n;
SQL
$other->safe_psql('postgres', 'DROP EXTENSION sagaz; CREATE EXTENSION sagaz');
for my $type (qw(saga outbox))
{
	is($node->safe_psql('postgres', <<"SQL"), '1100|0|t', "$type: copied, and then nothing is left to copy");
SELECT sagaz.import_records(jsonb_agg(r), '$type', 'error', 'super') FROM sagaz.export_all('$type') AS r \\gset first_
SELECT sagaz.import_records(jsonb_agg(r), '$type', 'skip', 'super') FROM sagaz.export_all('$type') AS r \\gset second_
SELECT :first_import_records, :second_import_records,
	sagaz.checksum('$type', 'super') = sagaz.checksum('$type')
SQL
	is($node->safe_psql('postgres', <<"SQL"), '0', "$type: read in parts, whole");
SELECT count(*) FROM sagaz.export_all('$type') AS a FULL JOIN sagaz.export_all('$type', 'super') AS b ON a = b WHERE a IS NULL OR b IS NULL
SQL
	like(error_of($node, "SELECT sagaz.import_records(jsonb_agg(r), '$type', 'error', 'super') FROM sagaz.export_all('$type') AS r"),
		qr/23505/, "$type: what is there already, as an error");
}
is($other->safe_psql('postgres', 'SELECT count(*) FROM sagaz.claim_batch($$w$$, 2000)'), '1100', 'events that were copied are claimed');
like(error_of($node, "SELECT sagaz.insert_event('s', 'E', '1', event_id => (SELECT event_id FROM sagaz.outbox LIMIT 1), storage => 'super')"),
	qr/23505.*CONTEXT:  storage "super"/s, 'errors come with their SQLSTATE and say from where');
$session->close;
$lock->close;

$other->stop;
$node->stop;
done_testing();
