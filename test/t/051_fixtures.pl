# SQLite files of the Python library: what is read from them, copied from store
# to store, and written again.  test/data/sqlite-*.db were written by the
# library, sqlite-*.jsonl is what the library reads from them.  Everything is
# compared here as Perl values, and files of sagaz are read by sqlite3.
use strict;
use warnings;

use File::Copy;
use PostgreSQL::Test::Utils;
use SagazRecord;
use SagazSession;
use SagazTest;
use Test::More;

my $node = new_node('fixtures', conf => 'fsync = off');
if ($node->safe_psql('postgres',
		q{SELECT count(*) FROM sagaz.backends() WHERE name = 'sqlite'}) == 0)
{
	plan skip_all => 'built without SQLite';
}
my $files = PostgreSQL::Test::Utils::tempdir();
my $uuid = qr/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\z/;

# A copy of a file of the library that the server may write to.
sub file_copy
{
	my ($name, $as) = @_;

	copy("test/data/$name.db", "$files/$as.db") or die $!;
	return "sqlite://$files/$as.db";
}

# ----------------------------------------------------------------------
# Reading

sub test_reading
{
	my ($name) = @_;
	my $url = file_copy($name, $name);
	my $wanted = listed($name);

	for my $kind (qw(saga outbox))
	{
		my %all = %{ $wanted->{$kind} };
		my @unfit = grep { is_unfit($all{$_}) } sort keys %all;
		my ($found, $warnings) = exported($node, $kind, $url);
		my @refused =
		  $warnings =~ /WARNING:  SZ003: record "(.*)" of storage .* is refused/g;

		delete @all{@unfit};
		same_records($found, \%all, "$name, $kind");
		is_deeply([ sort @refused ], \@unfit,
			"$name, $kind: what jsonb cannot hold is refused, by name");
		my @reasons = $warnings =~
		  /^DETAIL:  ((?:payload|context|steps): .*(?:NaN|\\u0000).*[^.]\.)$/mg;
		is(scalar @reasons, scalar @unfit,
			"$name, $kind: each refusal has its reason");
		is($node->safe_psql('postgres',
				"SELECT sagaz.count_records('$kind', '$url')"),
			scalar(keys %all) + @unfit,
			"$name, $kind: all of them are counted");
		is_deeply(
			[ grep { !is_spelled_well($_) } values %$found ], [],
			"$name, $kind: times are spelled in UTC");
	}
	is(slurp_file("$files/$name.db"), slurp_file("test/data/$name.db"),
		"$name: reading leaves the file as it was");
	is_deeply([ glob "$files/$name.db?*" ], [], "$name: and puts none beside it");
}

test_reading('sqlite-clean');
test_reading('sqlite-hostile');

# ----------------------------------------------------------------------
# A chain of copies: library -> memory -> SQLite -> native -> SQLite

my $session = SagazSession->new($node, 'postgres');
my $clean = file_copy('sqlite-clean', 'clean');
my $hostile = file_copy('sqlite-hostile', 'hostile');

$session->query(
	'SET client_min_messages = error; SET sagaz.memory_limit = 65536');

