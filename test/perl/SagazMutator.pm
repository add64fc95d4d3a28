# Stands between sagaz and a PostgreSQL server, on Unix sockets, and changes what
# the server answers: fields, rows, columns, whole messages and single bytes, by
# a seed.  It runs in processes of its own until the test ends.
package SagazMutator;

use strict;
use warnings;

use IO::Socket::UNIX;
use POSIX ();
use PostgreSQL::Test::Utils;

my $count = 0;
my @running;

# new(server's socket, seed, how many messages of a thousand are changed); or, in
# place of a number, a sub that is called with each message's type and body and
# returns what is sent instead: a list of pairs of type and body
sub new
{
	my ($class, $server, $seed, $change) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short() . '/m' . ++$count;

	mkdir $dir or die "$dir: $!";
	my $path = "$dir/.s.PGSQL.5432";
	my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 50) or die "$path: $!";
	my $self = bless { dir => $dir }, $class;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		@running = ();
		$SIG{PIPE} = $SIG{CHLD} = 'IGNORE';
		for (my $n = 1;; $n++)
		{
			my $client = $listener->accept // next;

			next if fork;
			srand($seed * 100003 + $n);
			my $peer = IO::Socket::UNIX->new(Peer => $server);
			pass($client, $peer, $change) if $peer;
			POSIX::_exit(0);
		}
	}
	push @running, $pid;
	return $self;
}

sub url
{
	my ($self, $user, $database) = @_;
	return "postgresql://$user\@/$database?host=$self->{dir}&port=5432";
}

sub put
{
	my ($to, $bytes) = @_;

	for (my $sent = 0; $sent < length $bytes;)
	{
		$sent += syswrite($to, $bytes, length($bytes) - $sent, $sent) // POSIX::_exit(0);
	}
}

sub pass
{
	my ($client, $server, $change) = @_;
	my $answers = '';
	my $bits = '';

	vec($bits, fileno $_, 1) = 1 for $client, $server;
	while (select(my $ready = $bits, undef, undef, undef))
	{
		if (vec($ready, fileno $client, 1))
		{
			sysread($client, my $bytes, 1 << 16) or POSIX::_exit(0);
			put($server, $bytes);
		}
		next unless vec($ready, fileno $server, 1);
		sysread($server, $answers, 1 << 16, length $answers) or POSIX::_exit(0);
		while (length $answers >= 5)
		{
			my ($type, $length) = unpack 'a N', $answers;
			last if length $answers < $length + 1;
			my $body = substr $answers, 5, $length - 4;
			substr($answers, 0, $length + 1) = '';
			my @messages = ref $change ? $change->($type, $body) : mutate($type, $body, $change);
			while (my ($t, $b) = splice @messages, 0, 2)
			{
				put($client, defined $t ? pack('a N', $t, length($b) + 4) . $b : $b);
			}
		}
	}
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

sub pick
{
	return $_[rand @_];
}

my @odd = (undef, '', '-1', '0', '9223372036854775807', '9223372036854775808', '1e400', 'NaN', 't', 'f', 'x' x 70000,
	'{}', '[]', 'null', '"a"', '[' x 5000, '{"a":' x 3000, "\xff\xfe", "\\x", 'infinity', '2024-02-30', '{"saga_id": 5}', '{1,2}');

# One way to spoil a message, or the message itself.
sub mutate
{
	my ($type, $body, $per_mille) = @_;

	# a login that does not come about tells nothing
	return ($type, $body) if $type eq 'R' || rand(1000) >= $per_mille;
	if ($type eq 'D' && rand() < 0.8)
	{
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
			my $value = \$values[rand @values];
			substr($$value, rand length $$value, 1) = chr rand 256 if length($$value // '');
		}
		return ($type, row_of(@values));
	}
	my $way = int rand 6;
	return () if $way == 0;
	return ($type, $body, $type, $body) if $way == 1;
	return (pick(split //, 'CDEINSTZ123stnGHWdcA'), $body) if $way == 2;
	return ($type, substr $body, 0, rand length $body) if $way == 3;
	return (undef, join '', map { chr rand 256 } 1 .. 1 + rand 40) if $way == 4;
	substr($body, rand length $body, 1) = chr rand 256 if length $body;
	return ($type, $body);
}

END
{
	my $status = $?;

	kill 'KILL', @running if @running;
	$? = $status;
}

1;
