# Redis over TLS: servers with the right certificate, another authority's, one
# of another name, one that has expired, that want one of ours, or that never
# shake hands; records larger than one of TLS; an ordered delivery to a stream.
use strict;
use warnings;

use FakeRedis;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazRedis;
use SagazSaves;
use SagazSession;
use SagazTest;
use SagazTls;
use Test::More;
use Time::HiRes qw(time usleep);

plan skip_all => 'openssl is not there' unless SagazTls::is_there();

my $secret = 's3cret-Pa55';
my $tls = SagazTls->new(qw(ca other));
$tls->issue('good', 'ca', 'DNS:localhost,IP:127.0.0.1')->issue('elsewhere', 'ca', 'DNS:elsewhere.example')
  ->issue('old', 'ca', 'DNS:localhost,IP:127.0.0.1', days => 0)->issue('client', 'ca', 'DNS:client')->issue('stranger', 'other', 'DNS:client');
my $node = new_node('redis_tls', conf => <<'CONF');
fsync = off
log_error_verbosity = verbose
sagaz.command_timeout = 5s
sagaz.connect_timeout = 5s
sagaz.poll_interval = 1h
sagaz.retry_backoff = 100ms
CONF

# A server with that certificate, and its port.
sub server
{
	my ($certificate, %settings) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $redis = SagazRedis->new($tls->redis_settings($certificate, 'ca'), 'tls-port' => $port, %settings)->start;

	$redis->{tls_port} = $port;
	return $redis;
}

saves_on($node, $secret);

my $good = server('good');
my $port = $good->{tls_port};
my $ca = 'sslrootcert=' . $tls->crt('ca');

# ----------------------------------------------------------------------
# Whom we talk to

works("rediss://localhost:$port?$ca", 'the right server');
works("rediss://127.0.0.1:$port/3?$ca", 'by its address');
is($good->cli('-n', '3', 'EXISTS', 'saga:s'), '1', 'it is in that database');
$good->cli('ACL', 'SETUSER', 'app', 'on', ">$secret", '~*', '&*', '+@all');
works("rediss://app:$secret\@localhost:$port?$ca", 'with a password');
fails("rediss://app:$secret-x\@localhost:$port?$ca", 'SZ001: could not log in', 'with a wrong one');
works("rediss://localhost:$port?sslmode=require", 'require looks at no certificate');
works("redis://localhost:$port?sslmode=verify-full&$ca", 'the option alone');
works("redis://localhost:$port?$ca", 'an authority alone is verify-full');

my $other_ca = 'sslrootcert=' . $tls->crt('other');
fails("rediss://app:$secret\@localhost:$port?$other_ca", 'SZ001: could not connect .*certificate is refused: self-signed', 'another authority');
fails("rediss://localhost:$port?$other_ca&sslmode=$_", 'SZ001: .*certificate is refused', "another authority, $_") for qw(verify-ca require);
fails("rediss://localhost:$port", 'SZ001: .*certificate is refused', "the system's authorities, by default");
fails("rediss://localhost:$port?sslrootcert=system", 'SZ001: .*certificate is refused', 'and by name');

my $elsewhere = server('elsewhere')->{tls_port};
fails("rediss://localhost:$elsewhere?$ca", 'SZ001: .*not one of "localhost"', 'another name');
fails("rediss://127.0.0.1:$elsewhere?$ca", 'SZ001: .*not one of "127.0.0.1"', 'another address');
works("rediss://localhost:$elsewhere?$ca&sslmode=$_", "another name, $_") for qw(verify-ca require);
my $old = server('old')->{tls_port};
fails("rediss://localhost:$old?$ca&sslmode=$_", 'SZ001: .*certificate has expired', "expired, $_") for qw(verify-full verify-ca);

