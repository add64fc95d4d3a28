# Records that lack a time, and text that does not convert: what has no time reads
# as one instant, so that a transfer of it ends; what one database has no characters
# for, or what is no text at all, is refused as any bad record, and the rest goes.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use SagazTransfer qw(database_url);
use Test::More;

my $node = new_node('odd', conf => "fsync = off\ntimezone = 'UTC'\nsagaz.worker_naptime = '100ms'\n");
my $redis = SagazRedis->new->start;
my $dir = $node->basedir;
my %session;

sub database
{
	my ($name, $encoding) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name TEMPLATE template0 ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C'");
	return if $name =~ /^library/;
	$node->safe_psql($name, 'CREATE EXTENSION sagaz');
	$session{$name} = SagazSession->new($node, $name);
	$session{$name}->query("SET client_min_messages = error; SET client_encoding = 'UTF8'");
}

sub url
{
	return database_url($node, $_[0]);
}

# What a session in a database gets, or the SQLSTATE.
sub in_database
{
	my ($database, $query) = @_;
	return $session{$database}->outcome("$query;") =~ s/\n\z//r;
}

# Move, and say what has become of it.
sub moved
{
	my ($database, $call) = @_;
	my $outcome = in_database($database, "CALL $call");
	return $outcome =~ /^ERROR/ ? $outcome : newest($database);
}

sub newest
{
	my ($database) = @_;
	return in_database($database, 'SELECT state, total, transferred, skipped FROM sagaz.transfers ORDER BY transfer_id DESC LIMIT 1');
}

database(utf8 => 'UTF8');
database(latin1 => 'LATIN1');
database(ascii => 'SQL_ASCII');
database("library_$_->[0]" => $_->[1]) for [ utf8 => 'UTF8' ], [ latin1 => 'LATIN1' ], [ ascii => 'SQL_ASCII' ];
sub storage
{
	my ($database, $name, $url) = @_;
	is(in_database($database, "SELECT sagaz.create_storage('$name', '$url')"), '', "$database: storage $name");
}

sub fresh_file
{
	our $files;
	return "$dir/" . ++$files . '.db';
}

# ----------------------------------------------------------------------
# Times

my $undated = '1970-01-01T00:00:00+00:00';
my $file = fresh_file();

$redis->cli('HSET', 'saga:none', 'data', '{"saga_id": "none", "saga_name": "N", "status": "executing", "steps": [], "context": {}, "metadata": {}}');
$redis->cli('HSET', 'sagaz:outbox:meta:00000000-0000-4000-8000-000000000001', 'event_id', '00000000-0000-4000-8000-000000000001',
	'saga_id', 's', 'event_type', 'T', 'payload', '1', 'headers', '{}', 'status', 'pending', 'created_at', '');
storage('utf8', 'red', $redis->url);
storage('utf8', 'file', "sqlite://$file");
storage('utf8', 'lib', url('library_utf8'));
in_database('utf8', q{SELECT sagaz.save_saga_state('none', 'N', 'executing', storage => 'lib')});
$node->safe_psql('library_utf8', 'UPDATE sagas SET created_at = NULL, updated_at = NULL');
system('sqlite3', $file, <<'SQL') == 0 or die 'no sqlite3';
CREATE TABLE sagas (saga_id TEXT PRIMARY KEY, saga_name TEXT, status TEXT, steps TEXT, context TEXT, metadata TEXT, created_at TEXT, updated_at TEXT);
INSERT INTO sagas VALUES ('none', 'N', 'executing', '[]', '{}', '{}', NULL, NULL);
CREATE TABLE outbox_events (event_id TEXT PRIMARY KEY, saga_id TEXT, event_type TEXT, payload TEXT, status TEXT, created_at TEXT, claimed_at TEXT,
	sent_at TEXT, worker_id TEXT, retry_count INTEGER, last_error TEXT, aggregate_type TEXT, aggregate_id TEXT, headers TEXT, routing_key TEXT, partition_key TEXT);
