# The same statements with the same answers on every storage: test/data/conformance.sql.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_node(
	'conformance',
	conf => <<'CONF');
fsync = off
timezone = 'UTC'
sagaz.max_retries = 2
sagaz.retry_backoff = '5min'
CONF

my $redis = SagazRedis->new->start;

# The tests of the script: until, sql, wanted, place.
sub read_script
{
	my ($file) = @_;
	my $text = slurp_file($file);
	my $line = 1;
	my @tests;

	for my $part (split /(\n(?:[ \t]*\n)+)/, $text)
	{
		my @lines = split /\n/, $part;
		my @sql = grep { !/^--/ } @lines;

		push @tests,
		  {
			until => scalar(grep { $_ eq '--until' } @lines),
			sql => join("\n", @sql),
			wanted => join('',
				map { /^--> ?(.*)/ ? "$1\n" : /^--! (\w+)/ ? "ERROR $1\n" : () }
				  @lines),
			place => "line $line"
		  }
		  if grep { /\S/ } @sql;
		$line += $part =~ tr/\n//;
	}
	return @tests;
}

sub run_script
{
	my ($storage, @tests) = @_;
	my $database = 'on_' . ($storage =~ s/\W.*//sr);

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION sagaz');
	$node->safe_psql($database, $_) for create_statements($storage);
	my $session = SagazSession->new($node, $database);
	$session->outcome("\\set s '$storage'");
	for my $test (@tests)
	{
		my $end = time + 60;
		my $got = $session->outcome($test->{sql});

		while ($test->{until} && $got ne $test->{wanted} && time < $end)
		{
			usleep(10_000);
			$got = $session->outcome($test->{sql});
		}
		is($got, $test->{wanted}, "$storage, $test->{place}")
		  or diag($test->{sql});
	}
	$session->close;
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
	$node->reload;
}

# A second cluster: a database with the extension, and one that has nothing.
my $other = new_node('other', conf => "fsync = off\nsagaz.max_retries = 2\nsagaz.retry_backoff = '5min'\nmax_connections = 20");
$other->safe_psql('postgres', $_) for 'CREATE DATABASE with_sagaz', 'CREATE DATABASE library';
$other->safe_psql('with_sagaz', 'CREATE EXTENSION sagaz');

sub url_of
{
	my ($database) = @_;
	my $host = $other->host =~ s{/}{%2F}gr;

	return "postgresql://\@$host:" . $other->port . "/$database";
}

sub create_statements
{
	my ($storage) = @_;
	my %url = (
		memory => 'memory://',
		sqlite => 'sqlite://'
		  . PostgreSQL::Test::Utils::tempdir()
		  . '/conformance.db',
		redis => $redis->url,
		pg_sagaz => url_of('with_sagaz'),
		pg_library => url_of('library'));

	return "SELECT sagaz.create_storage('$storage', '$url{$storage}')"
	  if $url{$storage};
	return ();
}

my @tests = read_script('test/data/conformance.sql');
cmp_ok(scalar @tests, '>', 200, 'there are tests');
my @built = split /\n/, $node->safe_psql('postgres', 'SELECT name FROM sagaz.backends()');
is_deeply([ grep { !/^(sqlite|redis|postgresql)$/ } @built ], [qw(native memory)],
	'what is in every build');
run_script($_, @tests)
  for map { $_ eq 'postgresql' ? qw(pg_sagaz pg_library) : $_ } @built;

$node->stop;
done_testing();
