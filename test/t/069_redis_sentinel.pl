# Redis behind sentinels: the primary is found, whichever sentinel is gone, and
# found anew after each failover.  An ordered delivery to its stream loses
# nothing and adds nothing twice, though a replica is promoted that has not all.
#
# SAGAZ_ROUNDS=20 kills the primary so often.
use strict;
use warnings;

use IO::Socket::INET;
use JSON::PP;
use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazRedis;
use SagazSaves;
use SagazSentinel;
use SagazSession;
use SagazTest;
use SagazTls;
use Test::More;
use Time::HiRes qw(time usleep);

my $rounds = $ENV{SAGAZ_ROUNDS} // 2;
my $secret = 's3cret-Pa55';
my $node = new_node('redis_sentinel', conf => <<'CONF');
fsync = off
sagaz.command_timeout = 2s
sagaz.connect_timeout = 2s
sagaz.poll_interval = 1s
sagaz.retry_backoff = 100ms
CONF

# Three servers, of which the first is the primary of the others.
my %server;
my $first;
for (1 .. 3)
{
	my $port = PostgreSQL::Test::Cluster::get_free_port();

	$first //= $port;
	$server{$port} = SagazRedis->new(port => $port, bind => '127.0.0.1', appendonly => 'yes', appendfsync => 'always',
		'repl-ping-replica-period' => 1, 'repl-diskless-sync-delay' => 0,
		$port == $first ? () : (replicaof => "127.0.0.1 $first"))->start;
}
my @sentinels = map { SagazSentinel->new('orders', $first, 2) } 1 .. 3;
for my $sentinel (@sentinels)
{
	$sentinel->wait_for('num-slaves', 2);
	$sentinel->wait_for('num-other-sentinels', 2);
}
my $places = join ',', map { "127.0.0.1:$_->{port}" } @sentinels;

saves_on($node, $secret);

# ----------------------------------------------------------------------
# Finding the primary

works("redis+sentinel://$places/orders", 'by three sentinels');
works("redis+sentinel://$places/orders/3", 'and a database');
is($server{$first}->cli('-n', '3', 'EXISTS', 'saga:s'), '1', 'it is in that of the primary');
works("redis+sentinel://127.0.0.1:1,localhost:$sentinels[0]{port}/orders", 'the first of them is not there');
fails("redis+sentinel://127.0.0.1:1,127.0.0.1:2/orders", 'SZ001: could not connect .*The sentinel 127.0.0.1, port 1: Connection refused', 'none of them is');
fails("redis+sentinel://$places/nothing", 'SZ001: .*knows no primary of that service', 'another service');
fails("redis+sentinel://127.0.0.1:$first/orders", 'SZ000: ', 'no sentinel');
fails("redis://127.0.0.1:$sentinels[0]{port}", 'SZ000: .*Sentinel.*HINT:  .*redis\+sentinel', 'a sentinel alone');
works("redis+sentinel://127.0.0.1:$first,$places/orders", 'one of them is none');
fails("redis+sentinel://$_", 'SZ009: ', $_) for 'h', 'h/', '/s', 'h/s/x', 'h:x/s', 'h,,g/s', 'h/s?x=y', 'h/s?sslmode=x', '[::1/s', "app:$secret\@h,/s";
fails("BEGIN; SELECT sagaz.create_storage('o', 'redis+sentinel://h/s', options => '{$_}'); " . save('o'), 'SZ009: ', $_) for '"host": "h"', '"port": 1', '"path": "/x"';
fails(qq{SELECT sagaz.create_storage('l', 'redis://', options => '{"sentinels": "h:0"}')}, 'SZ009: sentinels is not valid', 'the list as an option');
fails(qq{BEGIN; SELECT sagaz.create_storage('l', 'redis://', options => '{"service": "x"}'); } . save('l'), 'SZ009: .*Sentinels tell', 'a service without sentinels');

# Sentinels that answer every question like this
sub liar
{
	my ($answer) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 10) or die $!;
	my $pid = fork // die $!;

	if ($pid == 0)
	{
		while (my $client = $listener->accept)
		{
			sysread $client, my $question, 4096;
			syswrite $client, $answer;
			sysread $client, $question, 4096;
		}
	}
	return ($listener->sockport, $pid);
}

sub address
{
	my ($host, $port) = @_;
	return join "\r\n", '*2', map({ ('$' . length, $_) } $host, $port), '';
}

