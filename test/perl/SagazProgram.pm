# Running the program sagaz: to its end, or while a test looks on; with pipes or
# in a terminal.
package SagazProgram;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(connect_to sagaz sagaz_json sagaz_ok begin_sagaz);

# From now on the program, and psql, connect to this database as psql would.
sub connect_to
{
	my ($node, $database) = @_;

	$ENV{PGHOST} = $node->host;
	$ENV{PGPORT} = $node->port;
	$ENV{PGDATABASE} = $database;
	return;
}

# Exit status, stdout and stderr.
sub sagaz
{
	my @words = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'sagaz', @words ], '<', \undef, '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return ($? >> 8, $out, $err);
}

# stdout of a call that succeeds and says nothing on stderr.
sub sagaz_ok
{
	my @words = @_;
	my ($status, $out, $err) = sagaz(@words);

	is("$status $err", '0 ', "sagaz @words");
	return $out;
}

# What --json prints, read; the status may be another than 0.
sub sagaz_json
{
	my ($wanted, @words) = @_;
	my ($status, $out, $err) = sagaz(@words, '--json');
	my $document = eval { JSON::PP->new->utf8->allow_nonref->decode($out) };

	is($status, $wanted, "status of sagaz @words --json") or diag($err);
	ok(defined $document, "sagaz @words --json prints a document") or diag($out);
	return $document;
}

# Begin a call; {out} and {err} fill up while it is pumped.
sub begin_sagaz
{
	my @words = @_;
	my $run = { in => '', out => '', err => '' };

	$run->{harness} = IPC::Run::start([ 'sagaz', @words ], '<', \undef,
		'>', \$run->{out}, '2>', \$run->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return bless $run;
}

# Pump until a stream matches; false if the program ends first.
sub shows
{
	my ($self, $stream, $pattern) = @_;

	while ($self->{$stream} !~ $pattern)
	{
		return 0 unless $self->pump;
	}
	return 1;
}

# Wait for more output; false at its end.
sub pump
{
	my ($self) = @_;

	return $self->{harness}->pumpable && eval { $self->{harness}->pump; 1 };
}

sub signal
{
	my ($self, $name) = @_;

	return $self->{harness}->signal($name);
}

# Wait for the end; the exit status.
sub status
{
	my ($self) = @_;

	$self->{harness}->finish;
	return $self->{harness}->result(0);
}

1;
