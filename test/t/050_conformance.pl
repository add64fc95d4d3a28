# The same statements with the same answers on every storage: test/data/conformance.sql.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use SagazTls;
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

# A user with exactly the rights that the documentation asks for, in a database
# of his own.
my ($rights) = slurp_file('doc/storages.md') =~ /^ACL SETUSER sagaz on >secret (.*)$/m
  or die 'the documentation has no ACL';
$redis->cli('ACL', 'SETUSER', 'exact', 'reset', 'on', '>pw', split / /, $rights);

# The same over TLS.
my ($secured, $secured_url);
if (SagazTls::is_there())
{
	my $tls = SagazTls->new('ca')->issue('server', 'ca', 'DNS:localhost');
	my $port = PostgreSQL::Test::Cluster::get_free_port();

	$secured = SagazRedis->new($tls->redis_settings('server', 'ca'), 'tls-port' => $port)->start;
	$secured_url = "rediss://localhost:$port?sslrootcert=" . $tls->crt('ca');
}

# A second cluster: a database with the extension, where the settings of the
# first one are to count, and one that has nothing.
my $other = new_node('other', conf => <<'CONF' . 'include_if_exists = \'' . $node->data_dir . '/postgresql.auto.conf\'');
fsync = off
timezone = 'Asia/Tokyo'
sagaz.max_retries = 2
sagaz.retry_backoff = '5min'
CONF
$other->safe_psql('postgres', $_) for 'CREATE DATABASE with_sagaz', 'CREATE DATABASE library';
$other->safe_psql('with_sagaz', 'CREATE EXTENSION sagaz');

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

		reload_other() if $storage eq 'pg_sagaz' && $test->{sql} =~ /pg_reload_conf/;
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

# Who connects later has new settings, so whoever is connected was told.
sub reload_other
{
	my $settings = q{SELECT string_agg(name || ' ' || setting, ',' ORDER BY name)
		FROM pg_settings WHERE name ~ '^sagaz.(claim|retry)'};

	$other->reload;
	$other->poll_query_until('postgres', $settings, $node->safe_psql('postgres', $settings))
	  or die 'the other cluster has other settings';
}

sub url_of
{
	my ($database) = @_;
	my $host = $other->host =~ s{/}{%2F}gr;

	return "postgresql://\@$host:" . $other->port . "/$database";
}

sub create_statements
{
	my ($storage) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/conformance.db';
	my %url = (
		memory => 'memory://',
		sqlite => "sqlite://$file",
		redis => $redis->url,
		redis_exact => $redis->url(user => 'exact', password => 'pw', db => 1),
		redis_tls => $secured_url,
		pg_sagaz => url_of('with_sagaz'),
		pg_library => url_of('library'));

	# an empty storage is an empty file, and none is an error
	append_to_file($file, '');

	return "SELECT sagaz.create_storage('$storage', '$url{$storage}')"
	  if $url{$storage};
	return ();
}

# What a storage in memory may take up, whatever came and went before.
sub fill_memory
{
	my $session = SagazSession->new($node, 'postgres');
	my $save = sub {
		my ($id) = @_;
		return $session->outcome("SELECT sagaz.save_saga_state('$id', 'S', 'failed', '[]', jsonb_build_object('x', repeat('x', 10000)), storage => 'memory://limit');");
	};

	$session->outcome(q{SET sagaz.memory_limit = '1MB';});
	for my $round (1 .. 3)
	{
		my @ids = map { "$round $_" } 1 .. 200;
		my ($full) = grep { $save->($ids[$_]) eq "ERROR SZ007\n" } 0 .. $#ids;

		cmp_ok($full // 0, '>', 40, "memory, round $round: there is room");
		cmp_ok($full // 200, '<', 105, "memory, round $round: and an end");
		is(scalar(grep { $save->($ids[0]) =~ /ERROR/ } 1 .. 150), 0, "memory, round $round: what is replaced makes room");
		is($session->query("SELECT count(*), sum(sagaz_internal.remove_records(ARRAY[r->>'saga_id'], 'saga', 'memory://limit')) FROM sagaz.export_all('saga', 'memory://limit') AS r"),
			"$full|$full", "memory, round $round: the one too many is not there");
	}
	$session->close;
}

my @tests = read_script('test/data/conformance.sql');
cmp_ok(scalar @tests, '>', 200, 'there are tests');
my @built = split /\n/, $node->safe_psql('postgres', 'SELECT name FROM sagaz.backends()');
is_deeply([ grep { !/^(sqlite|redis|postgresql)$/ } @built ], [qw(native memory)],
	'what is in every build');
run_script($_, @tests)
  for map { $_ eq 'postgresql' ? qw(pg_sagaz pg_library) : $_ eq 'redis' ? (qw(redis redis_exact), $secured ? 'redis_tls' : ()) : $_ } @built;

$node->safe_psql('postgres', 'CREATE EXTENSION IF NOT EXISTS sagaz');
fill_memory();

$other->stop;
$node->stop;
done_testing();
