# What stops a transfer, and how it goes on: records that are refused, peers
# that are away, full or closed to us, cancelling, and what is said before.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use SagazTransfer;
use Test::More;
use Time::HiRes qw(usleep);

my $secret = 'Gr33nT0mato';
my $places = SagazTransfer->new(
	conf => "sagaz.connect_timeout = 2s\nlog_min_messages = debug1\nlog_min_error_statement = error\n",
	redis => { appendonly => 'yes', appendfsync => 'always' });
my ($node, $other, $files) = @$places{qw(node other files)};
my $redis = $places->{redis}{empty};
my $session = $places->{session}{empty};
my $types = "type => 'saga'";

# ----------------------------------------------------------------------
# Asking

my $last = '(SELECT max(transfer_id) FROM sagaz.transfer)';

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('empty', $query);
}

# Columns of the newest transfer, as another session sees them.
sub newest
{
	my ($columns) = @_;
	return sql("SELECT $columns FROM sagaz.transfers WHERE transfer_id = $last");
}

sub until_newest
{
	my ($condition, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until('empty', "SELECT $condition FROM sagaz.transfers WHERE transfer_id = $last"), $what)
	  or diag(newest('t.*') =~ s/\|/\n/gr);
}

# The SQLSTATE that a statement ends with, nothing if it works.
sub state_of
{
	my ($statement) = @_;
	return $session->outcome("$statement;") =~ /^ERROR (\w+)/m ? $1 : '';
}

# What a statement raises, in full.
sub error_there { return error_of($node, $_[0], database => 'empty', role => $_[1]) }

sub same
{
	my ($type, $source, $target, $what) = @_;
	my $sum = "SELECT sagaz.count_records('$type', '%s'), sagaz.checksum('$type', '%s')";

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($session->query($sum =~ s/%s/$target/gr), $session->query($sum =~ s/%s/$source/gr), $what);
}

sub saga
{
	my ($id, $name) = @_;
	return sprintf '{"saga_id": "%s", "saga_name": "%s", "status": "failed", "steps": [{"name": "s", "note": "é"}], "context": {"n": 1.0}, "created_at": "2025-01-01T00:00:00.123456Z"}',
	  $id, $name;
}

# So many sagas and events, in a place with nothing else.
sub many
{
	my ($storage, $count) = @_;

	$places->clear($storage =~ s/_.*//r, 'empty', $session) if $storage =~ /_empty/;
	$session->query("SELECT sagaz.import_records((SELECT jsonb_agg(jsonb_build_object('saga_id', 'm' || n, 'saga_name', 'M',
		'status', 'pending', 'steps', '[]'::jsonb, 'context', '{}'::jsonb)) FROM generate_series(1, $count) n), 'saga', 'replace', '$storage')");
	$session->query("SELECT sagaz.import_records((SELECT jsonb_agg(jsonb_build_object('event_id', '00000000-0000-4000-8000-' || lpad(n::text, 12, '0'),
		'saga_id', 'm' || n % 10, 'event_type', 'E', 'payload', n, 'status', 'pending', 'created_at', '2025-01-01T00:00:00Z'::timestamptz + n * interval '1 s'))
		FROM generate_series(1, $count) n), 'outbox', 'replace', '$storage')");
}

# ----------------------------------------------------------------------
# A record that the target cannot hold

my @names = map { sprintf 's%02d', $_ } 1 .. 20;
import_into($session, 'saga', 'sqlite_filled', map { saga($_, $_ eq 's10' ? 'n' x 256 : 'fine') } @names);
import_into($session, 'outbox', 'sqlite_filled',
	'{"event_id": "no uuid", "saga_id": "s", "event_type": "T", "payload": 1, "status": "pending"}',
	'{"event_id": "00000000-0000-4000-8000-000000000001", "saga_id": "s", "event_type": "T", "payload": 1, "status": "pending"}');

