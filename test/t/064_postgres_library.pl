# The Python library's tables in another PostgreSQL: made as the library makes
# them, shared with the library, and with others who write at the same time.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazSession;
use SagazTest;
use Test::More;

my $node = new_node('near', conf => "fsync = off\ntimezone = 'UTC'\nsagaz.retry_backoff = '1h'");
plan skip_all => 'built without the PostgreSQL backend'
  if $node->safe_psql('postgres', q{SELECT count(*) FROM sagaz.backends() WHERE name = 'postgresql'}) eq '0';
my $other = new_node('far', conf => "fsync = off\ntimezone = 'Asia/Tokyo'");

$other->safe_psql('postgres', "CREATE DATABASE $_") for qw(written made foreign_tables);
command_ok(
	[
		'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('made'),
		'-o', '/dev/null', '-f', 'test/data/pg-clean.sql'
	],
	'the tables of the library are loaded');

sub url
{
	my ($database, $user) = @_;

	return sprintf 'postgresql://%s@%s:%d/%s', $user // '',
	  $other->host =~ s{/}{%2F}gr, $other->port, $database;
}

$node->safe_psql('postgres', sprintf q{SELECT sagaz.create_storage('s', '%s')}, url('written'));
my $session = SagazSession->new($node, 'postgres');

# Rows, or the SQLSTATE, of a statement here; what the library does there.
sub here
{
	return $session->outcome("$_[0];") =~ s/\n\z//r;
}

sub there
{
	return $other->safe_psql('written', $_[0]);
}

# ----------------------------------------------------------------------
# The tables

is(here(q{SELECT sagaz.count_records('saga', 's'), sagaz.load_saga_state('a', 's') IS NULL,
	(SELECT count(*) FROM sagaz.claim_batch('w', storage => 's'))}), '0|t|0', 'an empty database');
is(there(q{SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace}), '0',
	'is left as it is by who only reads');

is(here(q{SELECT sagaz.save_saga_state('a', 'A', 'executing',
	'[{"name": "one", "note": "kept"}, {"name": "two"}]', storage => 's')}), '1', 'a saga is saved');
for my $query (
	q{SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default
		FROM information_schema.columns WHERE table_name IN ('sagas', 'saga_steps', 'saga_outbox')
		ORDER BY table_name, ordinal_position},
	q{SELECT indexdef FROM pg_indexes WHERE tablename IN ('sagas', 'saga_steps', 'saga_outbox') ORDER BY 1},
	q{SELECT conrelid::regclass::text, contype, conname FROM pg_constraint
		WHERE conrelid::regclass::text IN ('sagas', 'saga_steps', 'saga_outbox') ORDER BY 1, 2, 3})
{
	is(there($query), $other->safe_psql('made', $query), 'the tables are as the library makes them');
}

$other->safe_psql('foreign_tables', 'CREATE TABLE sagas (id integer)');
is(here(sprintf q{SELECT sagaz.count_records('saga', '%s')}, url('foreign_tables')), 'ERROR SZ000',
	'other tables of that name are refused');

# ----------------------------------------------------------------------
# Who may only read

$other->safe_psql('made', q{CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader});
my $reader = url('made', 'reader');
cmp_ok(here("SELECT sagaz.count_records('saga', '$reader')"), '>', 5, 'who may read reads');
is(here("SELECT sagaz.save_saga_state('x', 'X', 'pending', storage => '$reader')"), 'ERROR 42501',
	'and writes nothing');

# ----------------------------------------------------------------------
# The library changes a saga

is(here(q{SELECT s->'version', s->'steps'->0->'note' FROM sagaz.load_saga_state('a', 's') s}), '1|"kept"',
	'a key of a step that the library has no column for');
there(q{UPDATE saga_steps SET status = 'completed', result = '1.0' WHERE step_name = 'two'});
is(here(q{SELECT s->'version', s->'steps'->0->'note', s->'steps'->1->'status' FROM sagaz.load_saga_state('a', 's') s}),
	'1||"completed"', 'steps that the library wrote are the steps');
there(q{UPDATE sagas SET status = 'compensating', updated_at = now() WHERE saga_id = 'a'});
is(here(q{SELECT s->'version', s->'status' FROM sagaz.load_saga_state('a', 's') s}), '2|"compensating"',
	'a saga that the library saved has another version');
is(here(q{SELECT sagaz.save_saga_state('a', 'A', 'failed', expected_version => 1, storage => 's')}), 'ERROR SZ006',
	'so that nobody saves over it unseen');
is(here(q{SELECT sagaz.save_saga_state('a', 'A', 'failed', expected_version => 2, storage => 's')}), '3', 'but who knows it');
there(q{DELETE FROM sagas; INSERT INTO sagas VALUES ('a', 'New', 'pending', NULL, NULL)});
is(here(q{SELECT s->'version', s->'context', s->'steps' FROM sagaz.load_saga_state('a', 's') s}), '1|{}|[]',
	'one that the library deleted and made anew is new');