{
	my ($replica) = grep { $_ != $first } keys %server;
	my ($port, @pids) = liar(address('127.0.0.1', $replica));

	fails("redis+sentinel://127.0.0.1:$port/orders", "SZ001: .*The primary 127.0.0.1, port $replica: It is a replica", 'one that leads to a replica');
	works("redis+sentinel://127.0.0.1:$port,$places/orders", 'the next knows better');
	for my $answer (address("a\xff", 1), address("a\0b", 1), address('', 1), address('h', 0), address('h', '1x'), "*2\r\n:1\r\n:2\r\n", "*1\r\n+x\r\n", "+OK\r\n", "-ERR x\r\n", ":1\r\n")
	{
		my ($liar, $pid) = liar($answer);

		push @pids, $pid;
		fails("redis+sentinel://127.0.0.1:$liar/orders", "SZ000: .*DETAIL:  The sentinel 127.0.0.1, port $liar: ", 'one that answers ' . ($answer =~ s/[^ -~]+/ /gr));
	}
	kill 'KILL', @pids;
	waitpid $_, 0 for @pids;
}

# One that wants a password, and a primary that wants another
{
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $redis = SagazRedis->new(port => $port, bind => '127.0.0.1')->start;
	my $sentinel = SagazSentinel->new('closed', $port, 1, "requirepass $secret-s");

	$redis->cli('ACL', 'SETUSER', 'app', 'on', ">$secret", '~*', '&*', '+@all');
	$node->safe_psql('postgres', "SELECT sagaz.create_storage('closed', 'redis+sentinel://app:$secret\@127.0.0.1:$sentinel->{port}/closed', options => '{\"sentinel_password\": \"$secret-s\"}')");
	works('closed', 'both passwords');
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_foreign_server WHERE srvoptions::text LIKE '%$secret%'"), '0', 'which are not among the options of the server');
	fails("redis+sentinel://app:$secret\@127.0.0.1:$sentinel->{port}/closed", 'SZ001: could not log in .*The sentinel .*HINT:  .*sentinel_password', 'without that of the sentinel');
	$node->safe_psql('postgres', "ALTER USER MAPPING FOR CURRENT_USER SERVER closed OPTIONS (SET sentinel_password '$secret-x')");
	fails('closed', 'SZ001: could not log in .*The sentinel', 'with a wrong one');
}

SKIP:
{
	skip 'openssl is not there', 3 unless SagazTls::is_there();
	my $tls = SagazTls->new('ca')->issue('server', 'ca', 'IP:127.0.0.1');
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $sentinel_port = PostgreSQL::Test::Cluster::get_free_port();
	my %settings = ($tls->redis_settings('server', 'ca'), 'tls-replication' => 'yes');
	my $redis = SagazRedis->new(%settings, 'tls-port' => $port)->start;
	delete $settings{bind};
	my $sentinel = SagazSentinel->new('safe', $port, 1, 'port 0', "tls-port $sentinel_port", map { "$_ $settings{$_}" } keys %settings);

	works("rediss+sentinel://127.0.0.1:$sentinel_port/safe?sslrootcert=" . $tls->crt('ca'), 'all of it over TLS');
	is($redis->cli('EXISTS', 'saga:s'), '1', 'it is there');
	fails("rediss+sentinel://127.0.0.1:$sentinel_port/safe", 'SZ001: .*The sentinel .*certificate is refused', 'a sentinel is verified, too');
}

# ----------------------------------------------------------------------
# Failovers

my $json = JSON::PP->new->utf8;

sub primary_port
{
	my ($but) = @_;
	my $end = time + 120;

	while (1)
	{
		usleep(20_000);
		my @seen = map { $_->{pid} ? $_->primary : () } @sentinels;

		return $seen[0] if $seen[0] ne '' && $seen[0] ne $but && !grep { $_ ne $seen[0] } @seen;
		die "no new primary: @seen" if time > $end;
	}
}

sub emit
{
	my ($count) = @_;
	$node->safe_psql('postgres', "SELECT count(sagaz.insert_event('saga ' || n % 5, 't', jsonb_build_object('n', n))) FROM generate_series(1, $count) n");
}

