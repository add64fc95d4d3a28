# Programs that put a server under load and outlive its crashes: each is
# started again when it ends, as long as the load lasts.
package SagazLoad;

use strict;
use warnings;

use File::Temp;
use POSIX ':sys_wait_h';
use Time::HiRes qw(time usleep);

my $poll_us = 20_000;

sub new
{
	my ($class, $node, $seed) = @_;

	return bless {
		node => $node, seed => $seed, jobs => [],
		log => File::Temp->new }, $class;
}

# A job: pgbench with the arguments given, one client unless they say more; its
# sessions bear its name.
#	times => 0	only when asked, to the end of its script
sub add
{
	my ($self, $name, $arguments, %options) = @_;

	push @{ $self->{jobs} },
	  { name => $name, arguments => $arguments, times => -1, %options };
}

# pgbench's messages, of all runs.
sub messages
{
	my ($self) = @_;

	open my $file, '<', $self->{log}->filename or die $!;
	local $/;
	return <$file>;
}

sub start_job
{
	my ($self, $job) = @_;
	my $node = $self->{node};
	my $seconds = int($self->{end} - time) + 1;
	my @command = (
		'pgbench', '--no-vacuum', "--random-seed=" . $self->{seed}++,
		'--host=' . $node->host, '--port=' . $node->port,
		($job->{times} < 0 ? "--time=$seconds" : ()),
		@{ $job->{arguments} }, 'postgres');

	$job->{times}-- if $job->{times} > 0;
	$job->{pid} = fork // die "fork: $!";
	return if $job->{pid};
	local $ENV{PGAPPNAME} = $job->{name};
	open STDIN, '<', '/dev/null';
	open STDOUT, '>', '/dev/null';
	open STDERR, '>>', $self->{log}->filename;
	exec @command or POSIX::_exit(127);
}

# Notice the jobs that ended, start those that are wanted again.
sub tend
{
	my ($self) = @_;

	for my $job (@{ $self->{jobs} })
	{
		delete $job->{pid}
		  if $job->{pid} && waitpid($job->{pid}, WNOHANG) == $job->{pid};
		$self->start_job($job)
		  if !$job->{pid} && !$self->{paused} && $job->{times} != 0
		  && time < $self->{end};
	}
}

sub begin
{
	my ($self, $seconds) = @_;

	$self->{end} = time + $seconds;
	$self->tend;
}

# Run a job that waits to be asked.
sub once_more
{
	my ($self, $name) = @_;

	$_->{times}++ for grep { $_->{name} eq $name } @{ $self->{jobs} };
	$self->tend;
}

# Tend the jobs until so many seconds before the end.
sub until_left
{
	my ($self, $seconds) = @_;

	while (time < $self->{end} - $seconds)
	{
		$self->tend;
		usleep($poll_us);
	}
}

# While the server is away no job is started.
sub pause
{
	my ($self) = @_;
	$self->{paused} = 1;
}

sub resume
{
	my ($self) = @_;
	$self->{paused} = 0;
	$self->tend;
}

# Kill a job's client outright.
sub kill_client
{
	my ($self, $name) = @_;

	for my $job (grep { $_->{name} eq $name && $_->{pid} } @{ $self->{jobs} })
	{
		return kill 'KILL', $job->{pid};
	}
	return 0;
}

# Wait for the end of all jobs; true if none had to be killed.
sub finish
{
	my ($self, $patience) = @_;
	my $all = 1;

	$self->{paused} = 1;
	for my $job (@{ $self->{jobs} })
	{
		while ($job->{pid} && waitpid($job->{pid}, WNOHANG) == 0)
		{
			if (time > $self->{end} + $patience)
			{
				kill 'KILL', $job->{pid};
				$all = 0;
			}
			usleep($poll_us);
		}
		delete $job->{pid};
	}
	return $all;
}

1;
