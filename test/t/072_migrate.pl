# CALL sagaz.migrate() while others write to the source, and the switch to the
# target.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use SagazSession;
use SagazTest;
use SagazTransfer;
use Test::More;

my $seed = $ENV{SAGAZ_SEED} // time;
diag("seed $seed");

my $places = SagazTransfer->new;
my ($node, $other, $files) = @$places{qw(node other files)};
my %session = %{ $places->{session} };

# A writer's work: sagas come, change and go, events come and, by the first one,
# are sent, fail, and stay claimed.  Each round is a transaction, and writes down what it did.
$node->safe_psql($_, <<'SQL') for qw(filled empty);
CREATE TABLE worked (what text, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE delivered (event_id uuid, by text);
CREATE PROCEDURE work(name text, storage text, rounds integer, seed double precision) LANGUAGE plpgsql AS $$
DECLARE
	ids uuid[];
	batch bigint;
	choice double precision;
	id text;
BEGIN
	PERFORM setseed(seed);
	FOR i IN 1 .. rounds LOOP
		choice := random();
		id := name || floor(random() * 40);
		IF choice < 0.35 THEN
			PERFORM sagaz.save_saga_state(id, 'W', (ARRAY['executing', 'completed', 'failed'])[1 + floor(random() * 3)::integer],
				jsonb_build_array(jsonb_build_object('name', 'a', 'status', 'completed', 'result', i), jsonb_build_object('name', 'b', 'note', i)),
				jsonb_build_object('n', random()), storage => storage);
		ELSIF choice < 0.5 THEN
			PERFORM sagaz.delete_saga_state(CASE WHEN i % 2 = 0 THEN id ELSE 'old' || 1 + floor(random() * 200) END, storage);
		ELSIF choice < 0.8 THEN
			PERFORM sagaz.insert_event(id, 'E', jsonb_build_object('n', i), storage => storage);
		ELSIF name = 'w1' THEN
			SELECT max(c.batch_id), array_agg(c.event_id) INTO batch, ids FROM sagaz.claim_batch(name, 3, storage => storage) AS c;
			IF batch IS NULL THEN
				NULL;
			ELSIF choice < 0.92 THEN
				PERFORM sagaz.finish_batch(batch, name, storage);
			ELSIF choice < 0.97 THEN
				PERFORM sagaz.mark_failed(ids, name, 'bad', storage => storage);
			END IF;
		END IF;
		INSERT INTO public.worked VALUES (name);
		COMMIT;
	END LOOP;
END $$;
-- Claim and finish until nothing is left, or the storage is closed.
CREATE PROCEDURE deliver(by text, storage text, patience integer) LANGUAGE plpgsql AS $$
DECLARE
	batch bigint;
	waits integer := 0;
BEGIN
	WHILE patience > 0 LOOP
		-- those before a switch leave some to those after it
		IF by LIKE 'before%' AND waits < 6000 AND (SELECT count(*) > 340 FROM public.delivered) AND EXISTS (
			SELECT FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
			WHERE d.datname = current_database() AND 'sagaz.outbox_storage=' || storage = ANY (s.setconfig))
		THEN
			waits := waits + 1;
			PERFORM pg_sleep(0.005);
			COMMIT;
			CONTINUE;
		END IF;
		WITH claimed AS (SELECT * FROM sagaz.claim_batch(by, 3, storage => storage)),
			noted AS (INSERT INTO public.delivered SELECT c.event_id, by FROM claimed AS c)
			SELECT max(c.batch_id) INTO batch FROM claimed AS c;
		IF batch IS NULL THEN
			PERFORM pg_sleep(0.005);
			patience := patience - 1;
		ELSE
			PERFORM pg_sleep(0.02);
			PERFORM sagaz.finish_batch(batch, by, storage);
		END IF;
		COMMIT;
	END LOOP;
END $$;
SQL

sub start
{
	my ($database, $call) = @_;
	my $job = { out => '', err => '' };

	$job->{psql} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr($database), '-c', $call ],
		'<', \undef, '>', \$job->{out}, '2>', \$job->{err});
	return $job;
}

sub finish
{
	my ($job) = @_;

	IPC::Run::finish($job->{psql});
	return $job->{err};
}

sub newest
{
	my ($database, $columns) = @_;
	return $node->safe_psql($database, "SELECT $columns FROM sagaz.transfers ORDER BY transfer_id DESC LIMIT 1");
}

