# Nobody gains a right, where it takes two clusters or two sessions: tables of
# somebody who lies in wait at the other end, logins that are this server's own,
# settings from before the module is loaded, files and sockets, TLS.  The rest
# is in test/pgtap/rights.sql.
use strict;
use warnings;

use IO::Socket::INET;
use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;
use SagazMutator::Postgres;
use SagazTest;
use Test::More;

my $secret = 'Gr33nT0mato';
my $work = PostgreSQL::Test::Utils::tempdir_short();

# ----------------------------------------------------------------------
# The other end, with certificates

sub openssl
{
	run_log([ 'openssl', @_ ]) or die "openssl @_";
}

my $has_tls = !system('command -v openssl >/dev/null 2>&1');
my $tls = '';
if ($has_tls)
{
	for my $ca (qw(ca other))
	{
		openssl(qw(req -x509 -newkey rsa:2048 -nodes -days 2 -keyout), "$work/$ca.key", '-out', "$work/$ca.crt", '-subj', "/CN=$ca");
	}
	openssl(qw(req -newkey rsa:2048 -nodes -keyout), "$work/server.key", '-out', "$work/server.csr", '-subj', '/CN=localhost');
	append_to_file("$work/names", "subjectAltName=DNS:localhost\n");
	openssl(qw(x509 -req -days 2 -CAcreateserial -in), "$work/server.csr", '-CA', "$work/ca.crt", '-CAkey', "$work/ca.key",
		'-extfile', "$work/names", '-out', "$work/server.crt");
	chmod 0600, "$work/server.key";
	$tls = "ssl = on\nssl_cert_file = '$work/server.crt'\nssl_key_file = '$work/server.key'\n";
}
my $far = new_node('far', conf => "fsync = off\nlisten_addresses = '127.0.0.1'\nlog_connections = on\n$tls");
$far->safe_psql('postgres', <<"SQL");
SET password_encryption = 'scram-sha-256';
CREATE ROLE app LOGIN PASSWORD '$secret';
CREATE ROLE victim LOGIN SUPERUSER PASSWORD '$secret';
CREATE ROLE evil LOGIN;
CREATE SCHEMA evil AUTHORIZATION evil;
CREATE SCHEMA lib AUTHORIZATION app;
SELECT sagaz.grant_access('app', 'producer'), sagaz.grant_access('app', 'operator');
SQL
unlink $far->data_dir . '/pg_hba.conf';
$far->append_conf('pg_hba.conf', <<'HBA');
local all app scram-sha-256
local all victim scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
local all all trust
HBA
$far->reload;

my $host = $far->host =~ s{/}{%2F}gr;
my $port = $far->port;

