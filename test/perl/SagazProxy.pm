# Stands before a server on a Unix socket and counts round trips: how often a
# client asks something after it has read, whatever it sends at once.
package SagazProxy;

use strict;
use warnings;

use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;

my $count = 0;
my @running;

# What is sent with pauses no longer than this, in seconds, is sent at once.
my $pause = 0.003;

# new(server's socket, name of the socket in a directory of its own)
sub new
{
	my ($class, $server, $name) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short() . '/p' . ++$count;

	mkdir $dir or die "$dir: $!";
	my $listener = IO::Socket::UNIX->new(Local => "$dir/$name", Listen => 10) or die "$dir/$name: $!";
	my $self = bless { dir => $dir, path => "$dir/$name", counter => "$dir/count" }, $class;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		@running = ();
		$SIG{PIPE} = $SIG{CHLD} = 'IGNORE';
		$self->serve($listener, $server);
		POSIX::_exit(0);
	}
	push @running, $pid;
	return $self;
}

sub serve
{
	my ($self, $listener, $path) = @_;

	while (1)
	{
		my $client = $listener->accept // next;

		next if fork;
		my $server = IO::Socket::UNIX->new(Peer => $path);
		$self->pass($client, $server) if $server;
		POSIX::_exit(0);
	}
}

# Which of them can be read from, after so many seconds at most.
sub readable
{
	my ($seconds, @sockets) = @_;
	my $bits = '';

	vec($bits, fileno $_, 1) = 1 for @sockets;
	select($bits, undef, undef, $seconds);
	return map { vec($bits, fileno $_, 1) } @sockets;
}

sub pass_on
{
	my ($from, $to) = @_;

	sysread($from, my $bytes, 1 << 20) or POSIX::_exit(0);
	for (my $sent = 0; $sent < length $bytes;)
	{
		$sent += syswrite($to, $bytes, length($bytes) - $sent, $sent) // POSIX::_exit(0);
	}
}

sub pass
{
	my ($self, $client, $server) = @_;

	while (1)
	{
		my ($asks, $answers) = readable(undef, $client, $server);

		if ($asks)
		{
			my $more = 1;

			$self->note;
			# answers to the first of it wait for the last
			while ($more)
			{
				pass_on($client, $server);
				($more) = readable($pause, $client);
			}
		}
		pass_on($server, $client) if $answers;
	}
}

sub note
{
	my ($self) = @_;

	open my $file, '>>', $self->{counter} or die $!;
	syswrite $file, '.';
}

# How many there were while the code ran.
sub round_trips
{
	my ($self, $code) = @_;
	my $before = -s $self->{counter} // 0;

	$code->();
	return (-s $self->{counter} // 0) - $before;
}

END
{
	my $status = $?;

	kill 'KILL', @running if @running;
	$? = $status;
}

1;
