# The program sagaz in a real pseudo-terminal.  test/run hands over the master
# of one, since in some containers root alone can make any; one program after the
# other uses it.
package SagazTerminal;

use strict;
use warnings;

use IO::Handle;
use POSIX ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time);

# Linux's asm-generic/ioctls.h
my %request = (lock => 0x40045431, peer => 0x5441, control => 0x540E, size => 0x5414);
my $master;

# Is there a terminal to be had?
sub available
{
	return 1 if $master;
	my $unlocked = pack 'i', 0;

	open my $handle, '+<&=', 9 or return 0;
	ioctl $handle, $request{lock}, $unlocked or return 0;
	my $slave = open_slave($handle) // return 0;
	POSIX::close($slave);
	$master = $handle;
	return 1;
}

# The file descriptor of a terminal's other end, or undef.
sub open_slave
{
	my ($handle) = @_;
	my $flags = POSIX::O_RDWR() | POSIX::O_NOCTTY();

	return ioctl $handle, $request{peer}, $flags;
}

# Begin a call in a terminal of so many columns.  All that is shown comes to {out}.
sub begin
{
	my ($class, $columns, @words) = @_;
	my $size = pack 'S4', 25, $columns, 0, 0;
	my $self = bless { out => '', end => time + $PostgreSQL::Test::Utils::timeout_default }, $class;

	available() or die 'no terminal';
	my $fd = open_slave($master)
	  // die "slave of the terminal: $!";
	open $self->{slave}, '+<&=', $fd or die "slave of the terminal: $!";
	ioctl $self->{slave}, $request{size}, $size
	  or die "size of the terminal: $!";
	$self->{pid} = fork // die "fork: $!";
	if ($self->{pid} == 0)
	{
		POSIX::setsid();
		ioctl $self->{slave}, $request{control}, 0;
		POSIX::dup2($fd, $_) for 0 .. 2;
		$ENV{TERM} = 'xterm';
		exec 'sagaz', @words or POSIX::_exit(127);
	}
	return $self;
}

# Read what there is; false once the program has ended.
sub pump
{
	my ($self) = @_;
	my $ended = $self->{ended} // waitpid($self->{pid}, POSIX::WNOHANG()) > 0;
	my $ready = '';

	if ($ended && !defined $self->{ended})
	{
		$self->{ended} = 1;
		$self->{wait_status} = $?;
	}
	die "sagaz does not end: $self->{out}" if time > $self->{end};
	vec($ready, fileno $master, 1) = 1;
	if (select($ready, undef, undef, $ended ? 0 : 0.05) > 0)
	{
		sysread $master, $self->{out}, 65536, length $self->{out};
		return 1;
	}
	return !$ended;
}

# Pump until what is shown matches; false if the program ends first.
sub shows
{
	my ($self, $pattern) = @_;

	while ($self->{out} !~ $pattern)
	{
		return 0 unless $self->pump;
	}
	return 1;
}

sub type
{
	my ($self, $text) = @_;

	syswrite $master, $text;
	return;
}

# Wait for the end; the exit status.
sub status
{
	my ($self) = @_;

	1 while $self->pump;
	close $self->{slave};
	return $self->{wait_status} & 127 ? "signal $self->{wait_status}" : $self->{wait_status} >> 8;
}

1;
