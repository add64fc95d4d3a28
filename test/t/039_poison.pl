# One event never stops another: for each kind of target and of poison, a
# thousand good events around three bad ones.  The good ones are delivered, once
# and in the order of their sagas, the bad ones become dead letters that say
# why.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazRedis;
use SagazTest;
use Test::More;
use Time::HiRes qw(time);

# All of it has to be done within so many seconds.
my $limit = 60;

my $node = new_node('poison', conf => <<'CONF');
fsync = off
autovacuum = off
sagaz.poll_interval = 1h
sagaz.housekeeping_interval = 1h
sagaz.retry_backoff = 50ms
sagaz.max_retries = 1
sagaz.command_timeout = 2s
sagaz.connect_timeout = 2s
CONF
my $redis = SagazRedis->new('proto-max-bulk-len' => '1048576')->start;
my $dir = $node->basedir;

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sql(<<'SQL');
CREATE TABLE arrived (consumer text, n integer, saga_id text, at bigserial);
CREATE FUNCTION handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	event sagaz.outbox_event;
BEGIN
	FOREACH event IN ARRAY events LOOP
		CASE event.event_type
			WHEN 'refused' THEN RAISE 'never';
			WHEN 'moment' THEN RAISE SQLSTATE '40001' USING MESSAGE = 'not now';
			WHEN 'hang' THEN PERFORM pg_sleep(1000);
			WHEN 'memory' THEN PERFORM length(repeat('x', 1073741823) || 'xx');
			ELSE INSERT INTO public.arrived (consumer, n, saga_id)
				VALUES (event.consumer_group, (event.payload->>'n')::integer, event.saga_id);
		END CASE;
	END LOOP;
END $$;
SQL

# Bad events as an expression of their number, and why they are dead letters.
my %poison = (
	refused => [ "'refused'", "'{}'", "'{}'", qr/^never$/ ],
	moment => [ "'moment'", "'{}'", "'{}'", qr/^not now$/ ],
	hang => [ "'hang'", "'{}'", "'{}'", qr/^the handler did not end within 300 ms$/ ],
	memory => [ "'memory'", "'{}'", "'{}'", qr/invalid memory alloc|out of memory|too large|exceeds/ ],
	'long type' => [ "repeat('x', 300)", "'{}'", "'{}'", qr/is refused: .*event_type/ ],
	constraint => [ "'forbidden'", "'{}'", "'{}'", qr/./ ],
	'big payload' => [ "'big'", "to_jsonb(repeat('x', 1200000))", "'{}'", qr/storage "poison_\d+" / ]);

my $number = 0;

