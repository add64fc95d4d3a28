# Another PostgreSQL whose answers are changed on the way, each of a kind and then
# at random: errors that say so, no crash, and no more memory than allowed.
use strict;
use warnings FATAL => 'all';

use SagazHostile;
use SagazMutator::Postgres;
use Test::More;

my $node = hostile_node('200ms');
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
	my $peer = SagazMutator::Postgres->new($socket, 1, $change);
	my ($status, $out, $err) = $node->psql('postgres', "SET sagaz.command_timeout = '1 min'; SELECT sagaz.create_storage('y', '" . $peer->url('postgres', 'far') . "');\n$statement",
		extra_params => [ '-v', 'VERBOSITY=default' ], on_error_stop => 0);

	$node->psql('postgres', "SELECT sagaz.drop_storage('y')");
	$peer->stop;
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

# A statement whose result is left out, while the exchange ends as it should.
for my $left ([ 'rows and all', 'TDC' ], [ 'the end of a result', 'C' ], [ 'all but the end', 'TD' ])
{
	my ($name, $types) = @$left;
	my $began = 0;
	my $err = answer($count, sub {
			my ($type, $body) = @_;
			$began ||= $type eq 'D' && $body =~ /^\x00\x01\x00\x00\x00.\d+$/s;
			return $began && index($types, $type) >= 0 ? () : ($type, $body);
		});

	like($err, qr/ERROR:/, "left out: $name");
}
stands($node, 'single answers');

# Rows without end stop at sagaz.max_reply, however long they take to come.
my $flood = of_numbers(sub { ('D', pack 'n N/a*', 1, 'x' x 1_000_000) x 60 });
my $err = answer("SET sagaz.max_reply = '16MB'; $count", $flood);
like($err, qr/lost the connection.*\n.*larger than sagaz\.max_reply/, 'an answer without end is cut');
stands($node, 'a flood');

# At random, with a sagaz at the other end and with the library's tables.
my $seed = hostile_seed();
my $peer;
hostile_rounds($node, $seed, sub {
		my ($round) = @_;
		my $library = $round % 2;

		$peer->stop if $peer;
		$peer = SagazMutator::Postgres->new($socket, $seed + $round, (20, 60, 200)[$round % 3]);
		return $peer->url('postgres', $library ? 'library' : 'far') . ($library ? '&layout=library' : '');
	});
is($node->safe_psql('postgres', "SELECT status FROM sagaz.list_sagas(saga_name => 'Order') WHERE saga_id = 'here'"), 'executing', 'what is native is as it was');

$node->stop;
done_testing();