# ----------------------------------------------------------------------
# The library changes an event

sub id
{
	return sprintf '00000000-0000-4000-8000-%012d', $_[0];
}

sub status
{
	return here(sprintf q{SELECT status, retry_count, worker_id FROM sagaz.get_event('%s', storage => 's')}, id($_[0]));
}

my $library_claims = q{UPDATE saga_outbox SET status = 'claimed', worker_id = 'w', claimed_at = now()};
my $library_releases = q{UPDATE saga_outbox SET status = 'pending', worker_id = NULL, claimed_at = NULL};

here(sprintf q{SELECT sagaz.insert_event('s', 'E', '1', event_id => '%s', routing_key => 'r', storage => 's')}, id(1));
my $batch = here(q{SELECT batch_id FROM sagaz.claim_batch('w', storage => 's')});
like($batch, qr/^\d+\z/, 'an event is claimed');
there("$library_releases; $library_claims");
is(here("SELECT sagaz.finish_batch($batch, 'w', 's')"), 'ERROR SZ006',
	'what the library took over is in no batch, though its worker has the same name');
is(status(1), 'claimed|0|w', 'and stays claimed');
there($library_releases);
$batch = here(q{SELECT batch_id FROM sagaz.claim_batch('w', storage => 's')});
here(sprintf q{SELECT sagaz.mark_failed('{%s}', 'w', 'no', storage => 's')}, id(1));
is(here(q{SELECT count(*) FROM sagaz.claim_batch('w', storage => 's')}), '0', 'a retry waits');
there($library_releases);
is(here(q{SELECT retry_count, routing_key FROM sagaz.claim_batch('w', storage => 's')}), '1|r',
	'unless the library says: now');
there(q{UPDATE saga_outbox SET claimed_at = NULL});
is(here(q{SELECT count(*) FROM sagaz.claim_batch('w', storage => 's')}), '1', 'a claim without a time is none');
there(q{UPDATE saga_outbox SET status = 'sent', sent_at = now()});

# ----------------------------------------------------------------------
# Others write at the same time

# A statement of ours waits for what a transaction there has locked.
sub while_locked
{
	my ($by, $ours, $wanted, $what) = @_;
	my $writer = SagazSession->new($other, 'written');

	$writer->query("BEGIN; $by");
	$session->ask("$ours;");
	$other->poll_query_until('written',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'sagaz' AND wait_event_type = 'Lock'})
	  or die 'nobody waits';
	$writer->query('COMMIT');
	is($session->answer, "$wanted\n", $what);
	$writer->close;
}

here(q{SELECT sagaz.save_saga_state('race', 'R', 'executing', storage => 's')});
while_locked(
	q{UPDATE sagas SET status = 'completed', updated_at = '2030-01-01Z' WHERE saga_id = 'race';
		UPDATE sagaz_saga SET version = 7, updated_at = '2030-01-01Z' WHERE saga_id = 'race'},
	q{SELECT sagaz.save_saga_state('race', 'R', 'failed', storage => 's')},
	'8', 'a saga is edited as it is when the lock is there');
while_locked(
	q{INSERT INTO sagas VALUES ('fresh', 'F', 'pending', '{}', '{}')},
	q{SELECT sagaz.save_saga_state('fresh', 'F', 'failed', expected_version => 0, storage => 's')},
	'ERROR SZ006', 'of two who make a saga one is first');