# The numbers that arrived and their sagas, in order.
my %arrived = (
	function => sub {
		my ($name) = @_;
		return map { [ split /\|/ ] } split /\n/,
		  sql("SELECT n, saga_id FROM arrived WHERE consumer = '$name' ORDER BY at");
	},
	storage => sub {
		my ($name) = @_;
		return map { [ split /\|/ ] } split /\n/, sql(<<"SQL");
SELECT r->'payload'->>'n', r->>'saga_id' FROM sagaz.export_all('outbox', '$name') r
	ORDER BY (r->'payload'->>'n')::integer
SQL
	},
	stream => sub {
		my ($name) = @_;
		return map { /"saga_id": "(.*?)".*"payload": \{"n": (\d+)/ ? [ $2, $1 ] : () }
		  split /\n/, $redis->cli('XRANGE', $name, '-', '+');
	});

# Three bad events, each in a saga with good ones before and behind it.
sub emit
{
	my ($poison) = @_;
	my ($type, $payload, $headers) = @{ $poison{$poison} };

	sql(<<"SQL");
SELECT count(sagaz.insert_event('saga' || n % 50,
		CASE WHEN n IN (101, 502, 503) THEN $type ELSE 'good' END,
		CASE WHEN n IN (101, 502, 503) THEN ($payload)::jsonb ELSE jsonb_build_object('n', n) END,
		headers => CASE WHEN n IN (101, 502, 503) THEN ($headers)::jsonb ELSE '{}' END))
	FROM generate_series(1, 1003) n
SQL
}

sub in_disorder
{
	my %last;
	my $disorder = 0;

	for (@_)
	{
		$disorder++ if ($last{ $_->[1] } // 0) > $_->[0];
		$last{ $_->[1] } = $_->[0];
	}
	return $disorder;
}

# Wait until all is done with, while further events come, without a number:
# where nothing else goes it may be the target that is to blame.
sub flows
{
	my ($name, $what) = @_;
	my $end = time + $limit;
	my $stands;

	do
	{
		$stands = sql(<<"SQL");
SELECT count(sagaz.insert_event('further', 'good', '{"further": true}'));
SELECT pg_sleep(0.1);
SELECT pending + claimed + failed, dead_letter FROM sagaz.get_outbox_statistics('$name')
SQL
	} until $stands =~ /\n0\|3$/ || time > $end;
	is($stands =~ s/.*\n//sr, '0|3', $what);
}

# kind: whom to ask for what arrived; target: SQL for create_delivery.
sub poisoned
{
	my ($kind, $poison, $ordering, $target, $options) = @_;
	my $name = 'poison_' . ++$number;
	my $what = "$poison to a $kind, ordering $ordering";

	$target = $target->($name);
	sql(<<"SQL");
SELECT sagaz.create_consumer_group('$name', '$ordering', 'now');
SELECT sagaz.pause_consumer_group('$name');
SELECT sagaz.create_delivery('$name', '$target', '$name', timeout => '300 ms', options => '$options');
SQL
	emit($poison);
	timed($limit, $what, sub {
		sql("SELECT sagaz.resume_consumer_group('$name')");
		flows($name, "$what: all is done with, three are dead letters");
	});
	my @there = grep { $_->[0] ne '' } $arrived{$kind}->($name);
	# a stream without an order gets each at least once
	my %there = map { $_->[0] => 1 } @there;
	my @once = $kind eq 'stream' && $ordering eq 'none' ? keys %there : map { $_->[0] } @there;
	ok(join(' ', sort { $a <=> $b } @once) eq
		join(' ', grep { $_ != 101 && $_ != 502 && $_ != 503 } 1 .. 1003), "$what: each good one is there once")
	  or diag(scalar(@once) . ' are there');
	is(in_disorder(@there), 0, "$what: each saga in its order") if $ordering eq 'saga';
	like($_, $poison{$poison}[3], "$what: the reason")
	  for split /\n/, sql("SELECT last_error FROM sagaz.get_dead_letter_events(consumer_group => '$name')");
	sql("SELECT sagaz.drop_delivery('$name'); SELECT sagaz.drop_consumer_group('$name')");
}

for my $ordering ('none', 'saga')
{
	poisoned('function', $_, $ordering, sub { 'public.handle(sagaz.outbox_event[])' }, '{}')
	  for 'refused', 'moment', 'hang', 'memory';
}

# A file whose owner has rules of his own: one of that type is enough.
sub file_with_rules
{
	my ($name) = @_;
	my ($out, $err);

	sql("SELECT sagaz.create_outbox_storage('$name', 'sqlite://$dir/$name.db');
		SELECT sagaz.insert_event('s', 'good', '{\"n\": 0}', storage => '$name')");
	IPC::Run::run(['sqlite3', "$dir/$name.db", q{UPDATE outbox_events SET event_type = 'forbidden', payload = '{}';}
		  . q{CREATE UNIQUE INDEX rule ON outbox_events (event_type) WHERE event_type = 'forbidden'}], '<', \undef, '>', \$out, '2>', \$err)
	  or die $err;
	return $name;
}
poisoned('storage', 'constraint', $_, \&file_with_rules, '{"as": "outbox"}') for 'none', 'saga';

# The library's tables, whose columns have a length.
sub library
{
	my ($name) = @_;
	my $host = $node->host =~ s{/}{%2F}gr;
	my $url = "postgresql://\@$host:" . $node->port . "/$name?layout=library";

	sql("CREATE DATABASE $name");
	sql("SELECT sagaz.create_outbox_storage('$name', '$url')");
	return $name;
}
poisoned('storage', 'long type', $_, \&library, '{"as": "outbox"}') for 'none', 'saga';

# A broker that cuts the connection.
sub broker
{
	my ($name) = @_;

	sql("SELECT sagaz.create_outbox_storage('$name', '" . $redis->url
		  . qq{', '{"stream": "$name", "max_stream_length": "0"}')});
	return $name;
}
poisoned('stream', 'big payload', $_, \&broker, '{"as": "stream"}') for 'none', 'saga';

$node->stop;
done_testing();