{
	my $plain = PostgreSQL::Test::Cluster::get_free_port();
	my $redis = SagazRedis->new(port => $plain, bind => '127.0.0.1')->start;

	fails("SET sagaz.connect_timeout = '300ms'; " . save("rediss://localhost:$plain?$ca"), 'SZ001: .*(not answer|not speak)', 'a server without TLS');
	fails("redis://localhost:$port", 'SZ001: could not connect', 'and one that wants it');
	works("redis://localhost:$plain", 'a plain one as ever');
	works("redis://localhost:$plain?sslmode=disable", 'and when that is said');
}

# What is named in the greeting decides which certificate it shows.
{
	my $named = PostgreSQL::Test::Cluster::get_free_port();
	my $server = IPC::Run::start([ 'openssl', 's_server', '-quiet', '-accept', "127.0.0.1:$named", '-servername', 'localhost',
		'-cert', $tls->crt('elsewhere'), '-key', $tls->key('elsewhere'), '-cert2', $tls->crt('good'), '-key2', $tls->key('good') ],
		'<', '/dev/zero', '>', '/dev/null', '2>', '/dev/null');
	my $end = time + 30;

	usleep(10_000) until IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $named) || time > $end;
	fails("rediss://localhost:$named?$ca", 'SZ001: .*Protocol error', 'the name is told');
	$server->kill_kill;
}

# ----------------------------------------------------------------------
# Who we are

my $strict = server('good', 'tls-auth-clients' => 'yes')->{tls_port};
sub login { return "&sslcert=" . $tls->crt($_[0]) . '&sslkey=' . $tls->key($_[0]) }
works("rediss://localhost:$strict?$ca" . login('client'), 'with a certificate of ours');
fails("rediss://app:$secret\@localhost:$strict?$ca", 'SZ001: could not connect .*wants a client certificate', 'without one');
fails("rediss://localhost:$strict?$ca" . login('stranger'), 'SZ001: could not connect .*unknown ca', 'with one of others');
fails("rediss://localhost:$strict?$ca&sslcert=" . $tls->crt('client') . '&sslkey=' . $tls->key('stranger'), 'SZ001: .*sslkey: .*mismatch', 'with a key of another');
fails("rediss://localhost:$strict?$ca&sslcert=" . $tls->crt('client'), 'SZ009: .*sslcert and sslkey', 'without its key');
fails("rediss://localhost:$port?sslrootcert=$tls->{dir}/none", 'SZ001: .*sslrootcert: No such file', 'no such file');
fails("rediss://localhost:$port?sslrootcert=$tls->{dir}", 'SZ001: .*sslrootcert: It is not a regular file', 'a directory');
fails("rediss://localhost:$port?sslrootcert=" . $tls->key('ca'), 'SZ001: .*sslrootcert: no certificate', 'no certificate');
fails("rediss://localhost:$port?sslmode=verify-ca", 'SZ009: .*everybody|SZ009: .*Everybody', 'whatever any authority says');
fails('unix://' . $good->{socket} . "?sslmode=require", 'SZ009: URL', 'no TLS on a socket');
fails("SELECT sagaz.create_storage('local', 'unix://$good->{socket}', options => '{\"sslmode\": \"require\"}'); " . save('local'), 'SZ009: .*no TLS on a socket', 'nor by an option');
chmod 0644, $tls->key('client');
fails("rediss://localhost:$strict?$ca" . login('client'), 'SZ001: .*sslkey: Others have access', 'a key that others can read');
chmod 0600, $tls->key('client');
$tls->openssl('ec', '-in', $tls->key('client'), '-out', $tls->key('locked'), '-aes128', '-passout', 'pass:locked');
chmod 0600, $tls->key('locked');
fails("rediss://localhost:$strict?$ca&sslcert=" . $tls->crt('client') . '&sslkey=' . $tls->key('locked'), 'SZ001: .*sslkey: ', 'a key with a pass phrase');

fails("rediss://app:$secret\@localhost:$port?$_", 'SZ009: (URL of a Redis storage|sslmode) is not valid', $_)
  for 'sslmode=prefer', 'sslmode=disable', 'sslmode=', 'sslmode', 'x=y', "$ca&", "sslrootcert=%zz";