# fail
my $error = error_there("CALL sagaz.transfer('sqlite_filled', 'library_empty', 'saga', batch_size => 4)");
like($error, qr/ERROR:  SZ004: transfer \d+ failed: record "s10" is refused\nDETAIL:  .*saga_name.*HINT:  .*resume_transfer\(\d+\)/s, 'fail: says which, why and how to go on');
is(newest('state, failed, skipped, transferred < 20, finished_at IS NOT NULL'), 'failed|1|0|t|t', 'fail: it has failed');
like(newest('error'), qr/record "s10" is refused/, 'fail: and is written down');
is(newest('jsonb_array_length(errors), errors->0->>\'record_type\', errors->0->>\'record_key\''), '1|saga|s10', 'fail: with the record');
is(sql("SELECT record = (SELECT r FROM sagaz.export_all('saga', 'sqlite_filled') r WHERE r->>'saga_id' = 's10'), record_type, sqlstate
	FROM sagaz.transfer_error WHERE transfer_id = $last"), 't|saga|SZ003', 'fail: which is kept whole');
is($session->query("SELECT count(*) = (SELECT transferred FROM sagaz.transfers WHERE transfer_id = $last), count(*) FILTER (WHERE r NOT IN
	(SELECT s FROM sagaz.export_all('saga', 'sqlite_filled') s)) FROM sagaz.export_all('saga', 'library_empty') r"), 't|0', 'fail: what is counted is there, as it should be');
my $id = newest('transfer_id');
is(state_of("CALL sagaz.resume_transfer($id)"), 'SZ004', 'fail: as long as nothing is mended it fails again');
import_into($session, 'saga', 'sqlite_filled', saga('s10', 'short'));
is(state_of("CALL sagaz.resume_transfer($id)"), '', 'fail: it goes on when the record is mended');
is(newest('state, error IS NULL, transfer_id = ' . $id), 'completed|t|t', 'fail: and is completed then');
same('saga', 'sqlite_filled', 'library_empty', 'fail: both are the same in the end');
is(state_of("CALL sagaz.resume_transfer($id)"), 'SZ009', 'what is completed is not resumed');

# skip
import_into($session, 'saga', 'sqlite_filled', map { saga($_, 'n' x 256) } qw(s03 s12 s20));
is(state_of("CALL sagaz.transfer('sqlite_filled', 'library_empty', batch_size => 7, on_error => 'skip')"), '', 'skip: ends without an error');
$id = newest('transfer_id');
is(newest('state, total, transferred, unchanged, skipped, failed, percent'), 'completed|22|1|17|4|0|100.0', 'skip: the others are moved');
is(sql("SELECT string_agg(record_key, ' ' ORDER BY record_key) FROM sagaz.transfer_error WHERE transfer_id = $id"), 'no uuid s03 s12 s20', 'skip: and these kept');
is(newest(q{verification->'saga'->'refused', verification->'outbox'->'refused'}), '3|1', 'skip: comparing knows of them');
is(state_of("CALL sagaz.retry_transfer_errors($id)"), 'SZ004', 'skip: trying them again as they are');
is(newest('skipped'), '4', 'skip: changes nothing');
import_into($session, 'saga', 'sqlite_filled', saga('s03', 'short'));
$session->query("SELECT sagaz.delete_saga_state('s12', 'sqlite_filled')");
is(state_of("CALL sagaz.retry_transfer_errors($id)"), 'SZ004', 'skip: some are mended');
is(sql("SELECT string_agg(record_key, ' ' ORDER BY record_key) FROM sagaz.transfer_error WHERE transfer_id = $id") . ' ' . newest('skipped'), 'no uuid s20 2',
	'skip: those go, and those that are gone');
import_into($session, 'saga', 'sqlite_filled', saga('s20', 'short'));
system('sqlite3', "$files/filled.db", q{DELETE FROM outbox_events WHERE event_id = 'no uuid'});
is(state_of("CALL sagaz.retry_transfer_errors($id)"), 'SZ004', 'skip: all are mended but one, which has gone');
is(newest(q{state, skipped, transferred, errors->0->>'record_key'}), 'completed|1|3|no uuid', 'skip: it is kept');
is($session->query(q{SELECT r->>'saga_name' FROM sagaz.export_all('saga', 'library_empty') r WHERE r->>'saga_id' = 's20'}), 'short', 'skip: it has arrived');

# Trying again can be seen, cancelled, and fail between two steps: that reads which
# records are refused
import_into($session, 'saga', 'sqlite_filled', saga('s20', 'n' x 256));
is(state_of("CALL sagaz.transfer('sqlite_filled', 'library_empty', 'saga', on_error => 'skip')"), '', 'again: one is refused');
$id = newest('transfer_id');
import_into($session, 'saga', 'sqlite_filled', saga('s20', 'shorter'));
for my $way ([ 'ACCESS EXCLUSIVE', "pg_cancel_backend($session->{pid})", 1 ], [ 'SHARE', "pg_cancel_backend($session->{pid})", 1 ], [ 'SHARE', "sagaz.cancel_transfer($id)", 0 ])
{
	my ($mode, $how, $left) = @$way;
	my $holder = SagazSession->new($node, 'empty');

	$holder->query("BEGIN; LOCK TABLE sagaz.transfer_error IN $mode MODE");
	$session->ask("CALL sagaz.retry_transfer_errors($id);");
	$node->poll_query_until('empty', "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $session->{pid} AND NOT granted)") or die 'it does not wait';
	is(sql("SELECT state, phase, pid FROM sagaz.transfer WHERE transfer_id = $last"), "running|done|$session->{pid}", 'again: it runs');
	is(sql("SELECT $how"), 't', "again: $how");
	$holder->query('COMMIT');
	$holder->close;
	is($session->answer =~ /^ERROR (\w+)/m ? $1 : '', '57014', 'again: it is cancelled');
	is(newest('state, phase, skipped, coalesce(jsonb_array_length(errors), 0), error IS NULL, finished_at IS NOT NULL'), "completed|done|$left|$left|t|t", 'again: the transfer is what it was');
}
is(state_of("CALL sagaz.retry_transfer_errors($id)"), '', 'again: all is well');
is(newest('state, skipped, errors IS NULL'), 'completed|0|t', 'again: nothing is left');

# A record that the source cannot read
$redis->cli('HSET', 'saga:broken', 'data', '{"saga_id": "broken", "saga_name": NaN}');
$redis->cli('HSET', 'saga:fine', 'data', saga('fine', 'F'));
is(state_of(q{CALL sagaz.transfer('redis_empty', 'memory_empty', 'saga')}), 'SZ004', 'unreadable: fail');
is(sql("SELECT record_key, record IS NULL, message LIKE '%NaN%' FROM sagaz.transfer_error WHERE transfer_id = $last"), 'broken|t|t', 'unreadable: kept by its key');
is(state_of(q{CALL sagaz.transfer('redis_empty', 'memory_empty', 'saga', on_error => 'skip')}), '', 'unreadable: skip');
$id = newest('transfer_id');
is(newest('transferred, skipped'), '1|1', 'unreadable: the other is moved');
$redis->cli('HSET', 'saga:broken', 'data', saga('broken', 'B'));
is(state_of("CALL sagaz.retry_transfer_errors($id)"), '', 'unreadable: mended');
same('saga', 'redis_empty', 'memory_empty', 'unreadable: both are the same in the end');

# ----------------------------------------------------------------------
# Cancelling and going on

system('sqlite3', "$files/filled.db", 'DELETE FROM sagas; DELETE FROM outbox_events');
many('sqlite_filled', 1500);

# A transfer that runs in the session while something happens; what it ends with.
sub meanwhile
{
	my ($call, $happens) = @_;
	my $before = sql("SELECT coalesce($last, 0)");

	$session->ask("$call;");
	$node->poll_query_until('empty', "SELECT transferred > 50 FROM sagaz.transfers WHERE transfer_id > $before") or die 'it does not run';
	$happens->();
	return $session->answer =~ /^ERROR (\w+)/m ? $1 : '';
}

$redis->cli('FLUSHALL');
my $call = "CALL sagaz.transfer('sqlite_filled', 'redis_empty', batch_size => 2)";
is(meanwhile($call, sub {
	my $columns = newest(q{state, phase, current_type, total, transferred < total, percent > 0 AND percent < 100, records_per_second > 0, seconds_left > 0, last_key IS NOT NULL,
		elapsed > '0', pid, source, target, started_by, finished_at IS NULL});
	is($columns, "running|copy|saga|3000|t|t|t|t|t|t|$session->{pid}|sqlite_filled|redis_empty|postgres|t", 'its progress is seen by others');
	my $running = newest('transfer_id');
	like(error_there("CALL sagaz.resume_transfer($running)"), qr/SZ006/, 'it runs only once');
	is(sql("SELECT sagaz.cancel_transfer($running)"), 't', 'cancel_transfer');
}), '57014', 'cancelled: ends the call');
$id = newest('transfer_id');
is(newest('state, finished_at IS NOT NULL, transferred < 3000'), 'cancelled|t|t', 'cancelled: it is written down');
is($redis->cli('DBSIZE') > 0, 1, 'cancelled: some are there') ;
is(sql("SELECT sagaz.cancel_transfer($id)"), 'f', 'cancelled: it runs no more');
is(state_of("CALL sagaz.resume_transfer($id, target => 'memory_empty')"), 'SZ009', 'it goes on with its own storages only');
is(state_of("CALL sagaz.resume_transfer($id)"), '', 'cancelled: resumed');
is(newest('state, total, transferred'), 'completed|3000|3000', 'cancelled: each is counted once');
same($_, 'sqlite_filled', 'redis_empty', "cancelled: both are the same in the end: $_") for qw(saga outbox);

for my $way ([ 'cancelled', 'pg_cancel_backend' ], [ 'interrupted', 'pg_terminate_backend' ])
{
	my ($state, $function) = @$way;

	$redis->cli('FLUSHALL');
	if ($state eq 'cancelled')
	{
		is(meanwhile($call, sub { sql("SELECT $function($session->{pid})") }), '57014', "$state by $function");
	}
	else
	{
		my $victim = SagazSession->new($node, 'empty');
		my $before = $last;

		$id = newest('transfer_id');
		$victim->ask("$call;");
		until_newest("transfer_id > $id AND transferred > 50", "$state: it runs");
		sql("SELECT $function($victim->{pid})");
		eval { $victim->answer };
		eval { $victim->{psql}->finish };
	}
	until_newest("state = '$state'", "$state: as the view says");
	$id = newest('transfer_id');
	is(state_of("CALL sagaz.resume_transfer($id)"), '', "$state: resumed");
	is(newest("state, transfer_id = $id"), 'completed|t', "$state: and completed");
	same($_, 'sqlite_filled', 'redis_empty', "$state: both are the same in the end: $_") for qw(saga outbox);
}

# ----------------------------------------------------------------------
# A source that changes meanwhile

$redis->cli('FLUSHALL');
is(meanwhile($call, sub {
	my $key = sql(q{SELECT r->>'saga_id' FROM sagaz.export_all('saga', 'redis_empty') r LIMIT 1});

	$node->safe_psql('empty', "SELECT sagaz.save_saga_state('$key', 'changed', 'failed', storage => 'sqlite_filled')");
}), 'SZ004', 'changed: the comparison fails');
like(newest(q{state, verification->'saga'->'missing', verification->'saga'->'different', verification->'saga'->'keys', verification->'outbox'->'different'}),
	qr/^failed\|0\|1\|\["m\d+"\]\|0\z/, 'changed: and names the saga');
like(newest('error'), qr/source and target differ afterwards/, 'changed: so says the row');
$id = newest('transfer_id');
is(state_of("CALL sagaz.resume_transfer($id)"), '', 'changed: resumed, it is moved');
is(newest("state, transfer_id = $id"), 'completed|t', 'changed: and the same then');
same($_, 'sqlite_filled', 'redis_empty', "changed: both are the same in the end: $_") for qw(saga outbox);
is(state_of($call =~ s/\)\z/, validate => false)/r), '', 'not compared, if that is not wanted');
is(newest('verification IS NULL'), 't', 'so nothing is said about it');

# ----------------------------------------------------------------------
# A peer that is away for a while

my $retrying = "CALL sagaz.transfer('%s', '%s', batch_size => 1, on_error => 'retry')";

sub away
{
	my ($source, $target, $stop, $start) = @_;
	my $name = "$source to $target, retry";

	is(meanwhile(sprintf($retrying, $source, $target), sub {
		# it would be done before the server is away
		kill 'STOP', $session->{pid};
		$stop->();
		kill 'CONT', $session->{pid};
		until_newest(q{error LIKE 'attempt % of 10: %' AND state = 'running'}, "$name: it waits");
		$start->();
	}), '', "$name: it goes on");
	is(newest('state, error IS NULL, failed'), 'completed|t|0', "$name: to the end");
	same($_, $source, $target, "$name: both are the same: $_") for qw(saga outbox);
}

$redis->cli('FLUSHALL');
away('sqlite_filled', 'redis_empty', sub { $redis->stop }, sub { $redis->start });
$places->clear('memory', 'empty', $session);
away('redis_empty', 'memory_empty', sub { $redis->stop }, sub { $redis->start });
$places->clear('library', 'empty', $session);
away('sqlite_filled', 'library_empty', sub { $other->stop('immediate') }, sub { $other->start });
$redis->cli('FLUSHALL');
away('library_empty', 'redis_empty', sub { $other->stop('immediate') }, sub { $other->start });

# While it waits it can be cancelled
$redis->cli('FLUSHALL');
for my $how (q{sagaz.cancel_transfer((SELECT max(transfer_id) FROM sagaz.transfer))}, "pg_cancel_backend($session->{pid})")
{
	is(meanwhile(sprintf($retrying, 'sqlite_filled', 'redis_empty'), sub {
		$redis->stop;
		until_newest(q{error LIKE 'attempt % of 10: %'}, 'away: it waits');
		sql("SELECT $how");
	}), '57014', "away: cancelled by $how");
	is(newest('state'), 'cancelled', 'away: it is cancelled');
	$redis->start->cli('FLUSHALL');
}

# The other policies do not wait
for my $policy (qw(fail skip))
{
	is(meanwhile(sprintf($retrying =~ s/retry/$policy/r, 'sqlite_filled', 'redis_empty'), sub { $redis->stop }), 'SZ004', "away, $policy: fails");
	$redis->start;
	is(newest('state, skipped, failed'), 'failed|0|0', "away, $policy: no record is to blame");
	$id = newest('transfer_id');
	is(state_of("CALL sagaz.resume_transfer($id)"), '', "away, $policy: resumed");
	same($_, 'sqlite_filled', 'redis_empty', "away, $policy: both are the same: $_") for qw(saga outbox);
	$redis->cli('FLUSHALL');
}

# One that is full
$redis->cli('CONFIG', 'SET', 'maxmemory', 1);
is(state_of(q{CALL sagaz.transfer('sqlite_filled', 'redis_empty')}), 'SZ004', 'full: fails');
is(newest('state, skipped, failed'), 'failed|0|0', 'full: no record is to blame');
$redis->cli('CONFIG', 'SET', 'maxmemory', 0);
$id = newest('transfer_id');
is(state_of("CALL sagaz.resume_transfer($id)"), '', 'full: resumed when there is room');
same($_, 'sqlite_filled', 'redis_empty', "full: both are the same: $_") for qw(saga outbox);

# ----------------------------------------------------------------------
# Secrets

my $locked = SagazRedis->new(requirepass => $secret);
$locked->{password} = $secret;
$locked->start;
my $locked_url = $locked->url(password => $secret);
my @said;

$other->safe_psql('postgres', <<"SQL");
SET password_encryption = 'scram-sha-256';
CREATE ROLE app LOGIN PASSWORD '$secret';
GRANT CREATE, USAGE ON SCHEMA public TO app;
SQL
my $hba = slurp_file($other->data_dir . '/pg_hba.conf');
append_to_file($other->data_dir . '/pg_hba.conf.new', "local all app scram-sha-256\n$hba");
rename $other->data_dir . '/pg_hba.conf.new', $other->data_dir . '/pg_hba.conf' or die $!;
$other->reload;

for my $case (
	[ "CALL sagaz.transfer('sqlite_filled', '$locked_url', batch_size => 100)", '', 'a password' ],
	[ "CALL sagaz.transfer('sqlite_filled', '@{[$locked->url(password => qq(not$secret))]}')", 'SZ001', 'a wrong one' ],
	[ "CALL sagaz.transfer('@{[database_url($other, 'library_empty', qq(app:not$secret@)) =~ s/@@/@/r]}', 'memory_empty')", 'SZ001', 'a wrong one of PostgreSQL' ],
	[ "CALL sagaz.transfer('sqlite_filled', '$locked_url', batch_size => 0)", 'SZ009', 'with a bad argument' ],
	[ "CALL sagaz.transfer('sqlite_filled', '$locked_url:/%zz$secret')", 'SZ009', 'in a URL that is none' ],
	[ "SELECT sagaz.validate_transfer('sqlite_filled', '$locked_url')", '', 'to validate_transfer' ])
{
	my ($statement, $state, $name) = @$case;
	my $said = error_there($statement);

	push @said, $said;
	is($said =~ /ERROR:  (\w+)/ ? $1 : '', $state, "secrets: $name");
}
same($_, 'sqlite_filled', $locked_url, "secrets: all is there: $_") for qw(saga outbox);
$session->query("SELECT sagaz.import_record('@{[saga('bad', 'n' x 256)]}', 'saga', '$locked_url')");
my $library = database_url($other, 'library_empty', "app:$secret@") =~ s/@@/@/r;
$other->safe_psql('library_empty', 'DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION app');
push @said, $error = error_there("CALL sagaz.transfer('$locked_url', '$library', batch_size => 100)");
like($error, qr/ERROR:  SZ004: transfer \d+ failed: record "bad" is refused/, 'secrets: a transfer that fails');
$id = newest('transfer_id');
like(newest(q{source || ' ' || target}), qr{^unix://\*\*\*@/\S+ postgresql://app:?\*\*\*@\S+|^unix://\*\*\*@/\S+ postgresql://\*\*\*@\S+}, 'secrets: the row names both ends');
push @said, $error = error_there("CALL sagaz.resume_transfer($id)");
like($error, qr/SZ009: source must be given again/, 'secrets: to resume it the source is asked for');
push @said, $error = error_there("CALL sagaz.resume_transfer($id, '$locked_url')");
like($error, qr/SZ009: target must be given again/, 'secrets: and the target');
push @said, $error = error_there("CALL sagaz.resume_transfer($id, '@{[$redis->url(password => $secret)]}', '$library')");
like($error, qr/SZ009: source is another/, 'secrets: and no others');
$session->query("SELECT sagaz.import_record('@{[saga('bad', 'good')]}', 'saga', '$locked_url')");
push @said, $error = error_there("CALL sagaz.resume_transfer($id, '$locked_url', '$library')");
is($error, '', 'secrets: with both it goes on');
is(newest(qq{state, transfer_id = $id}), 'completed|t', 'secrets: to the end');
push @said, sql(q{SELECT string_agg(t::text, '') FROM sagaz.transfer AS t}), sql(q{SELECT string_agg(t::text, '') FROM sagaz.transfers AS t}),
  sql(q{SELECT string_agg(t::text, '') FROM sagaz.transfer_error AS t});
is(scalar(grep { /$secret/ } @said), 0, 'secrets: no error and no column has one');
unlike(slurp_file($node->logfile), qr/$secret/, 'secrets: nor the log');
unlike(slurp_file($other->logfile), qr/$secret/, 'secrets: nor that of the other server');

# ----------------------------------------------------------------------
# What is said before

$other->safe_psql('postgres', 'CREATE DATABASE made');

# The codes of what validate_transfer() finds, with what they count.
sub issues
{
	my ($source, $target, $type) = @_;
	return $session->query(sprintf q{SELECT compatible, string_agg(DISTINCT concat_ws(' ', i->>'code', i->>'record_type', i->>'count', i->>'samples'), '; ')
		FROM sagaz.validate_transfer('%s', '%s', '%s') LEFT JOIN jsonb_array_elements(issues) AS i ON true GROUP BY 1}, $source, $target, $type // 'both');
}

my $many = $session->query(q{SELECT sagaz.count_records('saga', 'redis_empty')});
is(issues('sqlite_filled', 'redis_empty'), 't|', 'before: nothing is in the way');
is($session->query(q{SELECT sagaz.count_records('saga', 'redis_empty')}), $many, 'before: nothing is written');
is(issues('sqlite_filled', 'memory_empty'), 't|not_durable', 'before: memory does not last');
is(issues('sqlite_filled', 'unix:///none/such'), 'f|unreachable', 'before: no server');
is(issues('unix:///none/such', 'sqlite_filled'), 'f|unreachable', 'before: no server to read from');
is(issues('sqlite_filled', $locked->url(password => "not$secret")), 'f|unreachable', 'before: a wrong password');
is(issues('sqlite_filled', $locked->url), 'f|unreachable', 'before: none');
is(issues('sqlite_filled', "$library" =~ s/:$secret/:x/r), 'f|unreachable', 'before: a wrong password of PostgreSQL');
is(issues('sqlite_filled', database_url($other, 'none_such')), 'f|unreachable', 'before: no database');
is(state_of(q{SELECT sagaz.validate_transfer('sqlite_filled', 'nothing of the kind')}), 'SZ002', 'before: no storage');
is(issues('sqlite_filled', database_url($other, 'made')), 't|', 'before: an empty database');
is($other->safe_psql('made', q{SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace}), '0', 'before: stays empty');

$other->safe_psql('library_empty', q{CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA public TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader});
is(issues('sqlite_filled', database_url($other, 'library_empty', 'reader')), 'f|privilege', 'before: who may only read writes nothing');
is(issues(database_url($other, 'library_empty', 'reader'), 'redis_empty'), 'f|privilege', 'before: nor trusts he the tables of anybody');
my $owner = $other->safe_psql('library_empty', q{SELECT tableowner FROM pg_tables WHERE tablename = 'sagas'});
is(issues(database_url($other, 'library_empty', 'reader') . "?trusted_owner=$owner", 'redis_empty'), 't|', "before: those of $owner he reads if told to");
$other->safe_psql('library_empty', qq{GRANT CREATE ON SCHEMA public TO reader; GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO reader});
is(issues('sqlite_filled', database_url($other, 'library_empty', 'reader') . "?trusted_owner=$owner"), 'f|storage', 'before: who may not delete, or take numbers');
like($session->query(sprintf q{SELECT issues->0->>'message' FROM sagaz.validate_transfer('sqlite_filled', '%s')}, database_url($other, 'library_empty', 'reader') . "?trusted_owner=$owner"),
	qr/^target: the user there has no .*USAGE on saga_steps_id_seq.*DELETE on sagas/, 'before: and which of the rights');
my $elsewhere = database_url($other, 'sagaz_empty', 'reader');
is(issues('sqlite_filled', $elsewhere), 'f|storage', 'before: who may nothing in a sagaz elsewhere');
is(issues($elsewhere, 'sqlite_filled', 'saga'), 'f|privilege', 'before: nor read from it');
$other->safe_psql('sagaz_empty', q{SELECT sagaz.grant_access('reader', 'operator')});
is(issues('sqlite_filled', $elsewhere), 't|', 'before: but an operator there may');
$node->safe_psql('empty', q{CREATE ROLE plain; SELECT sagaz.grant_access('plain', 'operator')});
like(error_there(q{SELECT code FROM sagaz.validate_transfer('sqlite_filled', 'redis_empty'), jsonb_to_recordset(issues) AS (code text) WHERE 1 / (code = 'privilege')::integer = 0}, 'plain'),
	qr/^$/, 'before: who may not use a storage');
like(error_there(q{CALL sagaz.transfer('sqlite_filled', 'redis_empty')}, 'plain'), qr/ERROR:  42501/, 'and who tries all the same');
is(sql('SELECT count(*) FROM sagaz.transfer WHERE started_by = \'plain\''), '0', 'leaves no trace');

chmod 0555, $files or die $!;
is(issues('redis_empty', "sqlite://$files/none.db"), 'f|unreachable', 'before: no file, and none can be made');
chmod 0755, $files or die $!;
is(issues('redis_empty', "sqlite://$files/none.db"), 't|time_to_live', 'before: no file as yet');
is(`sqlite3 '$files/none.db' .schema`, '', 'before: nothing is put there');
is(state_of(q{SELECT sagaz.save_saga_state('x', 'X', 'pending', storage => 'sqlite_empty')}), '', 'a file');
my ($file) = $session->query(q{SELECT option_value FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = 'sqlite_empty' AND option_name = 'path'});
chmod 0444, $file or die $!;
chmod 0555, $files or die $!;
$session->close;
$session = $places->{session}{empty} = SagazSession->new($node, 'empty');
like(issues('redis_empty', 'sqlite_empty'), qr/^f\|(storage|privilege)/, 'before: a file that may only be read');
isnt(state_of(q{CALL sagaz.transfer('redis_empty', 'sqlite_empty')}), '', 'and who tries all the same');
chmod 0755, $files or die $!;
chmod 0644, $file or die $!;

$redis->cli('FLUSHALL');
$redis->cli('HSET', "saga:broken $_", 'data', '{"saga_id": "broken", "saga_name": NaN}') for 1 .. 7;
$redis->cli('HSET', 'saga:twice', 'data', saga('twice', 'n') =~ s/\{"name"/{"name": "s"}, {"name"/r);
$redis->cli('HSET', 'saga:fine', 'data', saga('fine', 'n'));
like(issues('redis_empty', 'native'), qr/^f\|unfit saga 1 \["twice"\]; unreadable saga 7 \["broken \d"(, "broken \d"){4}\]$/, 'before: records, counted, with samples');
is(issues('redis_empty', 'native', 'outbox'), 't|empty', 'before: those of the kind in question');

# ----------------------------------------------------------------------
# Records that the target alone refuses, when they are written

$other->safe_psql('postgres', 'CREATE DATABASE choosy');
my $choosy = database_url($other, 'choosy');
$session->query("SELECT sagaz.insert_event('s', 'First', '1', storage => '$choosy')");

for my $kind (qw(sqlite redis sagaz))
{
	my $source = "${kind}_empty";
	my $copy = sub { state_of("CALL sagaz.transfer('$source', '$choosy', type => 'outbox', batch_size => 32, on_error => '$_[0]')") };
	my $connections = sub { $redis->cli('INFO', 'stats') =~ /total_connections_received:(\d+)/ ? $1 : die };

	$places->clear($kind, 'empty', $session);
	$session->query("SELECT cardinality(sagaz.insert_events(jsonb_agg(jsonb_build_object('saga_id', 's', 'payload', n,
		'event_type', CASE WHEN n IN (1, 50, 51) THEN 'Refused' ELSE 'Fine' END,
		'event_id', '00000000-0000-4000-8000-' || lpad(n::text, 12, '0'),
		'headers', jsonb_build_object('ballast', repeat('x', 50000))) ORDER BY n), '$source')) FROM generate_series(1, 100) AS n");
	$other->safe_psql('choosy', q{TRUNCATE saga_outbox CASCADE; ALTER TABLE saga_outbox ADD CONSTRAINT choosy CHECK (event_type <> 'Refused')});

	my $before = $connections->();
	is($copy->('fail'), 'SZ004', "choosy, $kind: fails");
	cmp_ok($other->safe_psql('choosy', 'SELECT count(*) FROM saga_outbox'), '<', 97, "choosy, $kind: not all is there");
	ok($other->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname ~ 'sagaz_' AND state = 'active'}),
		"choosy, $kind: no statement is left at the other end");
	is($session->query("SELECT sagaz.count_records('outbox', '$source'), count(*) FROM sagaz.export_all('outbox', '$source')"),
		'100|100', "choosy, $kind: what was read ahead is in nobody's way");
	is($copy->('skip'), '', "choosy, $kind: skips");
	is(newest('state, transferred + unchanged, skipped'), 'completed|97|3', "choosy, $kind: three are refused");
	is($other->safe_psql('choosy', q{SELECT count(*), string_agg(event_type, ' ') FILTER (WHERE event_type <> 'Fine') FROM saga_outbox}),
		'97|', "choosy, $kind: all others are there");
	is(sql("SELECT string_agg(right(record_key, 2), ' ' ORDER BY record_key), bool_and(message ~ 'choosy'),
		string_agg(record->>'payload', ' ' ORDER BY record_key) FROM sagaz.transfer_error WHERE transfer_id = $last"),
		'01 50 51|t|1 50 51', "choosy, $kind: they are kept, with the reason");
	$other->safe_psql('choosy', 'ALTER TABLE saga_outbox DROP CONSTRAINT choosy');
	is(state_of('CALL sagaz.retry_transfer_errors(' . newest('transfer_id') . ')'), '', "choosy, $kind: tried again");
	is($other->safe_psql('choosy', 'SELECT count(*) FROM saga_outbox'), '100', "choosy, $kind: now they are there");
	# one is that of the question
	is($connections->(), $before + 1, 'choosy, redis: all over one connection') if $kind eq 'redis';
}

# ----------------------------------------------------------------------
# History

cmp_ok(sql('SELECT count(*) FROM sagaz.transfers'), '>', 15, 'the history of transfers is kept');
is(sql('DELETE FROM sagaz.transfer; SELECT (SELECT count(*) FROM sagaz.transfers) + (SELECT count(*) FROM sagaz.transfer_error)'), '0', 'until somebody deletes it');

$session->close;
done_testing();
