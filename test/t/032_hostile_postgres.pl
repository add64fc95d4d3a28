# Another PostgreSQL whose answers are changed on the way, each of a kind and then
# at random: errors that say so, no crash, and no more memory than allowed.
use strict;
use warnings FATAL => 'all';

use SagazHostile;
use SagazMutator;
use SagazTest;
use Test::More;
use Time::HiRes 'time';

my $node = new_node('hostile');
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $socket = $node->host . '/.s.PGSQL.' . $node->port;

$node->safe_psql('postgres', $_) for 'CREATE DATABASE far', 'CREATE DATABASE library';
$node->safe_psql('far', <<'SQL');
CREATE EXTENSION sagaz;
SELECT sagaz.save_saga_state('order-' || i, 'Order', 'executing', '[{"name": "a"}]', '{}') FROM generate_series(1, 20) AS i;
SELECT sagaz.insert_event('order-1', 'E', '{}') FROM generate_series(1, 20);
SQL
$node->safe_psql('postgres', "SELECT sagaz.save_saga_state('here', 'Order', 'executing')");

# Change the answer to one call; the greeting of a connection has more.
sub answer
{
	my ($statement, $change) = @_;
	my $peer = SagazMutator->new($socket, 1, $change);
	my ($status, $out, $err) = $node->psql('postgres', "SELECT sagaz.create_storage('y', '" . $peer->url('postgres', 'far') . "');\n$statement",
		extra_params => [ '-v', 'VERBOSITY=default' ], on_error_stop => 0);

	$node->psql('postgres', "SELECT sagaz.drop_storage('y')");
	return $err;
}

# A change of the rows that have a number alone, as count_records() and others return.
sub of_numbers
{
	my ($to) = @_;
	return sub {
		my ($type, $body) = @_;
		return ($type, $body) unless $type eq 'D' && $body =~ /^\x00\x01\x00\x00\x00.\d+$/s;
		return $to->($body);
	};
}

my $count = "SELECT sagaz.count_records('saga', 'y')";
for my $case (
	[ 'no row', sub { () }, 'too few rows' ],
	[ 'null', sub { ('D', pack 'n N', 1, 0xffffffff) }, 'A value is null' ],
	[ 'no column', sub { ('D', pack 'n', 0) }, undef ],
	[ 'a word', sub { ('D', pack 'n N/a*', 1, 'many') }, 'A number is none' ],
	[ 'too large a number', sub { ('D', pack 'n N/a*', 1, '9' x 30) }, 'A number is none' ],
	[ 'a length beyond the end', sub { ('D', pack 'n N a*', 1, 1 << 30, 'x') }, undef ],
	[ 'the end at once', sub { ('Z', 'I') }, undef ])
{
	my ($name, $to, $detail) = @$case;
my $err = answer($count, of_numbers($to));

	like($err, defined $detail ? qr/ERROR:  SZ000|answers what was not asked for.*\n?.*$detail/s : qr/ERROR:/, "$name is an error");
	like($err, qr/$detail/, "$name: says why") if defined $detail;
}
stands($node, $started, 'single answers');

# Rows without end stop at sagaz.max_reply.
my $flood = sub {
	my ($type, $body) = @_;
	return ($type, $body) unless $type eq 'D' && $body =~ /^\x00\x01\x00\x00\x00.\d+$/s;
	return ('D', pack 'n N/a*', 1, 'x' x 1_000_000) x 400;
};
my $err = answer("SET sagaz.max_reply = '16MB'; $count", $flood);
like($err, qr/lost the connection.*\n.*larger than sagaz\.max_reply/, 'an answer without end is cut');
stands($node, $started, 'a flood');

# At random, with a sagaz at the other end and with the library's tables.
my $seed = hostile_seed();
my ($rounds, %seen) = (0);
my $until = time + hostile_seconds();
while (time < $until)
{
	my $database = $rounds % 2 ? 'library' : 'far';
	my $peer = SagazMutator->new($socket, $seed + $rounds, (20, 60, 200)[$rounds % 3]);
	my $url = $peer->url('postgres', $database) . ($database eq 'library' ? '&layout=library' : '');

	$node->psql('postgres', "SELECT sagaz.create_storage('x', '$url')");
	my $said = ask_all($node);

	$seen{$1}++ while $said =~ /(ERROR|FATAL|WARNING):/g;
	$node->psql('postgres', "SELECT sagaz.drop_storage('x')");
	last unless $node->poll_query_until('postgres', 'SELECT true');
	$rounds++;
}
cmp_ok($rounds, '>', 0, "$rounds rounds at random");
ok($seen{ERROR}, 'errors came of it');
stands($node, $started, "seed $seed");
is($node->safe_psql('postgres', "SELECT status FROM sagaz.list_sagas(saga_name => 'Order') WHERE saga_id = 'here'"), 'executing', 'what is native is as it was');

$node->stop;
done_testing();
