# What two transfers do to each other, which storages are the same place, what a
# look leaves behind, what a migration sees of a source that changes under its
# hands, and an error that comes between two of its steps.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use SagazTransfer;
use Test::More;

my $places = SagazTransfer->new;
my ($node, $other, $files) = @$places{qw(node other files)};
my $redis = $places->{redis}{empty};
my $session = $places->{session}{empty};
my $last = '(SELECT max(transfer_id) FROM sagaz.transfer)';

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('empty', $query);
}

sub newest
{
	my ($columns) = @_;
	return sql("SELECT $columns FROM sagaz.transfers WHERE transfer_id = $last");
}

# The SQLSTATE that a statement ends with, nothing if it works.
sub state_of
{
	my ($statement) = @_;
	return $session->outcome("$statement;") =~ /^ERROR (\w+)/m ? $1 : '';
}

sub event
{
	my ($n) = @_;
	return sprintf '{"event_id": "%s", "saga_id": "s", "event_type": "E", "payload": %d, "status": "pending", "created_at": "2025-01-01T00:00:%02dZ"}',
	  event_id($n), $n, $n;
}

sub ids
{
	my ($storage) = @_;
	return $session->query("SELECT string_agg(ltrim(right(r->>'event_id', 12), '0'), ' ' ORDER BY r->>'event_id') FROM sagaz.export_all('outbox', '$storage') r");
}

# A call in the session that must wait for another session, which holds
# something; what it ends with.
sub while_held
{
	my ($hold, $call, $happens) = @_;
	my $holder = SagazSession->new($node, 'empty');

	$holder->query("BEGIN; $hold");
	$session->ask("$call;");
	$node->poll_query_until('empty', "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $session->{pid} AND NOT granted)")
	  or die 'it does not wait';
	$happens->() if $happens;
	$holder->query('COMMIT');
	$holder->close;
	return $session->answer =~ /^ERROR (\w+)/m ? $1 : '';
}

# ----------------------------------------------------------------------
# A record that another has just put

import_into($session, 'outbox', 'sqlite_filled', map { event($_) } 1 .. 3);
my $record = event(2);
is(while_held("SELECT sagaz.import_records('[$record]', 'outbox', 'replace', 'native')",
	q{CALL sagaz.transfer('sqlite_filled', 'native', batch_size => 1)}), '', 'another puts it: the transfer works');
is(newest('state, transferred, unchanged, failed'), 'completed|2|1|0', 'another puts it: and counts it right');
is(ids('native'), '1 2 3', 'another puts it: each is there once');
$places->clear('native', 'empty');

# ----------------------------------------------------------------------
# Places in one Redis database

my $url = $redis->url;
my %prefixes = (one => [ 'a:', 'b' ], two => [ 'a', ':b' ], three => [ 'a:', 'c' ], four => [ 'd:', 'b' ]);

for my $name (sort keys %prefixes)
{
	my ($sagas, $events) = @{ $prefixes{$name} };
	sql("SELECT sagaz.create_storage('$name', '$url'); ALTER SERVER $name OPTIONS (ADD saga_prefix '$sagas', ADD outbox_prefix '$events')");
}
is(state_of(q{CALL sagaz.transfer('one', 'two')}), '', 'two prefixes that only look alike in a row are two places');
for my $name (qw(three four))
{
	is(state_of("CALL sagaz.transfer('one', '$name')"), 'SZ009', "half of $name is the same place");
	is(state_of("CALL sagaz.transfer('$name', 'one', 'saga')"), $name eq 'three' ? 'SZ009' : '', "one to $name: sagas");
	is(state_of("CALL sagaz.transfer('$name', 'one', 'outbox')"), $name eq 'four' ? 'SZ009' : '', "one to $name: events");
	is(sql("SELECT issues->0->>'code' FROM sagaz.validate_transfer('one', '$name')"), 'same_storage', "one to $name: found out before");
}

# ----------------------------------------------------------------------
# Who only looks makes nothing

sub tables
{
	my ($database) = @_;
	return $other->safe_psql($database, q{SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
		WHERE relkind = 'r' AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)});
}

my $none = "$files/none.db";
my $compatible = q{SELECT compatible FROM sagaz.validate_transfer('%s', '%s')};
is($session->query(sprintf $compatible, 'sqlite_filled', "sqlite://$none"), 't', 'look: no file as yet');
is($session->query(sprintf $compatible, "sqlite://$none", 'sqlite_filled'), 'f', 'look: none to read from');
ok(!-e $none, 'look: none is made');
is(state_of("CALL sagaz.transfer('sqlite://$none', 'sqlite://$files/./none.db')"), 'SZ009', 'look: nor by any other name');
append_to_file($none, '');
is($session->query(sprintf $compatible, 'sqlite_filled', "sqlite://$none"), 't', 'look: an empty file');
is(-s $none, 0, 'look: stays empty');
unlink $none or die $!;
my $writer = SagazSession->new($node, 'empty');
$writer->query("SELECT sagaz.create_storage('fresh', 'sqlite://$none')");
is(state_of(q{SELECT sagaz.count_records('saga', 'fresh')}), 'SZ001', 'look: not there for this session');
$writer->query(q{SELECT sagaz.save_saga_state('x', 'X', 'pending', storage => 'fresh')});
is($session->query(q{SELECT sagaz.count_records('saga', 'fresh')}), '1', 'look: when another has made it, it is seen');
is($session->query(q{SELECT sagaz.save_saga_state('y', 'Y', 'pending', storage => 'fresh') IS NOT NULL}), 't', 'look: and written to');
is($writer->query(q{SELECT sagaz.count_records('saga', 'fresh')}), '2', 'look: by both');
$writer->close;