INSERT INTO outbox_events (event_id, saga_id, event_type, payload, status) VALUES ('00000000-0000-4000-8000-000000000001', 's', 'T', '1', 'pending');
SQL
chmod 0666, $file;
for my $source (qw(red file lib))
{
	is(in_database('utf8', "SELECT r->>'created_at', r->>'updated_at' FROM sagaz.export_all('saga', '$source') r"),
		"$undated|$undated", "$source: a saga without times has one");
	is(in_database('utf8', "SELECT r->>'created_at' FROM sagaz.export_all('outbox', '$source') r"),
		$source eq 'lib' ? '' : $undated, "$source: an event, too");
	my $copy = fresh_file();
	storage('utf8', "${source}_copy", "sqlite://$copy");
	is(moved('utf8', "sagaz.migrate('$source', '${source}_copy')"),
		$source eq 'lib' ? 'completed|1|1|0' : 'completed|2|2|0', "$source: a migration of it ends")
	  or diag in_database('utf8', 'TABLE sagaz.transfers');
}
is(in_database('utf8', q{SELECT sagaz.import_record('{"saga_id": "new", "saga_name": "N", "status": "pending"}', 'saga');
	SELECT created_at > now() - interval '1 hour', created_at = updated_at FROM sagaz.sagas WHERE saga_id = 'new'; DELETE FROM sagaz.sagas}), "t\nt|t", 'but one that is imported is made now');

# ----------------------------------------------------------------------
# Text from outside

my $bad = fresh_file();
storage($_, 'bad', "sqlite://$bad") for qw(utf8 latin1 ascii);
in_database('utf8', q{SELECT count(sagaz.save_saga_state(s, s, 'executing', storage => 'bad')), count(sagaz.insert_event(s, 'T', to_jsonb(s), storage => 'bad'))
	FROM unnest('{日本, abc, été}'::text[]) s});

# A database that lacks characters, or has none.
for my $case ([ utf8 => 3 ], [ latin1 => 2 ], [ ascii => 3 ])
{
	my ($database, $fit) = @$case;
	my $refused = 3 - $fit;

	is(in_database($database, q{SELECT count(*) FROM sagaz.export_all('saga', 'bad')}), $fit, "$database: the others are exported");
	is(in_database($database, q{SELECT count(*) FROM sagaz.list_sagas(storage => 'bad')}), $fit, "$database: and listed");
	is(in_database($database, q{SELECT compatible, issues->0->>'code', issues->0->>'count', issues->0->>'message' FROM sagaz.validate_transfer('bad', 'native')}),
		$refused ? 'f|unreadable|1|saga_id has a character that LATIN1 does not have' : 't|||', "$database: validate_transfer finds it");
	is(moved($database, q{sagaz.transfer('bad', 'native', on_error => 'skip')}),
		sprintf('completed|6|%d|%d', 2 * $fit, 2 * $refused), "$database: a transfer moves the others");
	is(in_database($database, q{SELECT record_key, sqlstate FROM sagaz.transfer_error WHERE record_type = 'saga'}),
		$refused ? '%E6%97%A5%E6%9C%AC|SZ003' : '', "$database: and keeps what it refused");
	in_database($database, 'TRUNCATE sagaz.sagas, sagaz.saga_steps, sagaz.outbox, sagaz.outbox_batch, sagaz.outbox_receipt, sagaz.outbox_retry, sagaz.outbox_archive');
}
is(in_database('latin1', q{SELECT sagaz.load_saga_state('été', 'bad')->>'saga_name'}), 'été', 'latin1: what it has characters for is itself');
is(in_database('latin1', q{SELECT sagaz.checksum('saga', 'bad') = sagaz.checksum('saga', 'bad')}), 't', 'latin1: the others have a checksum');

