# README.md, CONTRIBUTING.md and doc/ say what is there: their SQL examples run,
# the files they name exist, and the reference has each function, relation,
# setting and SQLSTATE as it is.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazTest;
use Test::More;

my $node = new_node('documents', create => 0);
my $reference = slurp_file('doc/reference.md');

# A new database for the examples of a document, with what they take for
# granted.
sub new_database
{
	my ($db, $preparation) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, $preparation);
}

# Run the SQL blocks of a document in one session, from first to last.  What is
# no SQL becomes empty lines, so that an error tells the line of the document.
sub run_examples
{
	my ($document, $db, $at_least) = @_;
	my ($inside, $blocks, $sql) = (0, 0, '');

	for my $line (split /^/, slurp_file($document))
	{
		my $fence = $line =~ /^```/;

		$blocks++ if $line =~ /^```sql$/;
		$inside = $line =~ /^```sql$/ if $fence;
		$sql .= $inside && !$fence ? $line : "\n";
	}
	cmp_ok($blocks, '>=', $at_least, "$document has examples");
	my ($status, $out, $err) = $node->psql($db, $sql, on_error_stop => 1);
	is($status, 0, "the examples of $document run") or diag($err);
	return $out;
}

# The signatures of the reference: indented lines, each with all that is
# indented further behind it.
sub signatures
{
	my @found;

	while ($reference =~ /^    (CALL )?(\w+\(.*(?:\n {5,}.*)*)/mg)
	{
		my ($is_procedure, $text) = ($1, $2);
		$text =~ s/\s+/ /g;
		push @found, $text if $text =~ / → / || $is_procedure;
	}
	return @found;
}

# The same as a definition in schema pg_temp, so that the server tells whether
# it is the same as that of the real function.
sub definition
{
	my ($signature) = @_;
	my ($name, $rest) = $signature =~ /^(\w+)(\(.*)$/;

	$name = 'said_' . $name;
	return ("CREATE PROCEDURE said.$name$rest LANGUAGE sql AS ''")
	  unless $rest =~ / → /;
	my ($arguments, $result) = split / → /, $rest, 2;
	if ($result =~ /^\((.*)\)$/)
	{
		my $columns = join ', ', map { "OUT $_" } split /, /, $1;
		$arguments =~ s/\)$/, $columns)/;
		$result = 'record';
	}
	$result =~ s/^setof \(/TABLE (/;
	return "CREATE FUNCTION said.$name$arguments RETURNS $result LANGUAGE sql AS ''";
}

# Reference against catalog.
new_database('catalog', 'CREATE EXTENSION sagaz; CREATE SCHEMA said');
my @signatures = signatures();
my $session = join ";\n", 'SET search_path = sagaz, pg_catalog',
  'SET check_function_bodies = off', map { definition($_) } @signatures;
my ($status, $out, $err) =
  $node->psql('catalog', $session, on_error_stop => 1);
is($status, 0, 'every signature can be read') or diag($err);

# Casts of defaults tell the same as the argument's type.
my $form = q(regexp_replace(pg_get_function_arguments(oid), '::[a-z ]+', '', 'g')
	|| ' ' || coalesce(pg_get_function_result(oid), ''));
is( $node->safe_psql('catalog', <<"SQL"), '', 'functions with another signature than the reference has');
SET search_path = sagaz, pg_catalog;
SELECT name, form, CASE WHEN r.there THEN 'not in the reference' ELSE 'not there' END
	FROM (SELECT proname AS name, $form AS form, true AS there FROM pg_proc
			WHERE pronamespace = 'sagaz'::regnamespace) AS r
		FULL JOIN (SELECT substr(proname, 6) AS name, $form AS form, true AS there FROM pg_proc
			WHERE pronamespace = 'said'::regnamespace) AS s USING (name, form)
	WHERE r.there IS NULL OR s.there IS NULL ORDER BY name, form
SQL

my @inner = grep { $reference =~ /\b\Q$_\E\(/ } split /\n/, $node->safe_psql('catalog',
	q(SELECT proname FROM pg_proc WHERE pronamespace = 'sagaz_internal'::regnamespace));
is_deeply(\@inner, [], 'internal functions that the reference teaches');

my ($tables) = $reference =~ /^## Tables and views\n(.*?)^## /ms;
my @missing = grep { $tables !~ /`\Q$_\E`/ } split /\n/,
  $node->safe_psql('catalog', <<'SQL');
SELECT relname FROM pg_class
	WHERE relnamespace = 'sagaz'::regnamespace AND relkind <> 'i'
UNION ALL
SELECT typname FROM pg_type
	WHERE typnamespace = 'sagaz'::regnamespace AND typtype IN ('e', 'd')
SQL
is_deeply(\@missing, [], 'relations and types that the reference does not name');
while ($tables =~ /^\| `(\w+)` \| ((?:`\w+` ?)+) \|/mg)
{
	my ($relation, $columns) = ($1, $2 =~ tr/`//dr);

	is($columns, $node->safe_psql('catalog', <<"SQL"), "columns of $relation");
SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
	WHERE attrelid = 'sagaz.$relation'::regclass AND attnum > 0
SQL
}

my ($settings) = $reference =~ /^## Settings\n(.*?)^## /ms;
my %said = $settings =~ /^\| `(sagaz\.\w+)` \| (?:`(-?\w+|\*)`|empty) \|/mg;
is( join("\n", map { "$_|" . ($said{$_} // '') } sort keys %said),
	$node->safe_psql('catalog', <<'SQL'), 'settings and their defaults');
SELECT name, current_setting(name) FROM pg_settings
	WHERE name LIKE 'sagaz.%' ORDER BY name COLLATE "C"
SQL

my ($errors) = $reference =~ /^## Errors\n(.*)/ms;
my @codes = map { "SZ00$_" }
  slurp_file('src/lib/sagaz.h') =~ /MAKE_SQLSTATE\('S', 'Z', '0', '0', '(\d)'\)/g;
is_deeply([ $errors =~ /^\| `(SZ\w+)` \|/mg ], \@codes, 'SQLSTATEs');

# What any of the documents calls sagaz.something is there.
my $names = $node->safe_psql('catalog', <<'SQL');
SELECT string_agg(name, '|') FROM (
	SELECT proname FROM pg_proc WHERE pronamespace = 'sagaz'::regnamespace
	UNION SELECT relname FROM pg_class WHERE relnamespace = 'sagaz'::regnamespace
	UNION SELECT typname FROM pg_type WHERE typnamespace = 'sagaz'::regnamespace
	UNION SELECT substr(name, 7) FROM pg_settings WHERE name LIKE 'sagaz.%') AS n (name)
SQL
for my $document ('README.md', 'CONTRIBUTING.md', glob 'doc/*.md')
{
	my @unknown = grep { !/^(?:$names|c|h|so|control|md)$/ }
	  slurp_file($document) =~ /\bsagaz\.(\w+)/g;
	is_deeply(\@unknown, [], "$document names nothing that is not there");
}

# Files, folders and tests that pages for developers name are there.
for my $document ('CONTRIBUTING.md', 'doc/internals.md', 'doc/guarantees.md')
{
	my @words = slurp_file($document) =~ /`([^`\n]+)`/g;
	my @paths = grep { m{^(?:src|backends|test|sql|doc|expected)/[\w./-]*$} } @words;
	my @tests = map { "test/t/$_.pl" } grep { /^\d\d\d_\w+$/ } @words;

	cmp_ok(@paths + @tests, '>', 10, "$document names files");
	is_deeply([ grep { !-e } @paths, @tests ], [], "$document names no file that is not there");
}

# The examples.  Those of the README need nothing but the server.
new_database('readme', 'SELECT 1');
run_examples('README.md', 'readme', 20);
ok( $node->poll_query_until('readme',
		"SELECT count(*) > 0 FROM ledger WHERE event_type = 'StockReserved'"),
	'the delivery of the README delivers');
$node->safe_psql('postgres', 'CREATE ROLE shop_app');
new_database('reference', 'CREATE EXTENSION sagaz');
$node->command_ok(
	[
		'psql', '--quiet', '--no-psqlrc', '--output=/dev/null',
		'--file=test/data/pg-clean.sql', $node->connstr('reference')
	],
	'tables of the Python library to adopt');
run_examples('doc/reference.md', 'reference', 10);
new_database('operations', 'CREATE EXTENSION sagaz');
run_examples('doc/operations.md', 'operations', 3);
new_database('storages', 'CREATE EXTENSION sagaz');
unlink glob '/tmp/sagaz-storages.db*';
run_examples('doc/storages.md', 'storages', 2);
new_database('internals', 'CREATE EXTENSION sagaz');
run_examples('doc/internals.md', 'internals', 5);
new_database('cdc', 'CREATE EXTENSION sagaz');
run_examples('doc/cdc.md', 'cdc', 3);
new_database('migration', 'CREATE EXTENSION sagaz');
unlink '/tmp/sagaz-migration.db';
run_examples('doc/migration.md', 'migration', 8);
$node->stop;

done_testing();