# The library's tables, without ours beside them
$other->safe_psql('postgres', 'CREATE DATABASE plain');
$other->safe_psql('plain', slurp_file('test/data/pg-clean.sql'));
my $before = tables('plain');
my $plain = database_url($other, 'plain');
like($before, qr/^(?!.*sagaz).*saga_outbox/, 'look: tables of the library');
is($session->query(sprintf $compatible, 'sqlite_filled', $plain), 't', 'look: to write to');
is($session->query(sprintf $compatible, $plain, 'sqlite_filled'), 't', 'look: to read from');
is(tables('plain'), $before, 'look: stay alone');
$other->safe_psql('plain', 'CREATE ROLE guest LOGIN; GRANT USAGE ON SCHEMA public TO guest; GRANT ALL ON ALL TABLES IN SCHEMA public TO guest');
is($session->query(sprintf q{SELECT issues->0->>'code' FROM sagaz.validate_transfer('sqlite_filled', '%s')}, database_url($other, 'plain', 'guest')), 'privilege', 'look: who may not make ours');

# ----------------------------------------------------------------------
# A source in which one comes and another goes

# One that the target refuses ends the migration when the others are copied.
my $long = 'x' x 300;

import_into($session, 'outbox', 'native', (map { event($_) } 1 .. 3), event(4) =~ s/"E"/"$long"/r);
is($session->query(q{SELECT count(*) FROM sagaz.claim_batch('w', 1) c, sagaz.finish_batch(c.batch_id, 'w')}), '1', 'gone: one is sent');
is(state_of(q{CALL sagaz.migrate('native', 'library_empty', batch_size => 1)}), 'SZ004', 'gone: one is refused');
my $id = newest('transfer_id');
is(newest('state, transferred') . ' ' . ids('library_empty'), 'failed|3 1 2 3', 'gone: the others are there');
sql(q{DELETE FROM sagaz.outbox WHERE event_type <> 'E' OR payload = '3'});

# Then the first is read in the log and again in the archive: as many as before.
sql(q{CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
	CREATE TRIGGER wait BEFORE UPDATE ON sagaz.transfer FOR EACH ROW
		WHEN (NEW.state = 'running' AND NEW.current_type = 'outbox' AND NEW.processed = 1) EXECUTE FUNCTION public.wait()});
is(while_held('SELECT pg_advisory_xact_lock(1)', "CALL sagaz.resume_transfer($id)",
	sub { is(sql(q{SELECT sagaz.archive_sent_events('0')}), '1', 'gone: the sent one moves meanwhile') }), '', 'gone: the migration goes on');
is(newest("state, removed, transfer_id = $id"), 'completed|1|t', 'gone: what has gone from the source is seen');
is(ids('library_empty'), '1 2', 'gone: and goes from the target');
sql('DROP FUNCTION public.wait CASCADE');

# ----------------------------------------------------------------------
# An error between two steps

$places->clear($_, 'empty', $session) for qw(native library);
import_into($session, 'outbox', 'native', map { event($_) } 1 .. 3);
sql(q{CREATE FUNCTION public.hide() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN ALTER TABLE sagaz.transfer_record RENAME TO hidden; RETURN NEW; END';
	CREATE TRIGGER hide BEFORE UPDATE ON sagaz.transfer FOR EACH ROW
		WHEN (NEW.state = 'running' AND NEW.current_type = 'outbox' AND OLD.processed < NEW.processed) EXECUTE FUNCTION public.hide()});
is(state_of(q{CALL sagaz.migrate('native', 'library_empty')}), 'SZ004', 'between: the table of what was copied goes away');
$id = newest('transfer_id');
is(newest(q{state, transferred, error LIKE '%"sagaz.transfer_record" does not exist', finished_at IS NOT NULL}), 'failed|3|t|t', 'between: it is written down at once');
is(state_of("SELECT sagaz.cancel_transfer($id)"), '', 'between: the session works');
is(state_of("CALL sagaz.resume_transfer($id)"), 'SZ004', 'between: it fails again');
sql('DROP FUNCTION public.hide CASCADE; ALTER TABLE sagaz.hidden RENAME TO transfer_record');
is(state_of("CALL sagaz.resume_transfer($id)"), '', 'between: it goes on');
is(newest("state, transfer_id = $id") . ' ' . ids('library_empty'), 'completed|t 1 2 3', 'between: to the end');

$session->close;
done_testing();
