# Redis servers that want a password, that are gone, hang, are full or are no
# Redis at all: an error that says what to do, in time; nothing leaks, no secret
# is told, and the session goes on.
use strict;
use warnings;

use FakeRedis;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSaves;
use SagazSession;
use SagazTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_node('redis_faults', conf => <<'CONF');
fsync = off
log_min_error_statement = error
log_error_verbosity = verbose
sagaz.command_timeout = 2s
sagaz.connect_timeout = 2s
CONF
my $redis = SagazRedis->new(port => 0)->start;
my $secret = 's3cret-Pa55';
saves_on($node, $secret);

# ----------------------------------------------------------------------
# Logins

$redis->cli('ACL', 'SETUSER', 'app', 'on', ">$secret", '~*', '&*', '+@all');
$redis->cli('ACL', 'SETUSER', 'weak', 'on', ">$secret", '~*', '&*', '+@all', '-hset', '-evalsha');
$redis->cli('ACL', 'SETUSER', 'none', 'on', 'nopass', '~*', '&*', '+@all');
is($node->safe_psql('postgres', save($redis->url(user => 'app', password => $secret))), '1', 'a user with a password');
is($node->safe_psql('postgres', save('unix://none@' . $redis->{socket} . '?db=3')), '1', 'a user without one, and a database');
is($redis->cli('-n', '3', 'EXISTS', 'saga:s'), '1', 'it is in that database');
fails(save($redis->url(user => 'app', password => "$secret-x")), 'SZ001: could not log in.*refuses the user or the password', 'a wrong password');
fails(save($redis->url(user => 'nobody', password => $secret)), 'SZ001: could not log in', 'an unknown user');
fails(save($redis->url(user => 'weak', password => $secret)) =~ s/pending/failed/r, 'SZ000: .*HINT:  The server\'s ACL', 'a user who may not');
fails(save($redis->url(db => 99)), 'SZ000: .*DB index', 'no such database');
$redis->cli('CONFIG', 'SET', 'requirepass', $secret);
fails(save($redis->url), 'SZ001: .*HINT:  The server wants a password', 'a password is wanted');
is($node->safe_psql('postgres', save($redis->url(password => $secret))), '1', 'the password alone');
$redis->{password} = $secret;
$redis->cli('CONFIG', 'SET', 'requirepass', '');
delete $redis->{password};

$node->safe_psql('postgres', "SELECT sagaz.create_storage('r', '" . $redis->url(user => 'app', password => $secret) . "')");
is($node->safe_psql('postgres', "SELECT count(*) FROM sagaz.storages WHERE storages::text LIKE '%$secret%'"), '0', 'no secret in the view');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_foreign_server WHERE srvoptions::text LIKE '%$secret%'"), '0', 'nor in the server');

# A server that tells what it was told
my $parrot = FakeRedis->new(sub {
		my ($client) = @_;
		my $said = FakeRedis::swallow($client) =~ s/[\r\n]+/ /gr;

		print $client "-ERR unknown command, with args $said\r\n" x 4;
		FakeRedis::swallow($client);
	});
fails(save($parrot->url("app:$secret@")), 'SZ001: could not log in', 'a server that repeats the login');

for my $bad ('redis://host:port', 'redis://[::1', 'redis://host/x', 'redis://host/1?x=y', "redis://app:$secret%zz\@host", 'unix://relative', 'unix://')
{
	fails(save($bad), 'SZ009: URL of a Redis storage is not valid', $bad);
}
fails("SELECT sagaz.create_storage('x', 'redis://h', options => '{\"$_->[0]\": \"$_->[1]\"}')", "SZ009: $_->[0] ", "option $_->[0]")
  for [ port => 0 ], [ database => 'x' ], [ max_stream_length => -1 ], [ event_ttl => 'x' ], [ saga_ttl => '1 day' ], [ outbox_prefix => '' ], [ stream => '' ];
fails(q{SELECT sagaz.create_storage('x', 'redis://h', options => '{"colour": "red"}')}, 'HV00D: ', 'an unknown option');