# Wait until all are sent and the primary, whichever it is by then, has as many
# entries: what one loses that was promoted and put aside again comes later.
sub delivered
{
	my ($name, $but) = @_;
	my $end = time + 120;
	my $count = $node->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox');
	my $port;

	query_is($node, 'postgres', q{SELECT NOT EXISTS (SELECT FROM sagaz.get_outbox_statistics('ordered') WHERE pending + claimed + failed > 0)}, 't', $name);
	do { $port = primary_port($but) } until ($server{$port}->try_cli('XLEN', 'sage.outbox') // '') eq $count || time > $end;
	return $port;
}

# Every event is in the stream once, those of a saga in order.
sub complete
{
	my ($port, $name) = @_;
	my $ids = $node->safe_psql('postgres', "SELECT string_agg(event_id::text, ' ' ORDER BY seq) FROM sagaz.outbox");
	my %place;
	my (@twice, @sagas);

	for my $entry (@{ $json->decode($server{$port}->cli('--json', 'XRANGE', 'sage.outbox', '-', '+')) })
	{
		my %field = @{ $entry->[1] };
		my $payload = $json->decode($field{payload});

		push @twice, $payload->{event_id} if $place{ $payload->{event_id} }++;
		push @sagas, [ $payload->{saga_id}, $payload->{event_id} ];
	}
	is_deeply(\@twice, [], "$name: none twice");
	is(scalar(grep { !$place{$_} } split / /, $ids), 0, "$name: none lost")
	  or diag(map { "$_: " . ($server{$_}->try_cli('ROLE') // 'gone') =~ s/\n/ /gr . ' ' . ($server{$_}->try_cli('XLEN', 'sage.outbox') // '') . "\n" } sort keys %server), diag("wanted $port");
	my $order = sub { my ($list) = @_; my %of; push @{ $of{ $_->[0] } }, $_->[1] for @$list; return \%of };
	my @wanted = map { [ split /\|/ ] } split /\n/, $node->safe_psql('postgres', 'SELECT saga_id, event_id FROM sagaz.outbox ORDER BY seq');
	is_deeply($order->(\@sagas), $order->(\@wanted), "$name: in order");
}

$node->safe_psql('postgres', <<"SQL");
SELECT sagaz.create_storage('broker', 'redis+sentinel://$places/orders', options => '{"max_stream_length": 0}');
SELECT sagaz.create_consumer_group('ordered', ordering => 'saga');
SELECT sagaz.create_delivery('stream', 'broker', 'ordered', options => '{"as": "stream"}', batch_size => 20);
SQL
emit(50);
delivered('before', '');
complete($first, 'before');
my $session = SagazSession->new($node, 'postgres');
like($session->query(save('broker')), qr/^\d+$/, 'a session has a connection');

my $primary = $first;
for my $round (1 .. $rounds)
{
	my @replicas = grep { $_ ne $primary } keys %server;
	my $cut_off = $round % 2;

	# what the primary has acknowledged from now on is on no replica
	if ($cut_off)
	{
		$server{$_}->signal('STOP') for @replicas;
		$server{$primary}->cli('CLIENT', 'KILL', 'TYPE', 'replica');
		emit(40);
		delivered("round $round: on the primary alone", '');
	}
	$server{$primary}->stop;
	if ($cut_off) { $server{$_}->signal('CONT') for @replicas }
	emit(40);
	my $old = $primary;
	primary_port($old);
	emit(10);
	$primary = delivered("round $round: a new primary", $old);
	complete($primary, "round $round");
	my $end = time + 60;
	my $saved = '';
	while ($saved !~ /^\d+$/ && time < $end)
	{
		$saved = $session->outcome(save('broker') . ';');
		usleep(50_000);
	}
	like($saved, qr/^\d+$/, "round $round: a session finds it, too");

	# the old one comes back and is made a replica
	delete $server{$old}{settings}{replicaof};
	$server{$old}->start;
	usleep(20_000) until ($server{$old}->try_cli('ROLE') // '') =~ /^slave\n.*\nconnected\n/s || time > $end;
	like($server{$old}->cli('ROLE'), qr/^slave/, "round $round: the old one is a replica");
	emit(10);
	$primary = delivered("round $round: it goes on", '');
	complete($primary, "round $round, the old one is back");
}
like(slurp_file($node->logfile), qr/has lost entries of its stream/, 'entries were lost, and added again');
$sentinels[0]->stop;
$server{$primary}->cli('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
works('broker', 'without one of the sentinels');
like($session->query(save('broker')), qr/^\d+$/, 'in a session that asked it, too');
$session->close;

unlike(join('', grep { !/STATEMENT:/ } slurp_file($node->logfile) =~ /^.*$/mg), qr/\Q$secret\E/, 'no secret in the log');
$node->stop('fast');
done_testing();
