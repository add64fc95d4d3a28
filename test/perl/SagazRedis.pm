# A real Redis server of a test's own, on a socket in the test's directory.
package SagazRedis;

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $count = 0;
my @running;

# new(setting => value, ...) as in redis.conf; it is not started yet.
sub new
{
	my ($class, %settings) = @_;
	# a socket's path must be short
	my $dir = PostgreSQL::Test::Utils::tempdir_short() . '/r' . ++$count;

	mkdir $dir or die "$dir: $!";
	my $self = bless {
		dir => $dir,
		socket => "$dir/s",
		settings => {
			port => 0,
			unixsocket => "$dir/s",
			dir => $dir,
			save => '',
			appendonly => 'no',
			%settings
		}
	}, $class;
	push @running, $self;
	return $self;
}

sub url
{
	my ($self, %part) = @_;
	my $login = exists $part{password}
	  ? ($part{user} // '') . ":$part{password}\@"
	  : '';

	return "unix://$login$self->{socket}" . ($part{db} ? "?db=$part{db}" : '');
}

# Start it, with further settings if any, and wait until it answers.
sub start
{
	my ($self, %settings) = @_;
	my $end = time + 60;

	%{ $self->{settings} } = (%{ $self->{settings} }, %settings);
	my @words = map { ("--$_", $self->{settings}{$_} eq q() ? q() : split(/ /, $self->{settings}{$_})) }
	  sort keys %{ $self->{settings} };
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$self->{dir}/log";
		open STDERR, '>&', \*STDOUT;
		exec 'redis-server', @words or die "redis-server: $!";
	}
	$self->{pid} = $pid;
	until (($self->try_cli('PING') // '') =~ /PONG|NOAUTH/)
	{
		die "Redis did not start:\n" . slurp_file("$self->{dir}/log") if time > $end;
		usleep(5_000);
	}
	return $self;
}

# End it by a signal, KILL if none is named; it is gone afterwards.
sub stop
{
	my ($self, $signal) = @_;
	my $pid = delete $self->{pid} // return;

	kill 'CONT', $pid;
	kill $signal // 'KILL', $pid;
	waitpid $pid, 0;
	unlink $self->{socket};
}

# Cut so many bytes off the end of the log of a server that is stopped.
sub tear_log
{
	my ($self, $bytes) = @_;
	my ($log) = glob "$self->{dir}/appendonlydir/*.incr.aof";

	truncate $log, (-s $log) - $bytes or die "$log: $!";
}

# Did the server ever find its log torn when it started?
sub has_torn_log
{
	my ($self) = @_;
	return slurp_file("$self->{dir}/log") =~ /Truncating the AOF/;
}

sub signal
{
	my ($self, $signal) = @_;
	kill $signal, $self->{pid} or die "kill: $!";
}

# What redis-cli answers, or undef.
sub try_cli
{
	my ($self, @words) = @_;
	my ($out, $err);
	my @password = $self->{password} ? ('--no-auth-warning', '-a', $self->{password}) : ();

	IPC::Run::run([ 'redis-cli', '-s', $self->{socket}, @password, @words ],
		'<', \undef, '>', \$out, '2>', \$err)
	  or return;
	chomp $out;
	return $out;
}

sub cli
{
	my ($self, @words) = @_;
	return $self->try_cli(@words) // die "redis-cli failed: @words";
}

# Feed a file of commands in Redis's own protocol.
sub load
{
	my ($self, $file) = @_;
	my ($out, $err);

	IPC::Run::run([ 'redis-cli', '-s', $self->{socket}, '--pipe' ],
		'<', $file, '>', \$out, '2>', \$err)
	  or die "$file: $out$err";
}

# How often the server ran each command since it was started or this was reset.
sub command_counts
{
	my ($self) = @_;
	return { $self->cli('INFO', 'commandstats') =~ /^cmdstat_([^:]+):calls=(\d+)/mg };
}

END
{
	my $status = $?;

	$_->stop for @running;
	$? = $status;
}

1;
