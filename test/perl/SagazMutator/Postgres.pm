# Changes what a PostgreSQL server answers: fields, rows, columns, whole messages
# and single bytes.  A message has two parts, its type and its body; without a
# type the body is sent as it is.
package SagazMutator::Postgres;

use strict;
use warnings;

use parent 'SagazMutator';
use SagazMutator qw(flip pick);

sub socket_name
{
	return '.s.PGSQL.5432';
}

sub url
{
	my ($self, $user, $database) = @_;
	return "postgresql://$user\@/$database?host=$self->{dir}&port=5432";
}

sub take
{
	my ($self, $bytes) = @_;

	return if length $$bytes < 5;
	my ($type, $length) = unpack 'a N', $$bytes;
	return if length $$bytes < $length + 1;
	my $message = substr $$bytes, 0, $length + 1, '';
	return ($type, substr $message, 5);
}

sub bytes
{
	my ($self, @parts) = @_;
	my @bytes;

	while (my ($type, $body) = splice @parts, 0, 2)
	{
		push @bytes, defined $type ? pack('a N', $type, length($body) + 4) . $body : $body;
	}
	return @bytes;
}

# The values of a row, undef for null; and a row of such.
sub row_values
{
	my ($body) = @_;
	my ($n, $rest) = unpack 'n a*', $body;
	my @values;

	for (1 .. $n)
	{
		(my $length, $rest) = unpack 'N a*', $rest;
		push @values, $length == 0xffffffff ? undef : substr $rest, 0, $length, '';
	}
	return @values;
}

sub row_of
{
	return pack('n', scalar @_) . join '', map { defined $_ ? pack('N/a*', $_) : pack('N', 0xffffffff) } @_;
}

my @odd = (undef, '', '-1', '0', '9223372036854775807', '9223372036854775808', '1e400', 'NaN', 't', 'f', 'x' x 70000,
	'{}', '[]', 'null', '"a"', '[' x 5000, '{"a":' x 3000, "\xff\xfe", "\\x", 'infinity', '2024-02-30', '{"saga_id": 5}', '{1,2}');

sub spoil
{
	my ($self, @message) = @_;

	# a login that does not come about tells nothing
	return $self->bytes($message[0] eq 'R' ? @message
		: $message[0] eq 'D' && rand() < 0.8 ? spoil_row(@message)
		: spoil_message(@message));
}

sub spoil_row
{
	my ($type, $body) = @_;
	my @values = row_values($body);
	my $way = int rand 7;

	return () if $way == 0;
	return ($type, $body) x 3 if $way == 1;
	$values[rand @values] = pick(@odd) if $way == 2 && @values;
	pop @values if $way == 3;
	push @values, pick(@odd) if $way == 4;
	@values = reverse @values if $way == 5;
	if ($way == 6 && @values)
	{
		my $i = rand @values;
		$values[$i] = flip($values[$i]);
	}
	return ($type, row_of(@values));
}

sub spoil_message
{
	my ($type, $body) = @_;
	my $way = int rand 6;

	return () if $way == 0;
	return ($type, $body, $type, $body) if $way == 1;
	return (pick(split //, 'CDEINSTZ123stnGHWdcA'), $body) if $way == 2;
	return ($type, substr $body, 0, rand length $body) if $way == 3;
	return (undef, join '', map { chr rand 256 } 1 .. 1 + rand 40) if $way == 4;
	return ($type, flip($body));
}

1;
