# What the TAP tests share: clusters with the settings of sagaz, and pg_regress
# told test by test.
package SagazTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(error_of grows_less new_node run_regress test_files wait_until_up);

# What the server says of a statement, with the SQLSTATE; '' where it has
# nothing to say.  Options: database, role.
sub error_of
{
	my ($node, $sql, %options) = @_;
	my $role = $options{role} ? "SET ROLE $options{role};\n" : '';
	my ($status, $out, $err) = $node->psql($options{database} // 'postgres', "\\set VERBOSITY verbose\n$role$sql");

	return $err // '';
}

# That a process has not grown by more than a limit.  Sanitizers keep what
# is freed, and tell nothing of it.
sub grows_less
{
	my ($grown, $limit, $name) = @_;

  SKIP:
	{
		skip 'memory, under a sanitizer', 1 if $ENV{ASAN_OPTIONS};
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		cmp_ok($grown, '<', $limit, $name);
	}
}

# A running cluster with the extension in database postgres.
#	preload => 0	without shared_preload_libraries
#	conf => '...'	further lines for postgresql.conf
#	init => {...}	further arguments of PostgreSQL::Test::Cluster's init
#	create => 0	without the extension, start => 0 not even started
sub new_node
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my %init = %{ $options{init} // {} };

	push @{ $init{extra} }, '--encoding=UTF8', '--locale=C.UTF-8';
	$node->init(%init);
	$node->append_conf('postgresql.conf', <<'CONF');
log_statement = none
max_connections = 50
max_prepared_transactions = 20
shared_buffers = 32MB
CONF
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'sagaz'")
	  if $options{preload} // 1;
	$node->append_conf('postgresql.conf', $options{conf})
	  if defined $options{conf};
	return $node unless $options{start} // 1;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION sagaz')
	  if $options{create} // 1;
	return $node;
}

# Wait until the cluster lets one in, after a process of it was killed.
sub wait_until_up
{
	my ($node) = @_;
	my @command = ($node->installed_command('psql'), '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SELECT');

	for (1 .. 600)
	{
		return if IPC::Run::run(\@command, '<', \undef, '>', \my $out, '2>', \my $err);
		usleep(50_000);
	}
	die 'the cluster does not come back';
}

# The names of the tests to run: those that the environment variable names, by
# path, or all that match the pattern.
sub test_files
{
	my ($variable, $pattern) = @_;
	my @files = split ' ', $ENV{$variable} // '';

	@files = sort glob $pattern unless @files;
	return map { s{.*/(.*)\..*}{$1}r } @files;
}

# Run pg_regress, or pg_isolation_regress, once for each test, so that each has
# a database of its own and they need no order.
sub run_regress
{
	my ($tool, $node, @tests) = @_;

	for my $test (@tests)
	{
		my ($out, $err);
		my $passed = IPC::Run::run(
			[
				$tool, '--inputdir=test', '--outputdir=.',
				"--bindir=$ENV{BINDIR}", '--load-extension=sagaz',
				"--dbname=regress_$test", '--host=' . $node->host,
				'--port=' . $node->port, $test
			],
			'<', \undef, '>', \$out, '2>', \$err);
		ok($passed, "$test, " . $node->name)
		  or diag(-s 'regression.diffs' ? slurp_file('regression.diffs')
			: $out . $err);
	}
}

1;