fails("redis://app:$secret?x\@localhost", 'SZ009: URL', 'a question mark before the host');
fails(qq{SELECT sagaz.create_storage('x', 'redis://h', options => '{"sslmode": "allow"}')}, 'SZ009: sslmode is not valid', 'a mode that may end without TLS');

# Files are read with the server's rights.
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE app LOGIN;
GRANT USAGE ON SCHEMA sagaz TO app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sagaz TO app;
GRANT USAGE ON FOREIGN DATA WRAPPER sagaz_redis TO app;
SQL
fails('SET ROLE app; ' . save("rediss://localhost:$port?$ca"), '42501: permission denied for sslrootcert', 'who may name an authority');
fails('SET ROLE app; ' . save("rediss://localhost:$strict?sslmode=require" . login('client')), '42501: permission denied for sslcert', 'who may name a certificate');
is($node->safe_psql('postgres', 'SET ROLE app; ' . save("rediss://localhost:$port?sslmode=require") . ' > 0'), 't', 'TLS itself is for all');
$node->safe_psql('postgres', 'GRANT pg_read_server_files TO app');
like($node->safe_psql('postgres', 'SET ROLE app; ' . save("rediss://localhost:$port?$ca")), qr/^\d+$/, 'with that right');

# ----------------------------------------------------------------------
# Waiting