# ----------------------------------------------------------------------
# Gone, hung, full

my $session = SagazSession->new($node, 'postgres');
my $pid = $session->query('SELECT pg_backend_pid()');
is($session->query(save('r')), '1', 'a session has a connection');
$redis->cli('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
is($session->query(save('r')), '1', 'closed by the server while idle, it is opened anew');
$redis->stop;
$redis->{settings}{appendonly} = 'no';
fails(save('r'), 'SZ001: could not connect to storage "r"', 'no server');
$redis->start;
$redis->cli('ACL', 'SETUSER', 'app', 'on', ">$secret", '~*', '&*', '+@all');
is($session->query(save('r')), '1', 'a server that came back empty');
is($session->query("SELECT count(sagaz.insert_event('s', 't', '1', storage => 'r'))"), '1', 'its scripts are loaded again');
is($session->query("SELECT count(*) FROM sagaz.claim_batch('w', storage => 'r')"), '1', 'and its group is made again');
$redis->cli('FLUSHALL');
is($session->query("SELECT count(*) FROM sagaz.claim_batch('w', storage => 'r')"), '0', 'and once more');

$redis->signal('STOP');
cmp_ok(fails("SET sagaz.command_timeout = '300ms'; " . save('r'), 'SZ001: .*sagaz.command_timeout', 'a server that hangs'), '<', 2, 'in time');
cmp_ok(fails("SET statement_timeout = '300ms'; SET sagaz.command_timeout = '1h'; " . save('r'), '57014', 'a statement is cancelled'), '<', 2, 'at once');
{
	my $waiter = IPC::Run::start(
		[ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c', "SET application_name = 'waiter'; SET sagaz.command_timeout = '1h'", '-c', save('r') ],
		'<', \undef, '>', \my $out, '2>', \my $err);

	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'waiter' AND wait_event = 'Extension' AND state = 'active'});
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'waiter'});
	$waiter->finish;
	like($err, qr/terminating connection/, 'a session that waits is ended');
}
$redis->signal('CONT');
is($session->query("SELECT sagaz.save_saga_state('s', 'N', 'failed', storage => 'r') > 0"), 't', 'it goes on');

# A listener that accepts nothing more
{
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die $!;
	my @fill = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $listener->sockport, Blocking => 0) } 1 .. 20;

	cmp_ok(fails("SET sagaz.connect_timeout = '300ms'; SET sagaz.command_timeout = '300ms'; " . save('redis://127.0.0.1:' . $listener->sockport),
		'SZ001: ', 'a listener that does not answer'), '<', 3, 'in time');
}

$redis->cli('CONFIG', 'SET', 'maxmemory', '1');
fails($_, 'SZ007: .*HINT:  The server is full', 'full: ' . substr($_, 0, 30))
  for save('r'), "SELECT sagaz.insert_event('s', 't', '1', storage => 'r')";
$redis->cli('CONFIG', 'SET', 'maxmemory', '0');
is($redis->cli('XLEN', 'sagaz:outbox:events'), '0', 'and nothing is half there');
my $primary = SagazRedis->new->start;
$redis->cli('REPLICAOF', $primary->{socket}, '0');
fails(save('r'), 'SZ001: .*HINT:  The server is a replica', 'a replica');
$redis->cli('REPLICAOF', 'NO', 'ONE');
$redis->cli('DEL', 'saga:x');
$redis->cli('SET', 'saga:x', 'text');
fails("SELECT sagaz.save_saga_state('x', 'N', 'pending', storage => 'r')", 'SZ000: .*HINT:  Another program uses', 'a key of another program');
fails("SELECT sagaz.save_saga_state('index:status:x', 'N', 'pending', storage => 'r')", 'SZ009: saga_id', 'an id that is an index');