# Room in the target, and a source without anything
$redis->cli('FLUSHALL');
in_database('utf8', 'SELECT sagaz.create_storage(\'small\', \'' . $redis->url . q{', options => '{"max_stream_length": "4"}')});
my $room = q{SELECT compatible, issues->0->>'code', issues->0->>'message' FROM sagaz.validate_transfer('bad', 'small', 'outbox')};
is(in_database('utf8', $room), 't||', 'room: there is some');
in_database('utf8', q{SELECT sagaz.insert_event('s', 'T', '1', storage => 'small'), sagaz.insert_event('s', 'T', '2', storage => 'small')});
is(in_database('utf8', $room), 't|room|target: it takes 4 events that wait, has 2, and the source has 3', 'room: too little, if these are others');
is(in_database('utf8', q{ALTER SERVER small OPTIONS (SET max_stream_length '2'); } . $room =~ s/issues->0/issues->1/gr), 'f|room|target: it takes 2 events that wait, has 2, and the source has 3', 'room: too little at any rate');
storage('utf8', 'nothing', 'sqlite://' . fresh_file());
in_database('utf8', q{SELECT sagaz.save_saga_state('s', 'N', 'pending', storage => 'nothing'), sagaz.delete_saga_state('s', 'nothing')});
is(in_database('utf8', q{SELECT compatible, issues->0->>'code', issues->0->>'severity' FROM sagaz.validate_transfer('nothing', 'native')}), 't|empty|warning', 'a source that holds nothing');

# ----------------------------------------------------------------------
# Another PostgreSQL that has other characters, or none

for my $case ([ utf8 => 3, undef ], [ latin1 => 2, 'it has a character that LATIN1 does not have' ], [ ascii => 3, undef ])
{
	my ($encoding, $fit, $why) = @$case;

	for my $layout ($encoding eq 'utf8' ? 'library' : qw(library sagaz))
	{
		my $name = "${layout}_$encoding";

		storage('utf8', $name, url($layout eq 'sagaz' ? $encoding : $name) . "?layout=$layout");
		is(in_database('utf8', "SELECT compatible, issues->0->>'message' FROM sagaz.validate_transfer('bad', '$name')"),
			$why ? "f|$why" : 't|', "to $name: validate_transfer finds what has no place");
		is(moved('utf8', "sagaz.transfer('bad', '$name', on_error => 'skip')"),
			sprintf('completed|6|%d|%d', 2 * $fit, 6 - 2 * $fit), "to $name: and the others are moved");
		is(in_database('utf8', "SELECT string_agg(r->>'saga_id', ' ' ORDER BY r->>'saga_id') FROM sagaz.export_all('saga', '$name') r WHERE r->>'saga_id' <> 'none'"),
			$fit == 3 ? 'abc été 日本' : 'abc été', "to $name: and read as they were");
	}
}

# One byte that is no text
$node->safe_psql('library_ascii', <<'SQL');
DROP TABLE sagas, saga_steps, saga_outbox, sagaz_saga, sagaz_event;
CREATE TABLE sagas (saga_id varchar(255) PRIMARY KEY, saga_name varchar(255) NOT NULL, status varchar(50) NOT NULL,
	context jsonb, metadata jsonb, created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now());
CREATE TABLE saga_steps (id serial PRIMARY KEY, saga_id varchar(255) REFERENCES sagas (saga_id) ON DELETE CASCADE, step_name varchar(255) NOT NULL,
	status varchar(50) NOT NULL, result jsonb, error text, executed_at timestamptz, compensated_at timestamptz, retry_count integer DEFAULT 0, UNIQUE (saga_id, step_name));
INSERT INTO sagas (saga_id, saga_name, status, created_at, updated_at)
	VALUES ('fine', 'N', 'executing', now(), now()), (E'bad\xff', 'N', 'executing', now(), now()), ('odd', E'\xfe', 'executing', now(), now());
SQL
storage('utf8', 'raw', url('library_ascii') . '?layout=library');
is(in_database('utf8', q{SELECT r->>'saga_id' FROM sagaz.export_all('saga', 'raw') r}), 'fine', 'library without an encoding: the others are exported');
is(moved('utf8', q{sagaz.transfer('raw', 'native', 'saga', on_error => 'skip')}), 'completed|3|1|2', 'library without an encoding: and moved');
is(in_database('utf8', q{SELECT string_agg(record_key || ': ' || message, ', ' ORDER BY record_key COLLATE "C") FROM sagaz.transfer_error
	WHERE transfer_id = (SELECT max(transfer_id) FROM sagaz.transfer)}),
	'bad%FF: saga_id is not UTF-8, odd: saga_name is not UTF-8', 'library without an encoding: and the refused are named');

# Bytes that are no text, from Redis and from a file
$redis->cli('FLUSHALL');
$redis->cli('HSET', "saga:bad\xff", 'data', '{"saga_id": "x", "saga_name": "N", "status": "executing", "steps": [], "context": {}, "metadata": {}}');
$redis->cli('HSET', 'saga:odd', 'data', qq({"saga_id": "odd", "saga_name": "\xfe", "status": "executing", "steps": [], "context": {}, "metadata": {}}));
in_database('utf8', q{SELECT sagaz.save_saga_state('fine', 'N', 'executing', storage => 'red')});
is(in_database('utf8', q{SELECT r->>'saga_id' FROM sagaz.export_all('saga', 'red') r}), 'fine', 'Redis: the others are exported');
is(moved('utf8', q{sagaz.transfer('red', 'native', 'saga', on_error => 'skip')}), 'completed|3|1|2', 'Redis: and moved');

# ----------------------------------------------------------------------
# Out of a database that has other characters, or none

for my $kind (qw(sqlite redis library))
{
	my $target = fresh_file();
	my %url = (sqlite => "sqlite://$target", redis => $redis->url, library => url('library_utf8') . '?layout=library');

	for my $database (qw(latin1 ascii))
	{
		$redis->cli('FLUSHALL');
		in_database($database, 'TRUNCATE sagaz.sagas, sagaz.saga_steps, sagaz.outbox, sagaz.outbox_batch, sagaz.outbox_receipt, sagaz.outbox_retry, sagaz.outbox_archive');
		storage($database, "out_$kind", $url{$kind});
		in_database($database, q{SELECT sagaz.save_saga_state('été', 'N', 'executing'), sagaz.insert_event('été', 'T', '"ü"')});
		in_database($database, q{SELECT sagaz.save_saga_state(E'\xff', 'N', 'executing')}) if $database eq 'ascii';
		is(moved($database, "sagaz.transfer('native', 'out_$kind', on_error => 'skip')"),
			$database eq 'ascii' ? 'completed|3|2|1' : 'completed|2|2|0', "from $database to $kind: what can go goes");
		is(in_database($database, q{SELECT sqlstate, message FROM sagaz.transfer_error WHERE transfer_id = (SELECT max(transfer_id) FROM sagaz.transfer)}),
			$database eq 'ascii' ? 'SZ003|it has a character that UTF8 does not have' : '', "from $database to $kind: what cannot is refused");
		is(in_database($database, "SELECT g.payload FROM sagaz.outbox_events AS e, sagaz.get_event(e.event_id, storage => 'out_$kind') AS g") , '"ü"', "from $database to $kind: as it was");
	}
	$node->safe_psql('library_utf8', 'DELETE FROM sagas; DELETE FROM saga_outbox');
}

# ----------------------------------------------------------------------
# A worker of such a database has no transaction while it talks

my $delivered = fresh_file();
storage('latin1', 'delivered', "sqlite://$delivered");
$session{latin1}->query(q{SELECT sagaz.create_consumer_group('g', start_from => 'now'); SELECT sagaz.create_delivery('d', 'delivered', 'g')});
$session{latin1}->query(q{SELECT sagaz.insert_event('ö', 'Sent', '"ß"')});
ok($node->poll_query_until('latin1', q{SELECT delivered = 1 FROM sagaz.stat_delivery}), 'latin1: a delivery to a file')
  or diag in_database('latin1', 'TABLE sagaz.stat_delivery');
is(in_database('latin1', q{SELECT saga_id, payload FROM sagaz.get_events_by_saga('ö', storage => 'delivered')}), 'ö|"ß"', 'latin1: as it was');

$_->close for values %session;
done_testing();