sub url
{
	my ($login, $more) = @_;
	return "postgresql://$login\@$host:$port/postgres" . ($more // '');
}

# ----------------------------------------------------------------------
# This end, where the server's user has a password of his own

append_to_file("$work/pgpass", "*:*:*:victim:$secret\n*:*:*:app:$secret\n");
chmod 0600, "$work/pgpass";
my $near = do
{
	local $ENV{PGPASSFILE} = "$work/pgpass";
	new_node('near', conf => "fsync = off\n");
};

sub outcome
{
	my ($role, $sql) = @_;
	my ($status, $out, $err) = $near->psql('postgres', "\\set VERBOSITY verbose\nSET SESSION AUTHORIZATION $role;\n$sql");

	return $err =~ /ERROR:  (\w{5}): (.*)/ ? "$1 $2" : $out;
}

$near->safe_psql('postgres', <<"SQL");
CREATE ROLE plain LOGIN; CREATE ROLE nobody LOGIN;
SELECT sagaz.grant_access(r, k) FROM unnest('{plain,nobody}'::text[]) r, unnest('{operator,producer}'::text[]) k;
GRANT USAGE ON FOREIGN DATA WRAPPER sagaz_postgresql, sagaz_redis, sagaz_sqlite TO plain;
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO PUBLIC;
CREATE FUNCTION shop.count_at(place text) RETURNS bigint LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp AS \$\$ SELECT sagaz.count_records('saga', place) \$\$;
CREATE FUNCTION shop.place_order() RETURNS void LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp AS \$\$ SELECT sagaz.insert_event('o', 'placed', '{}') \$\$;
SELECT sagaz.create_storage('super', '@{[url('postgres')]}');
SQL

# S1: whoever calls a superuser's function does not log in as him.
my $evil = url('postgres', '?layout=library&schema=evil');
$far->safe_psql('postgres', <<'SQL');
SET ROLE evil;
CREATE TABLE evil.saga_outbox (event_id uuid primary key, saga_id text, aggregate_type text, aggregate_id text, event_type text, payload jsonb,
	headers jsonb, status text default 'pending', created_at timestamptz default now(), claimed_at timestamptz, sent_at timestamptz,
	retry_count int default 0, last_error text, worker_id text);
CREATE FUNCTION evil.boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE evil SUPERUSER'; RETURN new; END $$;
CREATE TRIGGER boom BEFORE INSERT ON evil.saga_outbox FOR EACH ROW EXECUTE FUNCTION evil.boom();
SQL
like(outcome('nobody', "SET sagaz.outbox_storage = '$evil';"), qr/^42501/, 'a caller sets no storage');
like(outcome('postgres', "SET sagaz.outbox_storage = '$evil';"), qr/^22023/, 'and nobody a URL');
like(outcome('nobody', "SELECT shop.count_at('super');"), qr/^42501 password is required/, 'in a definer\'s function a superuser is none');
like(outcome('postgres', "SELECT shop.count_at('super');"), qr/^42501 password is required/, 'not even in his own session');
is(outcome('postgres', "SELECT sagaz.count_records('saga', 'super');"), '0', 'where he is one outside of it');
like(outcome('postgres', "SELECT sagaz.count_records('saga', 'super'); SELECT shop.count_at('super');"), qr/^42501/, 'what he has open is not used there');

# A foreign table is used as its owner, by whom he lets, and in whose session?
$near->safe_psql('postgres', <<'SQL');
CREATE ROLE keeper LOGIN;
CREATE SCHEMA f;
GRANT USAGE ON SCHEMA f TO keeper;
IMPORT FOREIGN SCHEMA sagaz LIMIT TO (sagas) FROM SERVER super INTO f;
GRANT SELECT ON f.sagas TO keeper;
CREATE MATERIALIZED VIEW f.kept AS SELECT saga_id FROM f.sagas WITH NO DATA;
CREATE FUNCTION shop.analyze() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'ANALYZE f.sagas';
SQL
is(outcome('postgres', 'ANALYZE f.sagas;'), '', 'a superuser analyzes what he may read');
is($near->safe_psql('postgres', q{SELECT reltuples FROM pg_class WHERE oid = 'f.sagas'::regclass}), '0', 'and has read it');
like(outcome('postgres', 'SELECT shop.analyze();'), qr/^42501 password is required/, 'ANALYZE in a definer\'s function');
like(outcome('postgres', 'REFRESH MATERIALIZED VIEW f.kept;'), qr/^42501 password is required/, 'what REFRESH runs may be others\' code');
like(outcome('keeper', 'SELECT * FROM f.sagas;'), qr/^42501 password is required/, 'another reads with what he has himself');
$near->safe_psql('postgres', 'ALTER DATABASE postgres OWNER TO keeper');
like(outcome('keeper', 'ANALYZE f.sagas;'), qr/^42501 password is required/, 'who may analyze the table, not in a superuser\'s session');
$near->safe_psql('postgres', 'ALTER DATABASE postgres OWNER TO postgres');
$near->safe_psql('postgres', 'ALTER FOREIGN TABLE f.sagas OWNER TO keeper');
like(outcome('postgres', 'ANALYZE f.sagas;'), qr/^42501 password is required/, 'a superuser analyzes as the table\'s owner');

like(outcome('postgres', "SELECT sagaz.insert_event('a', 'b', '1', storage => '$evil');"), qr/^42501 tables of storage .* are not to be trusted/,
	'another\'s tables are not touched');
is($far->safe_psql('postgres', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'evil'}), 'f', 'and nobody has become a superuser');