for my $case (
	[ 'MOVED 1 10.0.0.1:7000', 'SZ000: .*not a cluster' ], [ 'ASK 1 10.0.0.1:7000', 'SZ000: .*not a cluster' ],
	[ 'LOADING Redis is loading', 'SZ001: .*Try again' ], [ 'MISCONF disk', 'SZ007: .*cannot save' ],
	[ 'NOAUTH Authentication required.', 'SZ001: .*password' ], [ 'CLUSTERDOWN x', 'SZ001: ' ])
{
	my ($reply, $pattern) = @$case;
	my $fake = FakeRedis->new(sub {
			my ($client) = @_;

			FakeRedis::swallow($client);
			print $client FakeRedis::greeting();
			while (FakeRedis::swallow($client) ne '') { print $client "-$reply\r\n" x 20; }
		});
	fails(save($fake->url), $pattern, $reply);
}

# ----------------------------------------------------------------------
# Garbage

my $seed = $ENV{SAGAZ_SEED} // int(time);
srand $seed;
diag("seed $seed");

my @replies = (
	'$999999999999999' . "\r\nabc", '*2147483647' . "\r\n", '*1099511627776' . "\r\n", "*-5\r\n", "\$-7\r\n",
	"*1\r\n" x 10000, "*16000000\r\n" x 50, ":99999999999999999999999\r\n", ":abc\r\n", "+\r\n", "-\r\n", "\0\0\0\0", "\r\n\r\n",
	"HTTP/1.1 400 Bad Request\r\n\r\n", "%1\r\n+a\r\n+b\r\n", "~2\r\n+a\r\n+b\r\n", "#t\r\n", ",3.14\r\n", "_\r\n", "(123\r\n",
	">2\r\n+push\r\n+x\r\n", "*2\r\n\$1\r\n0\r\n*1\r\n:1\r\n", "*2\r\n+0\r\n+0\r\n", "*0\r\n", "*-1\r\n", "\$-1\r\n", "\$3\r\na\0b\r\n",
	"*3\r\n*2\r\n\$4\r\ndata\r\n:1\r\n\$-1\r\n*0\r\n", "+QUEUED\r\n" x 100, ":1\r\n" x 100, "-ERR \xff\xfe\r\n" x 5, "*2\r\n\$1\r\n7\r\n*0\r\n");
my @valid = ("+OK\r\n", ":1\r\n", "\$2\r\n{}\r\n", "*2\r\n\$-1\r\n\$-1\r\n", "\$40\r\n" . 'a' x 40 . "\r\n", "*2\r\n\$1\r\n0\r\n*1\r\n\$6\r\nsaga:x\r\n");

# What one connection is answered: good replies first, then something bad.
sub garbage
{
	my ($n) = @_;
	my $text = FakeRedis::greeting();

	srand $seed + $n;
	$text .= $valid[ rand @valid ] for 1 .. rand 5;
	$text .= $n < @replies ? $replies[$n] : $replies[ rand @replies ];
	if ($n >= @replies)
	{
		substr($text, rand length $text, 1) = chr int rand 256 for 1 .. rand 4;
		$text = substr $text, 0, rand length $text if rand() < 0.3;
	}
	return $text;
}

my $fuzz = FakeRedis->new(sub {
		my ($client, $n) = @_;
		my $text = garbage($n);

		FakeRedis::swallow($client);
		if ($n % 7 == 0)
		{
			(print $client $_), usleep(100) for split //, substr $text, 0, 200;
		}
		else
		{
			print $client $text;
		}
		FakeRedis::swallow($client) for 1 .. 3;
	});
my @calls = (
	save($fuzz->url), "SELECT sagaz.load_saga_state('s', '" . $fuzz->url . "')",
	"SELECT count(*) FROM sagaz.list_sagas(storage => '" . $fuzz->url . "')",
	"SELECT count(*) FROM sagaz.export_all('outbox', '" . $fuzz->url . "')",
	"SELECT count(*) FROM sagaz.claim_batch('w', storage => '" . $fuzz->url . "')",
	"SELECT sagaz.finish_batch(5, 'w', '" . $fuzz->url . "')",
	"SELECT sagaz.insert_event('s', 't', '1', storage => '" . $fuzz->url . "')",
	"SELECT sagaz.mark_sent('{00000000-0000-4000-8000-000000000001}', 'w', storage => '" . $fuzz->url . "')",
	"SELECT status FROM sagaz.health_check('" . $fuzz->url . "')");
