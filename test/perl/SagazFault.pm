# Stands between sagaz and another server, on Unix sockets, and has one request of
# a connection fail: so what comes of it is what the server itself makes of it.
# It runs in processes of its own until the test ends.
#
# Faults, each at the nth request:
#	bad	the server gets another request, which it answers with an error
#	cut	the connection ends before the server gets the request
#	lost	it ends before the client gets the first answer to it
#	mute	neither the request nor what follows is passed on
# and without a number
#	refuse	no connection comes about
#	other	the connection is one to another server
package SagazFault;

use strict;
use warnings;

use Fcntl qw(LOCK_EX LOCK_SH);
use IO::Socket::UNIX;
use POSIX ();
use PostgreSQL::Test::Utils;

my $count = 0;
my @running;

# new(kind of server: redis or postgresql, its socket, that of another one)
sub new
{
	my ($class, $kind, $server, $other) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short() . '/f' . ++$count;

	mkdir $dir or die "$dir: $!";
	my $self = bless { dir => $dir, kind => $kind, server => $server, other => $other,
		path => "$dir/" . ($kind eq 'redis' ? 's' : '.s.PGSQL.5432') }, $class;
	my $listener = IO::Socket::UNIX->new(Local => $self->{path}, Listen => 50) or die "$self->{path}: $!";
	$self->set('none');
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		@running = ();
		$SIG{PIPE} = $SIG{CHLD} = 'IGNORE';
		while (1)
		{
			my $client = $listener->accept // next;
			my ($fault, $n) = split ' ', PostgreSQL::Test::Utils::slurp_file("$dir/fault");

			next if $fault eq 'refuse' || fork;
			my $peer = IO::Socket::UNIX->new(Peer => $fault eq 'other' ? $other : $server) // POSIX::_exit(0);
			$self->pass($client, $peer, $fault, $n // 0);
		}
	}
	push @running, $pid;
	return $self;
}

sub url
{
	my ($self, $database) = @_;
	return $self->{kind} eq 'redis' ? "unix://$self->{path}" : "postgresql://postgres\@/$database?host=$self->{dir}&port=5432";
}

# What happens to connections from now on.
sub set
{
	my ($self, @fault) = @_;

	unlink "$self->{dir}/requests";
	PostgreSQL::Test::Utils::append_to_file("$self->{dir}/new", join ' ', @fault);
	rename "$self->{dir}/new", "$self->{dir}/fault" or die $!;
}

# How many requests the longest connection since then had.
sub requests
{
	my ($self) = @_;
	my $most = 0;

	return 0 unless -e "$self->{dir}/requests";
	for (split /\n/, PostgreSQL::Test::Utils::slurp_file("$self->{dir}/requests"))
	{
		$most = $_ if $_ > $most;
	}
	return $most;
}

# Wait until the server is done with all connections that a fault has struck.
sub settle
{
	my ($self) = @_;

	open my $file, '>>', "$self->{dir}/struck" or die $!;
	flock $file, LOCK_EX or die $!;
}

# What follows has met the fault; so it is until this process ends.
my $struck;
sub strike
{
	my ($self) = @_;

	open $struck, '>>', "$self->{dir}/struck" or POSIX::_exit(0);
	flock $struck, LOCK_SH or POSIX::_exit(0);
}

# End the connection, and go when the server has ended it, too.
sub leave
{
	my ($client, $server) = @_;

	shutdown $server, 1;
	close $client;
	1 while sysread $server, my $bytes, 1 << 16;
	POSIX::_exit(0);
}

sub put
{
	my ($to, $bytes) = @_;

	for (my $sent = 0; $sent < length $bytes;)
	{
		$sent += syswrite($to, $bytes, length($bytes) - $sent, $sent) // POSIX::_exit(0);
	}
}

sub note
{
	my ($self, $n) = @_;

	open my $file, '>>', "$self->{dir}/requests" or POSIX::_exit(0);
	syswrite $file, "$n\n";
}

sub pass
{
	my ($self, $client, $server, $fault, $n) = @_;
	my ($asked, $bits, $step, $mute, $lost, $began) = ('', '', 0, 0, 0, 0);

	vec($bits, fileno $_, 1) = 1 for $client, $server;
	while (select(my $ready = $bits, undef, undef, undef))
	{
		if (vec($ready, fileno $server, 1))
		{
			sysread($server, my $bytes, 1 << 16) or POSIX::_exit(0);
			leave($client, $server) if $lost;
			put($client, $bytes) unless $mute;
		}
		next unless vec($ready, fileno $client, 1);
		sysread($client, $asked, 1 << 16, length $asked) or leave($client, $server);
		while (defined(my $request = $self->take(\$asked, $began)))
		{
			$began = 1;
			if (!$self->counts($request))
			{
				put($server, $request) unless $mute;
				next;
			}
			$self->note(++$step);
			if ($fault eq 'none' || $fault eq 'other' || $step != $n) { put($server, $request) unless $mute }
			elsif ($fault eq 'bad') { put($server, $self->worse($request)) }
			else
			{
				$self->strike;
				leave($client, $server) if $fault eq 'cut';
				$mute = 1 if $fault eq 'mute';
				$lost = 1 if $fault eq 'lost';
				put($server, $request) if $lost;
			}
		}
	}
}

# The first request, whole; undef where it has not come yet.
sub take
{
	my ($self, $bytes, $began) = @_;

	if ($self->{kind} ne 'redis')
	{
		# the first message of a connection has no type
		my $from = $began ? 1 : 0;
		return if length $$bytes < $from + 4;
		my $length = $from + unpack 'N', substr $$bytes, $from, 4;
		return length $$bytes < $length ? undef : substr $$bytes, 0, $length, '';
	}
	$$bytes =~ /\A\*(\d+)\r\n/ or return;
	my ($words, $at) = ($1, $+[0]);
	for (1 .. $words)
	{
		pos($$bytes) = $at;
		$$bytes =~ /\G\$(\d+)\r\n/g or return;
		$at = pos($$bytes) + $1 + 2;
		return if $at > length $$bytes;
	}
	return substr $$bytes, 0, $at, '';
}

# Of PostgreSQL's messages Parse, Bind, Execute and Sync.
sub counts
{
	my ($self, $request) = @_;
	return $self->{kind} eq 'redis' || $request =~ /\A[PBES]/ && length $request > 4;
}

# In its place, a request that the server refuses.
sub worse
{
	my ($self, $request) = @_;

	return "*1\r\n\$10\r\nNOSUCHWORD\r\n" if $self->{kind} eq 'redis';
	my ($type, $body) = (substr($request, 0, 1), substr $request, 5);
	$body =~ s/\A([^\0]*\0)[^\0]*/$1SELECT nothing FROM nowhere/ if $type eq 'P';
	$body =~ s/\A([^\0]*\0)[^\0]*/$1nosuchstatement/ if $type eq 'B';
	$body =~ s/\A[^\0]*/nosuchportal/ if $type eq 'E';
	return $type . pack('N', length($body) + 4) . $body;
}

END
{
	my $status = $?;

	kill 'KILL', @running if @running;
	$? = $status;
}

1;