# Records of one that the other has not, digits of numbers included.
sub lacking
{
	my ($session, $type, $one, $two, $besides) = @_;

	return $session->query("SELECT count(*) FROM (SELECT r::text FROM sagaz.export_all('$type', '$one') AS r WHERE r->>'saga_id' <> '$besides'
		EXCEPT SELECT r::text FROM sagaz.export_all('$type', '$two') AS r) AS x");
}

sub fill
{
	my ($session, $storage, $count) = @_;

	$session->query("SELECT sagaz.import_records((SELECT jsonb_agg(jsonb_build_object('saga_id', 'old' || n, 'saga_name', 'M', 'status', 'pending',
		'steps', '[]'::jsonb, 'context', jsonb_build_object('n', n), 'created_at', '2025-01-01T00:00:00Z'::timestamptz)) FROM generate_series(1, $count) n), 'saga', 'replace', '$storage')");
	$session->query("SELECT sagaz.import_records((SELECT jsonb_agg(jsonb_build_object('event_id', '00000000-0000-4000-8000-' || lpad(n::text, 12, '0'),
		'saga_id', 'old' || n % 10, 'event_type', 'E', 'payload', n, 'status', 'pending', 'created_at', '2025-01-01T00:00:00Z'::timestamptz + n * interval '1 s'))
		FROM generate_series(1, $count) n), 'outbox', 'replace', '$storage')");
}

# ----------------------------------------------------------------------
# While others write

my $theirs = event_id(77_000);
my $mine = event_id(88_000);

sub empty_both
{
	my ($from, $to, $session) = @_;

	$places->clear($from, 'filled', $session);
	$places->clear($to, 'empty', $session);
}

# What the target alone has.
sub fill_target
{
	my ($session, $target) = @_;

	import_into($session, 'saga', $target, '{"saga_id": "mine", "saga_name": "M", "status": "pending", "steps": [{"name": "s"}], "context": {"mine": 1.0}, "created_at": "2025-01-01T00:00:00Z"}');
	import_into($session, 'outbox', $target, qq({"event_id": "$mine", "saga_id": "mine", "event_type": "T", "payload": 1, "status": "dead_letter"}));
	return map { $session->query("SELECT sagaz.checksum('$_', '$target')") } qw(saga outbox);
}

my $removed = 0;

# A migration, and three who write into the source until it has nearly ended.
sub write_and_migrate
{
	my ($database, $source, $target, $rounds) = @_;

	$node->safe_psql($database, 'TRUNCATE worked');
	my @jobs = map { start($database, "CALL work('w$_', '$source', $rounds, @{[($seed + $_) % 1000 / 1000]})") } 1 .. 3;
	$node->poll_query_until($database, 'SELECT count(*) > 20 FROM worked') or die 'nobody writes';
	push @jobs, start($database, "CALL sagaz.migrate('$source', '$target', batch_size => 20)");
	return map { finish($_) } @jobs;
}