# The same where the table is one's own and the code is not.
my $lib = url("app:$secret", '?layout=library&schema=lib');
is(outcome('plain', "SELECT sagaz.insert_event('a', 'b', '1', storage => '$lib') IS NOT NULL;"), 't', 'tables of who logs in');
for my $trap (
	[ 'CREATE TRIGGER boom BEFORE INSERT ON lib.saga_outbox FOR EACH ROW EXECUTE FUNCTION evil.boom()', 'DROP TRIGGER boom ON lib.saga_outbox', 'a trigger' ],
	[ 'ALTER TABLE lib.saga_outbox OWNER TO evil', 'ALTER TABLE lib.saga_outbox OWNER TO app', 'a table that was given away' ],
	[ 'ALTER SCHEMA lib OWNER TO evil', 'ALTER SCHEMA lib OWNER TO app', 'a schema that was' ],
	[ 'ALTER TABLE lib.sagas RENAME TO s; CREATE VIEW lib.sagas AS SELECT * FROM lib.s', 'DROP VIEW lib.sagas; ALTER TABLE lib.s RENAME TO sagas', 'a view' ],
	[ 'ALTER TABLE lib.sagas ENABLE ROW LEVEL SECURITY; ALTER TABLE lib.sagas FORCE ROW LEVEL SECURITY', 'ALTER TABLE lib.sagas DISABLE ROW LEVEL SECURITY', 'rows that are hidden' ])
{
	$far->safe_psql('postgres', $trap->[0]);
	like(outcome('plain', "SELECT sagaz.insert_event('a', 'b', '1', storage => '$lib');"), qr/^42501 tables of storage/, "not with $trap->[2]");
	$far->safe_psql('postgres', $trap->[1]);
}
$far->safe_psql('postgres', 'CREATE ROLE maker; ALTER TABLE lib.saga_outbox OWNER TO maker; GRANT ALL ON lib.saga_outbox TO app');
like(outcome('plain', "SELECT sagaz.count_records('outbox', '$lib');"), qr/^42501/, 'not of a third role');
is(outcome('plain', "SELECT sagaz.count_records('outbox', '$lib&trusted_owner=maker');"), '1', 'unless trusted_owner names it');
# operators of a search_path that the database has
$far->safe_psql('postgres', <<'SQL');
CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'it ran'; END $$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same);
GRANT USAGE ON SCHEMA evil TO PUBLIC;
ALTER ROLE app SET search_path = evil, pg_catalog;
SQL
is(outcome('plain', "SELECT sagaz.count_records('outbox', '$lib&trusted_owner=maker');"), '1', 'a search_path there makes no difference');

# S5: the server's own logins
for my $password (q{, password ''}, '')
{
	my $name = $password ? 'empty' : 'none';
	is(outcome('plain', "CREATE SERVER $name FOREIGN DATA WRAPPER sagaz_postgresql OPTIONS (host '" . $far->host . "', port '$port', dbname 'postgres');"
		. " CREATE USER MAPPING FOR plain SERVER $name OPTIONS (user 'victim'$password);"), '', "a mapping: password $name");
	like(outcome('plain', "SELECT status FROM sagaz.health_check('$name');"), qr/^42501 password is required/, "password $name: .pgpass is not ours");
}
like(outcome('plain', "SELECT sagaz.count_records('saga', '@{[url('victim:')]}');"), qr/^42501/, 'nor with a URL');
is($far->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'victim'}), '0', 'victim was not there');
unlike(slurp_file($far->logfile), qr/connection authorized: user=victim/, 'and never got in');
is(outcome('plain', "SELECT sagaz.count_records('saga', '@{[url(\"app:$secret\")]}');"), '0', 'a password of one\'s own does');

# Kerberos tickets of the server's user, or delegated to the session, are no
# password: their options are closed, and a server that asks for them, or for
# nothing, does not let one in.
for my $option ('gssencmode=prefer', 'gssdelegation=1', 'gsslib=gssapi', 'krbsrvname=x', 'require_auth=none', 'requirepeer=postgres', 'service=x', 'passfile=/x')
{
	my ($name, $value) = split /=/, $option;
	like(outcome('postgres', "SELECT sagaz.count_records('saga', '@{[url(\"app:$secret\", \"?$option\")]}');"), qr/^SZ009/, "no option of a URL: $name");
	like(outcome('postgres', "CREATE SERVER no FOREIGN DATA WRAPPER sagaz_postgresql OPTIONS ($name '$value');"), qr/^HV00D/, "nor of a server: $name");
}
for my $kind ([ 'GSS', 7 ], [ 'SSPI', 9 ], [ 'nothing', 0 ])
{
	my ($name, $code) = @$kind;
	my $asked = 0;
	my $peer = SagazMutator::Postgres->new($far->host . '/.s.PGSQL.' . $far->port, 1, sub {
			my ($type, $body) = @_;

			return ($type, $body) if $type ne 'R' || $asked++;
			return ('R', pack('N', $code), $code ? () : ('Z', 'I'));
		});

	like(outcome('plain', "SELECT sagaz.count_records('saga', '" . $peer->url("app:$secret", 'postgres') . "');"), qr/^42501 password is required|^SZ001 could not connect/,
		"a server that asks for $name");
	$peer->stop;
}
{
	local $ENV{PGGSSENCMODE} = 'require';
	local $ENV{KRB5CCNAME} = "FILE:$work/tickets";
	$near->restart;
}
is(outcome('plain', "SELECT sagaz.count_records('saga', '@{[url(\"app:$secret\")]}');"), '0', 'nor does the environment say it');
$near->restart;

