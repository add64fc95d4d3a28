# Real sentinels of a test's own, on 127.0.0.1.
package SagazSentinel;

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);

my $count = 0;
my @running;

# new(service, port of its primary, quorum, [line of sentinel.conf, ...]); it
# runs and answers then.
sub new
{
	my ($class, $service, $primary, $quorum, @lines) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short() . '/s' . ++$count;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $self = bless { dir => $dir, port => $port, service => $service }, $class;

	mkdir $dir or die "$dir: $!";
	push @lines, "port $port" unless grep { /^tls-port/ } @lines;
	append_to_file("$dir/conf", join "\n", @lines, "dir $dir", "bind 127.0.0.1",
		"sentinel monitor $service 127.0.0.1 $primary $quorum", "sentinel down-after-milliseconds $service 400",
		"sentinel failover-timeout $service 6000", '');
	push @running, $self;
	return $self->start;
}

sub start
{
	my ($self) = @_;
	my $end = time + 60;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$self->{dir}/log";
		open STDERR, '>&', \*STDOUT;
		exec 'redis-server', "$self->{dir}/conf", '--sentinel' or die "redis-server: $!";
	}
	$self->{pid} = $pid;
	append_to_file("$self->{dir}/log", '');
	until (slurp_file("$self->{dir}/log") =~ /\+monitor master/)
	{
		die "the sentinel did not start:\n" . slurp_file("$self->{dir}/log") if time > $end;
		usleep(10_000);
	}
	return $self;
}

sub stop
{
	my ($self) = @_;
	my $pid = delete $self->{pid} // return;

	kill 'CONT', $pid;
	kill 'KILL', $pid;
	waitpid $pid, 0;
}

sub cli
{
	my ($self, @words) = @_;
	my ($out, $err);

	IPC::Run::run([ 'redis-cli', '-p', $self->{port}, @words ], '<', \undef, '>', \$out, '2>', \$err) or return '';
	chomp $out;
	return $out;
}

# The port at which it sees the primary.
sub primary
{
	my ($self) = @_;

	return (split /\n/, $self->cli('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', $self->{service}))[1] // '';
}

# Wait until it says this of its service, by a field of SENTINEL MASTER.
sub wait_for
{
	my ($self, $field, $value) = @_;
	my $end = time + 120;

	while (1)
	{
		my %fields = split /\n/, $self->cli('SENTINEL', 'MASTER', $self->{service});

		return if ($fields{$field} // '') eq $value;
		die "$field is not $value: " . slurp_file("$self->{dir}/log") if time > $end;
		usleep(20_000);
	}
}

END
{
	my $status = $?;

	$_->stop for @running;
	$? = $status;
}

1;