sub migrate_while_written
{
	my ($from, $to) = @_;
	my $database = $from eq 'native' ? 'filled' : 'empty';
	my $session = $session{$database};
	my @names = (SagazTransfer::name($from, 'filled'), SagazTransfer::name($to, 'empty'));
	my $name = join ' to ', @names;
	my $rounds = $from =~ /native|redis/ ? 1000 : 200;
	my ($source, $target, @mine, @errors);

	for my $attempt (1 .. 5)
	{
		empty_both($from, $to, $session);
		# what went to a new place has a new name in this session only
		($source, $target) = map { /sqlite|memory/ ? $session->query("SELECT 'sqlite://' || option_value FROM pg_foreign_server, pg_options_to_table(srvoptions)
			WHERE srvname = '$_' AND option_name = 'path'") : $_ } @names;
		fill($session, $source, 200);
		fill_target($session, $target);
		@mine = $session->query("SELECT (SELECT r FROM sagaz.export_all('saga', '$target') r WHERE r->>'saga_id' = 'mine'), (SELECT r FROM sagaz.export_all('outbox', '$target') r WHERE r->>'event_id' = '$mine')");
		@errors = write_and_migrate($database, $source, $target, $rounds);
		last if $node->safe_psql($database, 'SELECT (SELECT finished_at FROM sagaz.transfer ORDER BY transfer_id DESC LIMIT 1) > (SELECT max(at) FROM worked)') eq 't';
		note "$name: it ended in a moment when nobody wrote, attempt $attempt";
	}
	is("@errors", '   ', "$name: all end, who write meanwhile and it");
	is(newest($database, 'operation, state, pass >= 2, failed + skipped'), 'migrate|completed|t|0', "$name: after more than one pass");
	$removed += newest($database, 'removed');
	for my $type (qw(saga outbox))
	{
		is(lacking($session, $type, $source, $target, ''), 0, "$name: all is there: $type");
		# in Redis what is finished may have expired, and stays in the target
		my $key = $type eq 'saga' ? 'saga_id' : 'event_id';
		my $more = "FROM sagaz.export_all('$type', '$target') r WHERE r->>'$key' NOT IN (SELECT s->>'$key' FROM sagaz.export_all('$type', '$source') s)";
		my $followed = $from eq 'redis' ? "r->>'status' <> 'completed'" : 'true';
		is($session->query("SELECT count(*) $more AND ($followed OR r->>'saga_id' = 'mine')"), 1, "$name: and no more than that: $type");
		is(newest($database, "verification->'$type'->'missing', verification->'$type'->'different', verification->'$type'->'only_in_target'"),
			'0|0|' . $session->query("SELECT count(*) $more"), "$name: which it says: $type");
	}
	is($session->query("SELECT (SELECT r FROM sagaz.export_all('saga', '$target') r WHERE r->>'saga_id' = 'mine'), (SELECT r FROM sagaz.export_all('outbox', '$target') r WHERE r->>'event_id' = '$mine')"),
		$mine[0], "$name: what only the target has is left alone");
	is($node->safe_psql($database, 'SELECT count(*) FROM sagaz.transfer_record'), 0, "$name: nothing of it stays");
}

migrate_while_written(@$_) for ([qw(redis native)], [qw(native redis)], [qw(sqlite library)], [qw(library sagaz)], [qw(sagaz sqlite)]);
cmp_ok($removed, '>', 10, 'some were moved, and had gone away later');

# ----------------------------------------------------------------------
# What has gone away, at a given moment

my $redis = $places->{redis}{filled};

# A migration, and what happens when it has come so far.
sub meanwhile
{
	my ($database, $call, $condition, $happens) = @_;
	my $before = $node->safe_psql($database, 'SELECT coalesce(max(transfer_id), 0) FROM sagaz.transfer');
	my $job = start($database, $call);

	$node->poll_query_until($database, "SELECT $condition FROM sagaz.transfers WHERE transfer_id > $before") or die 'it does not run';
	$happens->();
	return finish($job);
}

# While the migration waits to write its row, which says so.
sub while_it_waits
{
	my ($database, $condition, $happens) = @_;
	my $holder = SagazSession->new($node, $database);

	$holder->query('BEGIN');
	$holder->query('LOCK TABLE sagaz.transfer IN SHARE MODE');
	is($node->safe_psql($database, "SELECT $condition FROM sagaz.transfers ORDER BY transfer_id DESC LIMIT 1"), 't', "it waits: $condition");
	$happens->();
	$holder->query('COMMIT');
	$holder->close;
}

$places->clear('redis', 'filled');
$places->clear('native', 'empty');
fill($session{empty}, 'redis_filled', 2000);
my ($gone) = map { event_id($_) } 7;
is(meanwhile('empty', q{CALL sagaz.migrate('redis_filled', 'native', batch_size => 1)}, q{current_type = 'outbox' AND transferred > 2010}, sub {
	while_it_waits('empty', q{state = 'running' AND current_type = 'outbox' AND pass = 1}, sub {
		$session{empty}->query(q{SELECT sagaz.delete_saga_state('old3', 'redis_filled')});
		$redis->cli('DEL', "sagaz:outbox:meta:$gone");
	});
}), '', 'gone: it ends');
is(newest('empty', 'state, removed, pass'), 'completed|1|3', 'gone: a saga has gone away');
is($node->safe_psql('empty', qq{SELECT (SELECT count(*) FROM sagaz.sagas WHERE saga_id = 'old3'), (SELECT status FROM sagaz.get_event('$gone'))}), '0|pending',
	'gone: from the target, too; an event may have expired, and stays');

# ----------------------------------------------------------------------
# Ended and resumed

$places->clear('native', 'empty');
like(meanwhile('empty', q{CALL sagaz.migrate('redis_filled', 'native', batch_size => 1)}, 'transferred > 250', sub {
	$node->safe_psql('empty', 'SELECT sagaz.cancel_transfer(max(transfer_id)) FROM sagaz.transfer');
}), qr/ERROR:  57014/, 'resumed: cancelled first');
my $id = newest('empty', 'transfer_id');
$session{empty}->query(q{SELECT sagaz.delete_saga_state('old' || n, 'redis_filled') FROM generate_series(1, 500) n WHERE n % 50 = 4});
is($session{empty}->outcome("CALL sagaz.resume_transfer($id);"), '', 'resumed: then it goes on');
is(newest('empty', "state, transfer_id = $id"), 'completed|t', 'resumed: to the end');
for my $type (qw(saga outbox))
{
	is(lacking($session{empty}, $type, 'redis_filled', 'native', ''), 0, "resumed: all is there: $type");
	is(lacking($session{empty}, $type, 'native', 'redis_filled', ''), 0, "resumed: and no more: $type");
}

# ----------------------------------------------------------------------
# Switching

like($session{empty}->outcome(sprintf q{CALL sagaz.migrate('%s', '%s', switch => true);}, $places->{redis}{filled}->url, 'native'), qr/ERROR SZ009/,
	'switch: not with a URL');
like($session{empty}->outcome(q{CALL sagaz.migrate('redis_filled', 'native', switch => NULL);}), qr/ERROR SZ009/, 'switch: yes or no');

# Workers deliver from the source until it is closed, the target is the default
# then, and workers deliver from there what is left.
sub switch_storages
{
	my ($from, $to) = @_;
	my $database = $from eq 'native' ? 'filled' : 'empty';
	my ($source, $target) = (SagazTransfer::name($from, 'filled'), SagazTransfer::name($to, 'empty'));
	my $name = "switch from $source to $target";

	empty_both($from, $to, $session{$database});
	$node->safe_psql($database, 'TRUNCATE delivered');
	$node->safe_psql($database, "ALTER DATABASE $database SET sagaz.$_ = '$source'") for qw(saga_storage outbox_storage);
	fill($session{$database}, $source, 400);
	my $old = SagazSession->new($node, $database);
	is($old->query('SHOW sagaz.outbox_storage'), $source, "$name: the default before");
	my @workers = map { start($database, "CALL deliver('before $_', '$source', 300)") } 1 .. 2;
	$node->poll_query_until($database, 'SELECT count(*) > 20 FROM delivered') or die 'nobody delivers';
	is(finish(start($database, "CALL sagaz.migrate('$source', '$target', switch => true, batch_size => 20)")), '', "$name: it ends");
	my @errors = map { finish($_) } @workers;

	is(newest($database, 'state, switch, phase'), 'completed|t|done', "$name: it is completed");
	is($node->safe_psql($database, 'SHOW sagaz.saga_storage') . ' ' . $node->safe_psql($database, 'SHOW sagaz.outbox_storage'), "$target $target",
		"$name: a new session uses the target");
	if ($from eq 'native')
	{
		is("@errors", ' ', "$name: workers of the source come to rest");
		is($node->safe_psql($database, 'SELECT count(*) FROM sagaz.consumer_group WHERE paused_at IS NULL'), 0, "$name: its groups are paused");
	}
	else
	{
		like($_, qr/ERROR:  SZ000: .*closed/, "$name: workers of the source are told") for @errors;
	}
	finish(start($database, "CALL deliver('after', NULL, 3)"));
	is($node->safe_psql($database, q{SELECT count(DISTINCT event_id), count(*) - count(DISTINCT event_id), bool_or(by = 'after') FROM delivered}), '400|0|t',
		"$name: each event is delivered once, the last ones by the target");
	is($node->safe_psql($database, "SELECT sagaz.count_records('saga', '$target')"), 400, "$name: the sagas are there");
	$old->close;
	$node->safe_psql($database, "ALTER DATABASE $database RESET sagaz.$_") for qw(saga_storage outbox_storage);
}

switch_storages(@$_) for ([qw(native redis)], [qw(redis native)], [qw(sqlite library)]);

# Who works on the target once it is the default keeps what he did there.
empty_both('sqlite', 'native', $session{empty});
fill($session{empty}, 'sqlite_filled', 2000);
my $migration = start('empty', q{CALL sagaz.migrate('sqlite_filled', 'native', switch => true, batch_size => 20)});
$node->poll_query_until('empty', q{SELECT EXISTS (SELECT FROM pg_db_role_setting AS s, pg_database AS d WHERE d.oid = s.setdatabase AND datname = 'empty' AND s.setconfig::text LIKE '%saga_storage=native%')})
  or die 'it does not switch';
$node->safe_psql('empty', q{SELECT sagaz.save_saga_state('old' || n, 'M', 'completed', storage => 'native') FROM generate_series(1, 2000) n});
is(finish($migration), '', 'worked on: it ends');
is($node->safe_psql('empty', q{SELECT status, count(*) FROM sagaz.sagas GROUP BY status}), 'completed|2000', 'worked on: nothing is undone');
$node->safe_psql('empty', "ALTER DATABASE empty RESET sagaz.$_") for qw(saga_storage outbox_storage);

$_->close for values %{ $places->{session} };
done_testing();
