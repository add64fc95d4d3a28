# A server that answers like a broken Redis: what it is told to, to each
# connection.  It runs in a process of its own until the test ends.
package FakeRedis;

use strict;
use warnings;

use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

my $count = 0;
my @running;

# new(sub { my ($socket, $n) = @_; ... }), called with each connection, the
# n-th; it is closed when that returns.
sub new
{
	my ($class, $answer) = @_;
	my $path = PostgreSQL::Test::Utils::tempdir_short() . '/f' . ++$count;
	my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 100)
	  or die "$path: $!";
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		@running = ();
		$SIG{PIPE} = 'IGNORE';
		$SIG{CHLD} = 'IGNORE';
		serve($listener, $answer);
		POSIX::_exit(0);
	}
	push @running, $pid;
	return bless { path => $path, pid => $pid }, $class;
}

# A process for each connection, so that none waits for another.
sub serve
{
	my ($listener, $answer) = @_;

	for (my $n = 0;; $n++)
	{
		my $client = $listener->accept // next;
		my $child = fork;

		next if $child;
		$client->autoflush(1);
		$answer->($client, $n);
		POSIX::_exit(0);
	}
}

# What a server answers to who connects, without a login; the fields of what
# it says it is may be other than those of a plain server.
sub greeting
{
	my (%other) = @_;
	my %is = (server => 'redis', version => '7.0.15', mode => 'standalone', role => 'master', %other);
	my @words = map { ($_, $is{$_}) } sort keys %is;

	return "+OK\r\n*" . @words . "\r\n" . join('', map { '$' . length($_) . "\r\n$_\r\n" } @words) . "+OK\r\n";
}

# Read until there is a pause, so that an answer does not come too early.
sub swallow
{
	my ($client) = @_;
	my $ready = '';

	vec($ready, fileno($client), 1) = 1;
	my $text = '';
	while (select(my $r = $ready, undef, undef, $text eq '' ? 5 : 0.01))
	{
		sysread($client, $text, 65536, length $text) or last;
	}
	return $text;
}

sub url
{
	my ($self, $login) = @_;
	return 'unix://' . ($login // '') . $self->{path};
}

END
{
	my $status = $?;

	kill 'KILL', @running if @running;
	$? = $status;
}

1;