# ----------------------------------------------------------------------
# Files and sockets

my $socket = IO::Socket::UNIX->new(Local => "$work/s", Listen => 5) or die $!;
my $tcp = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 5, Blocking => 0) or die $!;
my $probe = 'redis://127.0.0.1:' . $tcp->sockport;
like(outcome('plain', "SELECT sagaz.count_records('saga', 'unix://$work/s');"), qr/^42501 permission denied for path/, 'a socket is a file of the server');
like(outcome('plain', "SELECT sagaz.count_records('saga', '@{[url(\"app:$secret\", '?sslrootcert=/etc/passwd')]}');"),
	qr/^42501 permission denied for sslrootcert/, 'so is a certificate');
for my $call ("SELECT sagaz.count_records('saga', '$probe')", "SELECT * FROM sagaz.health_check('$probe')", "CALL sagaz.transfer('$probe', 'native')",
	"CALL sagaz.migrate('native', '$probe')", "SELECT sagaz.create_delivery('d', '$probe'::text)", "SELECT sagaz.create_storage('x', '$probe')")
{
	like(outcome('nobody', "$call;"), qr/^42501|^SZ009 target must be the name/, "not without USAGE: " . substr($call, 0, 30));
}
like(outcome('nobody', "SELECT issues FROM sagaz.validate_transfer('$probe', 'native');"), qr/privilege/, 'nor validate_transfer()');
ok(!defined $tcp->accept, 'and nobody has knocked');

my $data = $near->data_dir;
mkdir "$work/free" or die $!;
$near->safe_psql('postgres', "ALTER SYSTEM SET sagaz.sqlite_directory = '/'; SELECT pg_reload_conf()");
$near->poll_query_until('postgres', "SELECT current_setting('sagaz.sqlite_directory') = '/'") or die;
like(outcome('plain', "SELECT sagaz.save_saga_state('s', 'S', 'pending', storage => 'sqlite://$data/standby.signal');"), qr/^42501/, 'never among the server\'s data');
ok(!-e "$data/standby.signal", 'nothing was made there');
$near->safe_psql('postgres', "ALTER SYSTEM SET sagaz.sqlite_directory = '$work/free'; SELECT pg_reload_conf()");
$near->poll_query_until('postgres', "SELECT current_setting('sagaz.sqlite_directory') = '$work/free'") or die;
is(outcome('plain', "SELECT sagaz.save_saga_state('s', 'S', 'pending', storage => 'sqlite://$work/free/a.db');"), '1', 'a file in the free directory');
for my $suffix ('', '-wal', '-journal')
{
	unlink glob "$work/free/b.db*";
	symlink "$work/outside$suffix", "$work/free/b.db$suffix" or die $!;
	outcome('plain', "SELECT sagaz.save_saga_state('s', 'S', 'pending', storage => 'sqlite://$work/free/b.db');");
	ok(!-e "$work/outside$suffix", "a link is not followed: b.db$suffix");
}

# ----------------------------------------------------------------------
# Settings from before the module is loaded

