# Stands between sagaz and another server, on Unix sockets, and changes what that
# answers, by a seed.  It runs in processes of its own until the test ends.
#
# What a message is, and how one is spoiled, a kind of server has a package for:
# SagazMutator::Postgres and SagazMutator::Redis.  These have
#	take(\$bytes)	cut the first message off: returns its parts, none where
#			it has not come whole
#	bytes(parts...)	what is sent for messages
#	spoil(parts)	what is sent for one message, spoilt; undef ends the connection
package SagazMutator;

use strict;
use warnings;

use Exporter 'import';
use IO::Socket::UNIX;
use POSIX ();
use PostgreSQL::Test::Utils;

our @EXPORT_OK = qw(flip pick);

my $count = 0;
my @running;

# new(server's socket, seed, how many messages of a thousand are changed); or, in
# place of a number, a sub that is called with each message's parts and returns
# those of the messages that are sent instead
sub new
{
	my ($class, $server, $seed, $change) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short() . '/m' . ++$count;

	mkdir $dir or die "$dir: $!";
	my $self = bless { dir => $dir, path => $dir . '/' . $class->socket_name }, $class;
	my $listener = IO::Socket::UNIX->new(Local => $self->{path}, Listen => 50) or die "$self->{path}: $!";
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
			$self->pass($client, $peer, $change) if $peer;
			POSIX::_exit(0);
		}
	}
	push @running, $pid;
	$self->{pid} = $pid;
	return $self;
}

# No more connections; those that are there go on.
sub stop
{
	my ($self) = @_;

	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	@running = grep { $_ != $self->{pid} } @running;
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
	my ($self, $client, $server, $change) = @_;
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
		while (my @message = $self->take(\$answers))
		{
			defined $_ ? put($client, $_) : POSIX::_exit(0)
			  for ref $change ? $self->bytes($change->(@message))
			  : rand(1000) < $change ? $self->spoil(@message)
			  : $self->bytes(@message);
		}
	}
}

sub pick
{
	return $_[rand @_];
}

# Another byte somewhere.
sub flip
{
	my ($bytes) = @_;

	substr($bytes, rand length $bytes, 1) = chr rand 256 if length($bytes // '');
	return $bytes;
}

END
{
	my $status = $?;

	kill 'KILL', @running if @running;
	$? = $status;
}

1;
