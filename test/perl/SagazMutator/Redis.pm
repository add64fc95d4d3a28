# Changes what a Redis server answers: types, lengths, numbers, nil, nested arrays,
# errors; cuts it off, and floods.  A message is one part, a reply: [type, value],
# where the value of an array is a list of replies, and undef is nil; of the type
# "raw" the value is sent as it is.
package SagazMutator::Redis;

use strict;
use warnings;

use parent 'SagazMutator';
use SagazMutator qw(flip pick);

sub socket_name
{
	return 's';
}

sub url
{
	my ($self) = @_;
	return "unix://$self->{path}";
}

sub take
{
	my ($self, $bytes) = @_;

	pos($$bytes) = 0;
	my $reply = reply_of($bytes) // return;
	substr($$bytes, 0, pos $$bytes) = '';
	return $reply;
}

# The reply at the position, which moves behind it; undef where it has no end yet.
sub reply_of
{
	my ($bytes) = @_;

	$$bytes =~ /\G([-+:\$*])(.*?)\r\n/gcs or return;
	my ($type, $word) = ($1, $2);
	return [ $type, $word ] if $type =~ /[-+:]/;
	return [ $type, undef ] if $word < 0;
	return [ $type, string_of($bytes, $word) // return ] if $type eq '$';
	my @elements;
	for (1 .. $word)
	{
		push @elements, reply_of($bytes) // return;
	}
	return [ $type, \@elements ];
}

sub string_of
{
	my ($bytes, $length) = @_;
	my $start = pos $$bytes;

	return if length $$bytes < $start + $length + 2;
	pos($$bytes) = $start + $length + 2;
	return substr $$bytes, $start, $length;
}

sub bytes
{
	my ($self, @replies) = @_;
	return map { bytes_of($_) } @replies;
}

sub bytes_of
{
	my ($type, $value) = @{ $_[0] };

	return $value if $type eq 'raw';
	return "$type-1\r\n" unless defined $value;
	return '$' . length($value) . "\r\n$value\r\n" if $type eq '$';
	return '*' . @$value . "\r\n" . join '', map { bytes_of($_) } @$value if $type eq '*';
	return "$type$value\r\n";
}

# Numbers, and strings that might be some.
my @numbers = qw(-1 0 1 2 1000000 2147483648 9223372036854775807 -9223372036854775808 9223372036854775808 99999999999999999999 1e400 NaN x);
my @strings = ('', 'x' x 70000, '{}', '[]', 'null', '"a"', '[' x 5000, '{"a":' x 3000, "\xff\xfe", "a\0b", 'infinity',
	'2024-02-30T00:00:00', '{"saga_id": 5}', '{"saga_id": "order-1", "status": "executing", "steps": 1}', 'saga:', 'saga:x', '1-1', '0-0', '18446744073709551615-18446744073709551615',
	'18446744073709551616-0', @numbers);
my @errors = ('ERR', 'ERR no', 'NOSCRIPT No matching script', 'WRONGTYPE', 'MOVED 1 10.0.0.1:7000', 'LOADING', 'BUSYGROUP x', 'NOGROUP x', 'OOM', '', "\xff\xfe",
	'ERR ' . 'x' x 3000, 'EXECABORT', 'NOAUTH');

# Replies that come of no command, for any place.
sub odd_replies
{
	return (
		(map { [ ':', $_ ] } @numbers),
		(map { [ '$', $_ ] } @strings),
		(map { [ '-', $_ ] } @errors),
		(map { [ '+', $_ ] } 'OK', 'QUEUED', '', 'x' x 3000),
		[ '$', undef ], [ '*', undef ], [ '*', [] ],
		[ '*', [ [ '$', '0' ], [ '*', [] ] ] ],
		[ '*', [ map { [ ':', $_ ] } 1 .. 50 ] ],
		[ '*', [ map { [ '*', [ [ '$', 'a' ], [ '$', undef ] ] ] } 1 .. 3 ] ],
		[ 'raw', "*1\r\n" x 6 . ":1\r\n" ],
		[ 'raw', "*1\r\n" x 1000 ],
		# of another protocol
		(map { [ 'raw', $_ ] } "_\r\n", "#t\r\n", ",3.14\r\n", "(123\r\n", "%1\r\n+a\r\n+b\r\n", "~1\r\n+a\r\n", ">2\r\n+push\r\n+x\r\n"),
		# lengths that are none
		(map { [ 'raw', $_ ] } "\$99999999999999\r\nabc", "\$-7\r\n", "*-5\r\n", "*2147483647\r\n", "*1099511627776\r\n", "\$3\r\nabcde\r\n", ":\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n"));
}

# More than sagaz.max_reply, which the tests have as 4 MB.
sub floods
{
	return ([ '$', 'x' x (5 << 20) ], [ '+', 'x' x (5 << 20) ], [ '*', [ ([ ':', 1 ]) x 200_000 ] ],
		[ '*', [ ([ '$', 'x' x 1000 ]) x 5_000 ] ], [ 'raw', "*16000000\r\n" ], [ 'raw', "*500000\r\n" x 7 ]);
}

# All replies that a reply consists of, itself among them.
sub nodes
{
	my ($reply) = @_;
	return ($reply, $reply->[0] eq '*' ? map { nodes($_) } @{ $reply->[1] // [] } : ());
}

sub spoil
{
	my ($self, $reply) = @_;
	my $way = rand 100;

	return if $way < 2;
	return (bytes_of($reply)) x 2 if $way < 5;
	return bytes_of(pick(floods())) if $way < 6;
	return (substr(bytes_of($reply), 0, rand length bytes_of($reply)), undef) if $way < 10;
	return flip(bytes_of($reply)) if $way < 20;
	spoil_node(pick(nodes($reply)));
	return bytes_of($reply);
}

# Change a reply, alone or within another, in its place.
sub spoil_node
{
	my ($node) = @_;
	my ($type, $value) = @$node;

	if (!defined $value || rand() < 0.3) { @$node = @{ pick(odd_replies()) } }
	elsif ($type eq ':') { $node->[1] = pick(@numbers) }
	elsif ($type eq '*') { spoil_list($node->[1]) }
	elsif ($type eq '$' && rand() < 0.2) { @$node = ('raw', '$' . (length($value) + pick(-3 .. 3)) . "\r\n$value\r\n") }
	else { $node->[1] = rand() < 0.5 ? pick(@strings) =~ s/[\r\n]//gr : flip($value) =~ s/[\r\n]//gr }
}

sub spoil_list
{
	my ($list) = @_;
	my $way = int rand 6;

	push @$list, pick(odd_replies()) if $way == 0 || !@$list;
	pop @$list if $way == 1;
	shift @$list if $way == 2;
	@$list = reverse @$list if $way == 3;
	push @$list, @$list if $way == 4;
	@$list = [ '*', [@$list] ] if $way == 5;
}

1;