my $late = new_node('late', preload => 0, conf => "fsync = off\n");
$late->safe_psql('postgres', <<"SQL");
CREATE ROLE attacker LOGIN;
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO PUBLIC;
CREATE FUNCTION shop.place_order() RETURNS void LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp AS \$\$ SELECT sagaz.insert_event('o', 'placed', '{}') \$\$;
SELECT sagaz.create_storage('evil', 'memory://x');
SQL
my @as = (extra_params => [ '-U', 'attacker' ]);
for my $way ("SET sagaz.outbox_storage = 'evil'", "SET SESSION sagaz.outbox_storage = 'memory://x'", "SELECT set_config('sagaz.outbox_storage', 'evil', false)")
{
	my ($status, $out, $err) = $late->psql('postgres', "$way; SELECT shop.place_order(); SHOW sagaz.outbox_storage", @as);
	like($out, qr/native$/, "before the module is loaded: $way");
	like($err, qr/WARNING:.*sagaz\.outbox_storage|WARNING:.*with a name/, 'and it says so');
}
for my $way ("ALTER ROLE attacker SET sagaz.outbox_storage = 'evil'", "CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql SET sagaz.outbox_storage = 'evil' AS ''")
{
	my ($status, $out, $err) = $late->psql('postgres', $way, @as);
	isnt($status, 0, "nor $way") if $way =~ /^ALTER/;
}
{
	local $ENV{PGOPTIONS} = '-c sagaz.outbox_storage=evil';
	my ($status, $out, $err) = $late->psql('postgres', 'SELECT shop.place_order(); SHOW sagaz.outbox_storage', @as);
	like($out, qr/native$/, 'nor in PGOPTIONS');
	($status, $out, $err) = $near->psql('postgres', 'SHOW sagaz.outbox_storage', extra_params => [ '-U', 'nobody' ]);
	unlike($out // '', qr/evil/, 'nor where it is loaded');
}
is($late->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox'), '4', 'all events are here');
$late->stop;

# ----------------------------------------------------------------------
# TLS

SKIP:
{
	skip 'openssl is not there', 1 unless $has_tls;
	my $there = sub { my ($name, $more) = @_; "postgresql://app:$secret\@$name:$port/postgres?connect_timeout=10&$more" =~ s/connect_timeout=10&//r };
	$near->safe_psql('postgres', 'GRANT pg_read_server_files TO plain');
	for my $case (
		[ 'localhost', "sslmode=verify-full&sslrootcert=$work/ca.crt", 1, 'verify-full' ],
		[ 'localhost', "sslmode=verify-full&sslrootcert=$work/other.crt", 0, 'verify-full, another authority' ],
		[ '127.0.0.1', "sslmode=verify-full&sslrootcert=$work/ca.crt", 0, 'verify-full, another name' ],
		[ '127.0.0.1', "sslmode=verify-ca&sslrootcert=$work/ca.crt", 1, 'verify-ca, another name' ],
		[ '127.0.0.1', "sslmode=verify-ca&sslrootcert=$work/other.crt", 0, 'verify-ca, another authority' ],
		[ '127.0.0.1', "sslmode=verify-ca&sslrootcert=$work/none.crt", 0, 'verify-ca, no such file' ],
		[ '127.0.0.1', 'sslmode=require', 1, 'require' ],
		[ '127.0.0.1', 'sslmode=prefer', 1, 'prefer' ],
		[ '127.0.0.1', 'sslmode=allow', 1, 'allow' ],
		[ '127.0.0.1', "sslmode=require&sslrootcert=$work/other.crt", 0, 'require, with another authority' ],
		[ '127.0.0.1', 'sslmode=disable', 1, 'disable' ])
	{
		my ($name, $more, $works, $what) = @$case;
		my $answer = outcome('plain', "SELECT sagaz.count_records('saga', '" . $there->($name, $more) . "');");

		if ($works) { is($answer, '0', "sslmode $what") }
		else { like($answer, qr/^SZ001 could not connect/, "sslmode $what: refused") }
	}
	for my $on ('off', 'on')
	{
		$far->safe_psql('postgres', "ALTER SYSTEM SET ssl = $on; SELECT pg_reload_conf()");
		$far->poll_query_until('postgres', 'SHOW ssl', $on) or die;
		next if $on eq 'on';
		for my $mode ('require', 'verify-ca', 'verify-full')
		{
			like(outcome('plain', "SELECT sagaz.count_records('saga', '" . $there->('localhost', "sslmode=$mode" . ($mode eq 'require' ? '' : "&sslrootcert=$work/ca.crt")) . "');"),
				qr/^SZ001/, "a server without TLS: sslmode $mode");
		}
	}
	unlink $far->data_dir . '/pg_hba.conf';
	$far->append_conf('pg_hba.conf', "hostssl all all 127.0.0.1/32 scram-sha-256\nlocal all all trust\n");
	$far->reload;
	like(outcome('plain', "SELECT sagaz.count_records('saga', '" . $there->('127.0.0.1', 'sslmode=disable') . "');"), qr/^SZ001/, 'a server that wants TLS');
	is(outcome('plain', "SELECT sagaz.count_records('saga', '" . $there->('127.0.0.1', 'sslmode=prefer') . "');"), '0', 'gets it');
}
unlike(slurp_file($near->logfile), qr/(FATAL|ERROR|DETAIL|CONTEXT):.*$secret/, 'no error in the log has the password');

$far->stop;
$near->stop;
done_testing();