$session->query("SET sagaz.command_timeout = '100ms'; SET sagaz.connect_timeout = '1s'; SET statement_timeout = '3s'; SET client_min_messages = error");
my (%states, @wrong);
for my $i (0 .. ($ENV{SAGAZ_ROUNDS} // 1) * 200)
{
	my $call = $calls[ $i % @calls ];
	my $start = time;
	my $outcome = $session->outcome("$call;");

	$outcome =~ /^ERROR (\w+)/ ? $states{$1}++ : $states{fine}++;
	push @wrong, "$i: $outcome" if $outcome =~ /^ERROR/ && $outcome !~ /^ERROR (SZ|53200|57014|23505|22)/;
	push @wrong, "$i: took " . (time - $start) if time - $start > 5;
}
is_deeply(\@wrong, [], 'each call ends in time, with an error of ours') or diag(explain(\%states));
diag(join ' ', map { "$_: $states{$_}" } sort keys %states);
cmp_ok($states{SZ001} // 0, '>', 20, 'the garbage was noticed');
is($session->query('SELECT pg_backend_pid()'), $pid, 'in the same process all along');

# ----------------------------------------------------------------------
# Leaks

$session->query("RESET ALL; SET sagaz.command_timeout = '2s'");
sub sockets
{
	return scalar grep { (readlink($_) // '') =~ /^socket/ } glob "/proc/$pid/fd/*";
}

sub held
{
	return ($session->query('SELECT sum(total_bytes) FROM pg_backend_memory_contexts'), sockets());
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

my $dead = PostgreSQL::Test::Utils::tempdir_short() . '/nobody';
repeat(50, "sagaz.save_saga_state('s' || i, 'N', 'pending', storage => 'r')");
repeat(50, "sagaz.save_saga_state('s', 'N', 'pending', storage => 'unix://$dead')");
my ($bytes, $files) = held();
repeat(1000, "sagaz.save_saga_state('s' || i, 'N', 'pending', storage => 'r')");
repeat(1000, "sagaz.save_saga_state('s', 'N', 'pending', storage => 'unix://$dead')");
repeat(200, "sagaz.save_saga_state('index:name:x', 'N', 'pending', storage => 'r')");
my ($bytes_after, $files_after) = held();
cmp_ok($bytes_after - $bytes, '<', 200_000, 'no memory leaks');
is($files_after, $files, 'no descriptor leaks');
$session->query("SET sagaz.idle_timeout = '10ms'");
usleep(50_000);
$session->query("SELECT sagaz.count_records('saga', 'memory://x')");
cmp_ok(sockets(), '<', $files, 'an idle connection is closed');
$session->close;

# ----------------------------------------------------------------------
# Rights and logs

$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA sagaz TO app; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sagaz TO app');
my $as = 'SET ROLE app; ';
fails($as . save('r'), '42501: permission denied for storage "r"', 'another role');
fails($as . save($redis->url), '42501: permission denied for a URL', 'nor with a URL');
$node->safe_psql('postgres', "GRANT USAGE ON FOREIGN SERVER r TO app; CREATE USER MAPPING FOR app SERVER r OPTIONS (user 'app', password '$secret')");
like($node->safe_psql('postgres', $as . save('r')), qr/^\d+$/, 'with USAGE and a mapping of its own');

# statements that the test itself sent with the secret in them are not sagaz's
my $log = join '', grep { !/STATEMENT:  (SELECT sagaz\.create_storage|.*USER MAPPING)/ } slurp_file($node->logfile) =~ /^.*$/mg;
unlike($log, qr/\Q$secret\E/, 'no secret in the log');

$node->stop('fast');
done_testing();