my $session = SagazSession->new($node, 'postgres');
my $pid = $session->query('SELECT pg_backend_pid()');
$node->safe_psql('postgres', "SELECT sagaz.create_storage('r', 'rediss://localhost:$port', options => jsonb_build_object('sslrootcert', '" . $tls->crt('ca') . "'))");
like($session->query(save('r')), qr/^\d+$/, 'a session has a connection');
{
	my $mute = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 10) or die $!;
	my $there = "rediss://127.0.0.1:" . $mute->sockport . "?$ca";
	my $start = time;

	fails("SET sagaz.connect_timeout = '300ms'; " . save($there), 'SZ001: .*in TLS within sagaz.connect_timeout', 'a server that never shakes hands');
	fails("SET statement_timeout = '300ms'; SET sagaz.connect_timeout = '1h'; " . save($there), '57014', 'a handshake is cancelled');
	cmp_ok(time - $start, '<', 5, 'in time');
	my $waiter = IPC::Run::start(
		[ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c', "SET application_name = 'waiter'; SET sagaz.connect_timeout = '1h'", '-c', save($there) ],
		'<', \undef, '>', \my $out, '2>', \my $err);
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'waiter' AND wait_event = 'Extension' AND state = 'active'});
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'waiter'});
	$waiter->finish;
	like($err, qr/terminating connection/, 'a session that shakes hands is ended');
}
$good->signal('STOP');
fails("SET sagaz.command_timeout = '300ms'; SET sagaz.connect_timeout = '300ms'; " . save('r'), 'SZ001: .*timeout', 'a server that hangs');
is($session->outcome("SET statement_timeout = '300ms'; " . save('r') . ';') =~ s/\s.*//sr, 'ERROR', 'and is given up');
$good->signal('CONT');
$session->query('RESET statement_timeout');
like($session->query(save('r')), qr/^\d+$/, 'it goes on');
$good->cli('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
like($session->query(save('r')), qr/^\d+$/, 'closed by the server while idle, it is opened anew');

# Garbage in place of a handshake
{
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 10) or die $!;
	my $garbler = fork // die $!;

	if ($garbler == 0)
	{
		for my $text ("\x15\x03\x03\x00\x02\x02\x28", "+OK\r\n", "\x16\x03\x03\x40\x00" . "\0" x 0x4000, '')
		{
			my $client = $listener->accept;
			sysread $client, my $hello, 4096;
			syswrite $client, $text;
			close $client;
		}
		POSIX::_exit(0);
	}
	fails('rediss://127.0.0.1:' . $listener->sockport . "?$ca", "SZ001: could not connect .*$_", $_) for 'handshake failure', 'not speak TLS', 'DETAIL', 'closed it';
	waitpid $garbler, 0;
}

# ----------------------------------------------------------------------
# Much at once, both ways

is($session->query(q{SELECT sagaz.import_records((SELECT jsonb_agg(jsonb_build_object('saga_id', 'big' || i, 'saga_name', 'N', 'status', 'pending', 'steps', '[]'::jsonb,
	'context', jsonb_build_object('text', repeat(md5(i::text), 3000)), 'created_at', '2026-01-01T00:00:00Z', 'updated_at', '2026-01-01T00:00:00Z'))
	FROM generate_series(1, 300) i), 'saga', storage => 'r')}), '300', '30 MB go out') or diag($session->outcome(''));
is($session->query(q{SELECT count(*), bool_and(r->'context'->>'text' = repeat(md5(substr(r->>'saga_id', 4)), 3000))
	FROM sagaz.export_all('saga', 'r') AS r WHERE r->>'saga_id' LIKE 'big%'}), '300|t', 'and come back');

is($node->safe_psql('postgres', q{CREATE SCHEMA far; IMPORT FOREIGN SCHEMA sagaz FROM SERVER r INTO far;
	UPDATE far.sagas SET status = 'failed' WHERE saga_id = 'big7' RETURNING status}), 'failed', 'a foreign table');

# ----------------------------------------------------------------------
# Leaks

sub held
{
	my @sockets = grep { (readlink($_) // '') =~ /^socket/ } glob "/proc/$pid/fd/*";
	my ($rss) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m;

	return (scalar @sockets, $rss);
}

sub repeat
{
	my ($count, $call) = @_;

	return $session->query(<<"SQL");
DO \$\$ BEGIN FOR i IN 1 .. $count LOOP
	BEGIN PERFORM $call; EXCEPTION WHEN OTHERS THEN NULL; END;
END LOOP; END \$\$
SQL
}
my @calls = map { "sagaz.load_saga_state('s', '$_')" } "rediss://localhost:$port?$other_ca", "rediss://localhost:$old?$ca",
  "rediss://localhost:$strict?$ca", "rediss://localhost:$strict?$ca" . login('stranger'), "rediss://localhost:$port?sslrootcert=/none";
repeat(20, $_) for @calls;
my ($files, $rss) = held();
repeat(200, $_) for @calls;
my ($files_after, $rss_after) = held();
is($files_after, $files, 'no descriptor leaks');
grows_less($rss_after - $rss, 4000, 'nor memory of OpenSSL');
is($session->query('SELECT pg_backend_pid()'), $pid, 'in the same process all along');
$session->close;

# ----------------------------------------------------------------------
# An ordered delivery to a stream

$node->safe_psql('postgres', <<'SQL');
SELECT sagaz.create_consumer_group('ordered', ordering => 'saga');
SELECT sagaz.create_delivery('stream', 'r', 'ordered', options => '{"as": "stream"}', batch_size => 20);
SQL
for my $round (1 .. 5)
{
	$node->safe_psql('postgres', "SELECT count(sagaz.insert_event('saga ' || n % 3, 't', jsonb_build_object('n', n))) FROM generate_series(1, 60) n");
	$good->cli('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
}
query_is($node, 'postgres', q{SELECT NOT EXISTS (SELECT FROM sagaz.get_outbox_statistics('ordered') WHERE pending + claimed + failed > 0)}, 't', 'all are delivered');
is($good->cli('XLEN', 'sage.outbox'), '300', 'each once');

unlike(join('', grep { !/STATEMENT:/ } slurp_file($node->logfile) =~ /^.*$/mg), qr/\Q$secret\E/, 'no secret in the log');
$node->stop('fast');
done_testing();