# Copy all records of a kind; how many were written.
sub copy_all
{
	my ($kind, $from, $to, $condition) = @_;

	return $session->query(
		"SELECT count(*) FROM sagaz.export_all('$kind', '$from') AS r"
		  . ' WHERE ' . ($condition // 'true')
		  . " AND sagaz.import_record(r, '$kind', '$to')");
}

sub checksum
{
	my ($kind, $storage) = @_;
	return $session->query("SELECT sagaz.checksum('$kind', '$storage')");
}

sub test_chain
{
	my ($kind, $count, @stores) = @_;
	my $sum = checksum($kind, $stores[0]);

	for my $i (1 .. $#stores)
	{
		my $name = $stores[$i] =~ s{.*/}{}r;

		is(copy_all($kind, @stores[ $i - 1, $i ]), $count,
			"$kind, copy $i to $name: all are written");
		is($session->query("SELECT sagaz.count_records('$kind', '$stores[$i]')"),
			$count, "$kind, copy $i to $name: all are there");
		is(checksum($kind, $stores[$i]), $sum,
			"$kind, copy $i to $name: the same checksum");
	}
	return $sum;
}

my @chain = ($clean, 'memory://', "sqlite://$files/first.db", 'native',
	"sqlite://$files/last.db");
my $clean_list = listed('sqlite-clean');
my %sum = map {
	$_ => test_chain($_, scalar(keys %{ $clean_list->{$_} }), @chain)
} qw(saga outbox);

isnt($sum{saga}, $sum{outbox}, 'checksums tell different records apart');
is(checksum('saga', 'memory://other'), '0' x 64, 'and nothing is zero');
is(copy_all('outbox', $clean, 'native'), 0,
	'events that are there already are not written again');
is(copy_all('saga', $clean, 'native'), 0, 'nor are sagas');
is(checksum('saga', 'native'), $sum{saga}, 'and none was changed');

# The hostile ones go from store to store as they are.
for my $kind (qw(saga outbox))
{
	test_chain(
		$kind,
		scalar(grep { !is_unfit($_) } values %{ listed('sqlite-hostile')->{$kind} }),
		$hostile,
		'memory://hostile',
		"sqlite://$files/hostile_copy.db");
}
same_records(
	(exported($node, 'outbox', "sqlite://$files/hostile_copy.db"))[0],
	(exported($node, 'outbox', $hostile))[0],
	'ids that are no UUID');

# One record, to native.
sub import_error
{
	my ($kind, $id) = @_;
	my $key = $kind eq 'saga' ? 'saga_id' : 'event_id';
	my ($status, $out, $err) = $node->psql(
		'postgres',
		"\\set VERBOSITY verbose\n"
		  . "SELECT sagaz.import_record(r, '$kind', 'native')"
		  . " FROM sagaz.export_all('$kind', '$hostile') AS r"
		  . " WHERE r->>'$key' = \$id\$$id\$id\$");
	return $err =~ /ERROR:  (\w+: .*)/ ? $1 : $out;
}

for my $id ('not-a-uuid', 'evt:1 "x" ☃')
{
	is(import_error('outbox', $id), qq(SZ003: record "$id" is refused),
		"event $id is no record of the native tables");
}
is(import_error('saga', $_), qq(SZ003: record "$_" is refused),
	"saga $_ is no record of the native tables")
  for qw(dup-step odd-step-status bad-step-time nameless-step steps-null);
is(
	state_of(
		q[SELECT sagaz.import_record('{"event_id": "00000000-0000-4000-8000-00000000000c", "saga_id": "",]
		  . q[ "event_type": "E", "payload": 1, "status": "pending"}', 'outbox', 'native')]),
	'SZ003',
	'nor is an event without saga_id');
is(checksum('saga', 'native'), $sum{saga}, 'a refused saga leaves no trace');
is(checksum('outbox', 'native'), $sum{outbox}, 'nor does a refused event');

# ----------------------------------------------------------------------
# What sagaz wrote, seen by sqlite3

sub sqlite3
{
	my ($file, $query) = @_;
	my ($out, $err) =
	  run_command([ 'sqlite3', '-readonly', '-json', "$files/$file.db", $query ]);

	die $err if $err ne '';
	return $out eq '' ? [] : $json->decode($out);
}

# A row as the library reads it.
sub row_record
{
	my ($row, @documents) = @_;
	my %record = %$row;

	for my $key (grep { defined $record{$_} } @documents)
	{
		utf8::encode(my $bytes = $record{$key});
		$record{$key} = $json->decode($bytes);
	}
	return \%record;
}

my %layout = (
	saga => {
		table => 'sagas',
		key => 'saga_id',
		documents => [qw(steps context metadata)]
	},
	outbox => {
		table => 'outbox_events',
		key => 'event_id',
		documents => [qw(payload headers)]
	});

sub schema
{
	my ($file, $table) = @_;

	return {
		columns => sqlite3($file, "SELECT * FROM pragma_table_info('$table')"),
		indexes => sqlite3($file,
			"SELECT l.name, i.name AS \"column\" FROM pragma_index_list('$table') l,"
			  . " pragma_index_info(l.name) i ORDER BY 1")
	};
}

sub test_file
{
	my ($file, $kind) = @_;
	my ($table, $key) = @{ $layout{$kind} }{qw(table key)};
	my @documents = @{ $layout{$kind}{documents} };
	my @rows = @{ sqlite3($file, "SELECT * FROM $table") };
	my %found = map { $_->{$key} => row_record($_, @documents) } @rows;

	is_deeply(schema($file, $table), schema('sqlite-clean', $table),
		"$file: $table has the library's columns and indexes");
	same_records(\%found, $clean_list->{$kind}, "$file: $table");
	is_deeply(
		[
			map { $_->{$key} }
			  grep { grep({ !is_python_json($_) } @$_{@documents}) } @rows
		],
		[],
		"$file: the JSON of $table is spelled as the library's");
	is_deeply(
		[ map { $_->{$key} } grep { !is_spelled_well($_) } map { +{ %$_, steps => [] } } @rows ],
		[], "$file: the times of $table sort as text");
	my @types = map { "'$_->{name}' || typeof($_->{name})" }
	  grep { $_->{name} ne 'retry_count' } @{ schema($file, $table)->{columns} };
	my $types = join ' UNION ', map { "SELECT $_ AS t FROM $table" } @types;
	is_deeply([ grep { $_->{t} !~ /(text|null)$/ } @{ sqlite3($file, $types) } ],
		[], "$file: all is text in $table");
}

for my $file ('first', 'last')
{
	test_file($file, $_) for qw(saga outbox);
	is_deeply(
		$json->decode(
			sqlite3($file,
				"SELECT context FROM sagas WHERE saga_id = 'typed-values'")
			  ->[0]{context})->{enum}{__type__},
		'enum',
		"$file: the typed object of an enum member is kept whole");
	is(sqlite3($file, 'PRAGMA integrity_check')->[0]{integrity_check},
		'ok', "$file: it is sound");
}

# ----------------------------------------------------------------------
# The library goes on in a file of sagaz; what it writes is written here

sub state_of
{
	my ($query) = @_;
	my ($status, $out, $err) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n$query");
	return $err =~ /ERROR:  (\w+): / ? $1 : $out;
}

my $shared = "sqlite://$files/first.db";
my $event = 'INSERT INTO outbox_events'
  . ' (event_id, saga_id, event_type, payload, status, created_at) VALUES';

command_ok([ 'sqlite3', "$files/first.db", $_ ], 'written as the library does')
  for "DELETE FROM outbox_events; $event"
  . " ('00000000-0000-4000-8000-00000000000a', 'lib', 'E', '[null]', 'pending', '2025-03-01T08:00:17+00:00'),"
  . " ('id', 'lib 2', 'E', '{}', 'pending', '2025-03-01T08:00:16.5+00:00'),"
  . " ('00000000-0000-4000-8000-00000000000b', 'lib 3', 'E', '{', 'pending', '2025-03-01T08:00:16+00:00')",
  q{UPDATE sagas SET status = 'odd' WHERE saga_id = 'upper'},
  q{UPDATE sagas SET steps = 'null', updated_at = '2030-01-01T00:00:00+00:00' WHERE saga_id = 'wide'};

is(state_of("SELECT event_id, aggregate_type, aggregate_id, headers, payload, retry_count FROM sagaz.claim_batch('w', storage => '$shared')"),
	'00000000-0000-4000-8000-00000000000a|saga|lib|{}|[null]|0',
	'of the events of the library those are claimed that a row can hold');
is(state_of("SELECT * FROM sagaz.get_events_by_saga('lib 2', storage => '$shared')"),
	'SZ003', 'a row needs a UUID');
is(state_of("SELECT * FROM sagaz.get_event('00000000-0000-4000-8000-00000000000b', storage => '$shared')"),
	'SZ003', 'and JSON');
is(state_of("SELECT sagaz.load_saga_state('upper', '$shared')->>'status'"),
	'odd', 'a word that is no status is loaded as it is');
is(state_of("SELECT count(*), count(*) FILTER (WHERE saga_id = 'upper') FROM sagaz.list_sagas(max_rows => 1000, storage => '$shared')"),
	(keys(%{ $clean_list->{saga} }) - 1) . '|0', 'and is left out of a list of the others');
is(state_of("SELECT sum(sagas) FROM sagaz.get_saga_statistics('$shared')"),
	scalar(keys %{ $clean_list->{saga} }) - 1, 'nor is it counted by status');
is(state_of("SELECT status, sent_at IS NOT NULL FROM sagaz.update_event_status('00000000-0000-4000-8000-00000000000a', 'sent', storage => '$shared')"),
	'sent|t', 'an event of the library is marked');
is(state_of("SELECT sagaz.save_saga_state('wide', 'W', 'completed', expected_version => 1, storage => '$shared')"),
	'SZ006', 'a saga that the library changed has another version');
is(state_of("SELECT sagaz.save_saga_state('wide', 'W', 'completed', expected_version => 2, storage => '$shared')"),
	'3', 'by one');

# ----------------------------------------------------------------------
# Imported events and claims

my @claimed = split / /,
  $session->query(
	"SELECT c.event_id FROM generate_series(1, 300),"
	  . " LATERAL sagaz.claim_batch('importer' || generate_series, 1000) c");
my %status = map { $_ => $clean_list->{outbox}{$_}{status} } keys %{ $clean_list->{outbox} };
my %got;
$got{ $status{$_} }{$_}++ for @claimed;
my @pending = grep { $status{$_} eq 'pending' } sort keys %status;

is_deeply([ sort keys %{ $got{pending} // {} } ], \@pending,
	'imported as pending is claimed');
is_deeply($got{sent}, undef, 'imported as sent never is');
is_deeply($got{dead_letter}, undef, 'nor is a dead letter');

$session->close;
$node->stop;
done_testing();