while_locked(
	sprintf(q{INSERT INTO saga_outbox (event_id, saga_id, aggregate_id, event_type, payload) VALUES ('%s', 'theirs', 's', 'E', '1')}, id(2)),
	sprintf(q{SELECT sagaz.import_records('[{"event_id": "%s", "saga_id": "ours", "event_type": "E", "payload": 1, "status": "pending"},
		{"event_id": "%s", "saga_id": "ours", "event_type": "E", "payload": 1, "status": "pending"}]', 'outbox', 'skip', 's')}, id(2), id(3)),
	'1', 'of two who put an event one is first');
is(here(q{SELECT string_agg(e->>'saga_id', ' ' ORDER BY e->>'event_id') FROM sagaz.export_all('outbox', 's') e WHERE e->>'status' = 'pending'}),
	'theirs ours', 'and the other leaves it as it is');
while_locked(
	sprintf(q{INSERT INTO saga_outbox (event_id, saga_id, aggregate_id, event_type, payload) VALUES ('%s', 'theirs', 's', 'E', '1')}, id(4)),
	sprintf(q{SELECT sagaz.insert_event('ours', 'E', '1', event_id => '%s', storage => 's')}, id(4)),
	'ERROR 23505', 'or has the error');

my $writer = SagazSession->new($other, 'written');
$writer->query(sprintf q{BEGIN; UPDATE saga_outbox SET worker_id = NULL WHERE event_id = '%s'}, id(3));
is(here(q{SELECT string_agg(event_id::text, ' ' ORDER BY event_id) FROM sagaz.claim_batch('w', storage => 's')}),
	join(' ', id(2), id(4)), 'a claim does not wait for an event that somebody has locked');
$writer->query('COMMIT');
is(here(q{SELECT event_id FROM sagaz.claim_batch('w', storage => 's')}), id(3), 'and has it later');
$writer->close;

# All or nothing: the second record of three is refused, after the first was fine
is(here(sprintf q{SELECT sagaz.import_records('[{"event_id": "%s", "saga_id": "s", "event_type": "E", "payload": 1, "status": "pending"},
	{"event_id": "%s", "saga_id": "%s", "event_type": "E", "payload": 1, "status": "pending"}]', 'outbox', 'replace', 's')}, id(5), id(6), 'x' x 256),
	'ERROR SZ003', 'what is too long is refused');
is(there(sprintf q{SELECT count(*) FROM saga_outbox WHERE event_id IN ('%s', '%s')}, id(5), id(6)), '0', 'and all with it');
# ----------------------------------------------------------------------
# The side tables

sub event
{
	my ($number, $saga, $type) = @_;

	return sprintf '{"event_id": "%s", "saga_id": "%s", "event_type": "%s", "payload": 1, "status": "pending", "created_at": "2025-01-01T00:00:00Z"}',
	  id($number), $saga, $type;
}

sub saga
{
	my ($id, $steps) = @_;

	return sprintf '{"saga_id": "%s", "saga_name": "S", "status": "pending", "steps": [%s], "created_at": "2025-01-01T00:00:00Z", "updated_at": "2025-01-01T00:00:00Z"}',
	  $id, $steps;
}

sub import_there
{
	my ($type, $mode, @records) = @_;

	return here(sprintf q{SELECT sagaz.import_records('[%s]', '%s', '%s', 's')}, join(', ', @records), $type, $mode);
}

there(sprintf q{INSERT INTO sagaz_event (event_id, created_at, status, routing_key) VALUES ('%s', '2025-01-01Z', 'pending', 'old');
	INSERT INTO sagaz_saga (saga_id, created_at, updated_at, version) VALUES ('left', '2025-01-01Z', '2025-01-01Z', 9)}, id(7));
is(import_there('outbox', 'skip', event(7, 's', 'E'), event(8, 's', 'E')), '2', 'events are put whose key is known beside the table alone');
is(here(sprintf q{SELECT routing_key IS NULL FROM sagaz.get_event('%s', storage => 's')}, id(7)), 't', 'and have nothing of who had it before');
is(import_there('saga', 'skip', saga('left', ''), saga('more', '{"name": "a", "status": "completed", "executed_at": "2025-01-01T09:00:00+09:00", "retry_count": 1.0}, {"name": "b", "note": "kept"}')),
	'2', 'and so are sagas');
is(here(q{SELECT s->'version' FROM sagaz.load_saga_state('left', 's') s}), '1', 'with nothing of their kind before');
is(there(q{SELECT string_agg(saga_id, ' ') FROM sagaz_saga WHERE saga_id IN ('left', 'more')}), 'more', 'a row beside the table is for what has no place in it');
is(there(q{SELECT string_agg(concat_ws(' ', step_name, status, executed_at AT TIME ZONE 'UTC', retry_count), ', ' ORDER BY id) FROM saga_steps WHERE saga_id = 'more'}),
	'a completed 2025-01-01 00:00:00 1, b pending 0', 'steps are numbered in their order');
is(import_there('saga', 'skip', saga('left', ''), saga('more', ''), saga('new', '')), '1', 'what is there stays, and the rest is put');
is(import_there('saga', 'error', saga('newer', ''), saga('more', '')), 'ERROR 23505', 'what is there is in the way of what must be new');
is(there(q{SELECT count(*) FROM sagas WHERE saga_id = 'newer'}), '0', 'and of all with it');

# Many, so that they go in parts
is(import_there('outbox', 'skip', map { event($_, 'many', 'E') } 100 .. 330), '231', 'as many as there are');
is(import_there('outbox', 'skip', map { event($_, 'many', 'E') } 100 .. 331), '1', 'and once');

# Somebody's own constraint is no race that one could lose
there(q{CREATE UNIQUE INDEX ON saga_outbox (event_type) WHERE saga_id = 'unique'});
is(import_there('outbox', 'skip', event(9, 'unique', 'E'), event(10, 'unique', 'E')), 'ERROR 23505', 'a constraint that is not the key');
is(there(q{SELECT count(*) FROM saga_outbox WHERE saga_id = 'unique'}), '0', 'lets nothing in');

is(there(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sagaz' AND state LIKE 'idle in transaction%'}), '0',
	'no transaction stays open');

$session->close;
$other->stop;
$node->stop;
done_testing();
