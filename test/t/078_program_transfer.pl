# Transfers by the program sagaz: progress in a pipe and in a terminal, Ctrl-C,
# broken connections, exit statuses, and passwords, which nothing shows.
use strict;
use warnings;

use IPC::Run ();
use PostgreSQL::Test::Utils;
use SagazProgram;
use SagazRedis;
use SagazSession;
use SagazTerminal;
use SagazTest;
use Test::More;

my $secret = 'Sesam-oeffne-dich';
my $node = new_node('program', conf => "sagaz.connect_timeout = 2s\n");
my $redis = SagazRedis->new(requirepass => $secret);
my $url = $redis->url(password => $secret);
my $file = "$ENV{WORK}/moved.db";
my @from_file = ("--source=sqlite://$file", '--target=native');
my @from_redis = ('--source-env=SHOP', '--target=native');
my $records = 60;

$redis->{url} = $url;
$redis->start;
$ENV{SHOP} = $url;
connect_to($node, 'postgres');

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# Everything that is said, gathered to be searched for the password.
my $said = '';
sub transfer
{
	my ($status, $out, $err) = sagaz('storage', 'transfer', @_);

	$said .= $out . $err;
	return ($status, $out, $err);
}

sub status_of
{
	return (transfer(@_))[0];
}

sub newest
{
	return sql("SELECT $_[0] FROM sagaz.transfers ORDER BY transfer_id DESC LIMIT 1");
}

# A session that keeps the transfer from writing sagas until it lets go.
my $locker = SagazSession->new($node, 'postgres');
sub lock_sagas
{
	$locker->query('BEGIN');
	$locker->query('LOCK TABLE sagaz.sagas IN SHARE MODE');
	return;
}

sub unlock_sagas
{
	$locker->query('COMMIT');
	return;
}

# Until the newest transfer has come to the lock.
sub waits_for_lock
{
	return ok($node->poll_query_until('postgres', <<'SQL'), $_[0]);
SELECT count(*) = 1 FROM pg_stat_activity AS a, sagaz.transfers AS t
	WHERE a.pid = t.pid AND t.state = 'running' AND a.wait_event_type = 'Lock'
SQL
}

sub empty_native
{
	return sql('DELETE FROM sagaz.sagas');
}

sub same_as_source
{
	my ($source, $what) = @_;

	return is(sql("SELECT sagaz.checksum('saga') = sagaz.checksum('saga', '$source')"), 't', $what);
}

sql(<<"SQL");
SELECT sagaz.save_saga_state('order-' || n, 'OrderSaga', 'executing', '[{"name": "pay"}]', '{"amount": 10}')
	FROM generate_series(1, $records) AS n;
SELECT sagaz.insert_event('order-' || n, 'paid', to_jsonb(n)) FROM generate_series(1, 5) AS n;
SQL

# In a pipe: figures on stdout, progress in lines on stderr.
my ($status, $out, $err) = transfer('--source', 'native', '--target', "sqlite://$file");
is($status, 0, 'all arrived: status 0');
like($out, qr/\Atransfer 1 from native to sqlite:\S+: completed after \S+ s\n  65 of 65 records: 65 transferred, 0 unchanged, /, 'figures');
like($out, qr/^  saga: 60 in the source, 60 in the target, checksums equal\n  outbox: 5 .* checksums equal\n\z/m, 'and the comparison');
like($err, qr/\A(?:transfer 1: .*\n)*\z/, 'lines of progress, if it took that long');
unlike($err, qr/[\r\e]/, 'nothing for a terminal');
($status, $out, $err) = transfer('--source', 'native', '--target', "sqlite://$file", '-q');
is("$status$out$err", '0', '--quiet, and nothing to say');
my $document = sagaz_json(0, 'storage', 'transfer', '--source=native', "--target=sqlite://$file", '--no-validate', '--type=saga');
is_deeply([ @$document{qw(state total unchanged record_type verification)} ], [ 'completed', 60, 60, 'saga', undef ], '--json');

# Nothing is changed by looking at what would happen.
my $before = sql('SELECT count(*) FROM sagaz.transfers');
is_deeply(sagaz_json(0, 'storage', 'transfer', @from_file, '--dry-run'),
	{ compatible => JSON::PP::true(), issues => [],
		counts => { saga => { source => 60, target => 60 }, outbox => { source => 5, target => 5 } } }, '--dry-run');
like(sagaz_ok('storage', 'migrate', @from_file, '--dry-run'), qr/^ saga +\| +60 \| +60$/m, '--dry-run of migrate');
is_deeply(sagaz_json(0, 'storage', 'validate', @from_file), { compatible => JSON::PP::true(), issues => [] }, 'validate');
is(sagaz_json(1, 'storage', 'validate', '--source=redis://127.0.0.1:1/0', '--target=native')->{issues}[0]{severity}, 'error',
	'validate: status 1 where it cannot work');
is(sql('SELECT count(*) FROM sagaz.transfers'), $before, 'none of that was a transfer');

# Refused before it begins.
($status, $out, $err) = transfer('--source=native', '--target=native');
is("$status$out", '1', 'a storage to itself: status 1');
like($err, qr/\AERROR:  .*\nHINT:  .*\n\z/, 'with the hint, and nothing about going on');
is(sagaz_json(1, 'storage', 'transfer', '--source=native', '--target=native')->{sqlstate}, 'SZ009', 'the SQLSTATE with --json');
($status, $out, $err) = transfer('--resume=999');
is("$status$out", '1', 'no such transfer to resume');
is(status_of('--resume=1'), 1, 'one that is completed');
is(status_of('--resume=1', '--accept-removals'), 1, 'nor with removals');
is(status_of('--resume=1', '--max-tries=3'), 2, 'a transfer goes on as it was begun');
is(status_of(@from_file, '--accept-removals'), 2, 'nothing is removed by a transfer');
is(status_of(@from_file, '--on-error=retry', '--max-tries=3', '--delay=1ms', '--type=saga'), 0, 'tries and delay');
is(sql('SELECT max_tries, delay FROM sagaz.transfer ORDER BY transfer_id DESC LIMIT 1'), '3|00:00:00.001', 'are those of the transfer');

# Records that are refused.
run_log([ 'cp', 'test/data/sqlite-hostile.db', "$file.hostile" ]);
my @hostile = ("--source=sqlite://$file.hostile", '--target=native', '--type=saga', '--no-validate');
($status, $out, $err) = transfer(@hostile);
is($status, 1, 'on-error fail: status 1');
like($err, qr/^ERROR:  .*\nDETAIL:  .*\nHINT:  /m, 'as psql shows it');
like($err, qr/^to go on: sagaz storage transfer --resume (\d+)\n +or: CALL sagaz\.resume_transfer\(\1\)\n\z/m, 'and how to go on');
($status, $out, $err) = transfer(@hostile, '--on-error=skip');
is($status, 1, 'on-error skip: status 1');
is(newest('state'), 'completed', 'though it is completed');
like($out, qr/^  refused: saga dup-step: .*twice/m, 'what was refused');
my ($id) = $out =~ /--retry-errors (\d+)$/m;
is($id, newest('transfer_id'), 'how to try it again');
is(status_of("--retry-errors=$id"), 1, 'which works no better now');
cmp_ok(sagaz_json(1, 'storage', 'transfer', @hostile, '--on-error=skip')->{skipped}, '>', 0, 'skipped in JSON');
empty_native();
is(status_of(@from_file, '--type=saga'), 0, 'back');
same_as_source("sqlite://$file", 'as it was');

# Passwords: out of the environment, a file, or an argument.
append_to_file("$ENV{WORK}/secret", "$url\r\nanother line\n");
for my $how ([ 'env', 'SHOP' ], [ 'file', "$ENV{WORK}/secret" ])
{
	is(status_of('--source=native', "--target-$how->[0]", $how->[1], '--type=saga'), 0, "a URL from $how->[0]");
}
unlike($said, qr/warning/, 'draws no warning');
($status, $out, $err) = transfer('--source=native', "--target=$url", '--type=saga');
is($status, 0, 'one among the arguments');
like($err, qr/^sagaz: warning: a password among the arguments/m, 'draws one');
($status, $out, $err) = transfer('--source=native', '--target=' . ($url =~ s/$secret/wrong$secret/r), '--type=saga');
is($status, 1, 'a wrong password');

empty_native();
lock_sagas();
my $run = begin_sagaz('storage', 'transfer', "--source=$url", '--target=native', '--type=saga', '--interval=0.05');
waits_for_lock('a transfer out of Redis that waits');
ok($run->shows('err', qr/^transfer \d+: \w+ saga .*0\/60/m), 'shows its progress');
is(sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%$secret%' AND pid <> pg_backend_pid()"), 0, 'no statement has the password');
is(sql("SELECT count(*) FROM sagaz.transfers AS t WHERE t::text LIKE '%$secret%'"), 0, 'nor the view');
my ($arguments) = run_command([ 'sh', '-c', 'cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" "\n" | grep -a "^--source="' ]);
like($arguments, qr/^--source=unix:\/\/:\*+@/m, 'the arguments have the URL');
unlike($arguments, qr/$secret/, 'and not the password');

# The connection breaks.
sql(q{SELECT pg_terminate_backend(pid) FROM sagaz.transfers WHERE state = 'running'});
is($run->status, 3, 'a connection that breaks: status 3');
$said .= $run->{out} . $run->{err};
like($run->{err}, qr/^FATAL:  terminating connection/m, 'says so');
like($run->{err}, qr/^to go on: sagaz storage transfer --resume \d+ --source URL\n +or: CALL sagaz\.resume_transfer\(\d+, source => 'URL'\)\n\z/m, 'and how to go on');
unlock_sagas();
$id = newest('transfer_id');
is(newest('state'), 'interrupted', 'it is interrupted');
is(status_of("--resume=$id"), 1, 'it cannot be resumed without the password');
is(status_of("--resume=$id", '--source-env=SHOP'), 0, 'with it, it can');
same_as_source($url, 'and all is there');

# Ctrl-C in a terminal ends it at a batch border.
SKIP: {
	skip 'no pseudo-terminal is to be had here', 19 unless SagazTerminal::available();
	empty_native();
	lock_sagas();
	$run = SagazTerminal->begin(100, 'storage', 'transfer', @from_redis, '--type=saga', '--batch-size=7');
	waits_for_lock('a transfer in a terminal that waits');
	ok($run->shows(qr/\r\w+ saga +0\.0% \[ +\]  0\/60.*\e\[K/), 'shows a bar');
	$run->type("\x03");
	ok($run->shows(qr/\r\e\[Kstopping after the present batch; once more to stop at once\r\n/), 'Ctrl-C wipes it away');
	ok($node->poll_query_until('postgres', 'SELECT bool_or(cancel_requested) FROM sagaz.transfer'), 'and asks the transfer to stop');
	unlock_sagas();
	is($run->status, 1, 'it was stopped: status 1');
	$said .= $run->{out};
	$id = newest('transfer_id');
	is(newest(q(state || ' ' || (transferred BETWEEN 1 AND 59 AND transferred = (SELECT count(*) FROM sagaz.sagas)))), 'cancelled true',
		'some batches have arrived');
	like($run->{out}, qr/cancelled after .*\r\nto go on: sagaz storage transfer --resume $id --source-env SHOP\r\n/s, 'how to go on');
	unlike($run->{out}, qr/ERROR/, 'that is no error');

	# It goes on where it was; progress fits into a narrow terminal and is wiped away.
	$run = SagazTerminal->begin(40, 'storage', 'transfer', "--resume=$id", '--source-env=SHOP');
	is($run->status, 0, 'resumed');
	like($run->{out}, qr/ 60 of 60 records: 60 transferred, /, 'to the end');
	$said .= $run->{out};
	is(newest('transferred'), 60, 'with what was missing');
	same_as_source($url, 'and all is there');
	empty_native();
	lock_sagas();
	$run = SagazTerminal->begin(12, 'storage', 'transfer', @from_redis, '--type=saga');
	waits_for_lock('a narrow terminal');
	ok($run->shows(qr/\r\w+ s[^\r]*\e\[K/), 'has progress');
	unlock_sagas();
	is($run->status, 0, 'and an end');
	my @bars = $run->{out} =~ /\r([^\r\n]*?)\e\[K/g;
	cmp_ok((sort { $b <=> $a } map { length } @bars)[0], '<', 12, 'no bar is wider than the terminal');
	like($run->{out}, qr/\r\e\[Ktransfer \d+ from/, 'the last is wiped away');
}
my $dumb = do { local $ENV{TERM} = 'dumb'; begin_sagaz('storage', 'transfer', @from_redis, '--type=saga') };
is($dumb->status, 0, 'without a terminal');
unlike($dumb->{err}, qr/[\r\e]/, 'no bar');

# SIGTERM is as Ctrl-C; a second signal does not wait for the batch.
empty_native();
lock_sagas();
$run = begin_sagaz('storage', 'transfer', @from_redis, '--type=saga', '--json');
waits_for_lock('a transfer that gets two signals');
$run->signal('TERM');
ok($run->shows('err', qr/^stopping after the present batch/m), 'the first');
$run->signal('INT');
is($run->status, 1, 'ends at the second, while the lock is held');
$said .= $run->{out} . $run->{err};
my $stopped = JSON::PP->new->utf8->decode($run->{out});
is("$stopped->{transferred}", 0, 'nothing was written');
like($run->{err}, qr/^to go on: .*--resume $stopped->{transfer_id} --source-env SHOP$/m, 'how to go on');
unlock_sagas();
is(status_of("--resume=$stopped->{transfer_id}", '--source-env=SHOP'), 0, 'and it does');
same_as_source($url, 'and all is there');

# Where the role may have one connection only, there is no progress to see.
sql(<<'SQL');
CREATE ROLE single LOGIN CONNECTION LIMIT 1;
SELECT sagaz.grant_access('single', 'operator');
GRANT USAGE ON FOREIGN DATA WRAPPER sagaz_memory TO single;
SQL
($status, $out, $err) = transfer('-U', 'single', '--source=native', '--target=memory://m', '--type=saga');
is($status, 0, 'one connection is enough');
like($err, qr/^sagaz: warning: a second connection failed, so the progress cannot be seen: .*too many connections/m, 'with a warning');

# Migration, and the default storage afterwards.
sql("SELECT sagaz.create_storage('file', 'sqlite://$file.migrated')");
like(sagaz_json(0, 'storage', 'migrate', '--source=native', '--target=file', '--switch', '--batch-size=10')->{operation}, qr/^migrate$/, 'migrate');
is(sql(q{SELECT sagaz.checksum('saga', 'native') = sagaz.checksum('saga', 'file')}), 't', 'everything is there');
is(sql('SELECT sagaz.uuidv7() IS NULL; SHOW sagaz.saga_storage'), "f\nfile", '--switch: it is the default now');

# What the library left in PostgreSQL goes to Redis, and back to other tables.
{
	my $host = $node->host =~ s{/}{%2F}gr;
	my ($library, $back) = map { sprintf 'postgresql://@%s:%d/%s?layout=library', $host, $node->port, $_ } qw(library back);

	sql("CREATE DATABASE $_") for qw(library back);
	command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('library'), '-o', '/dev/null', '-f', 'test/data/pg-clean.sql' ],
		'the tables of the library');
	local $ENV{BETWEEN} = $redis->url(password => $secret, db => 5);
	my $there = sagaz_json(0, 'storage', 'transfer', "--source=$library", '--target-env=BETWEEN');
	my $again = sagaz_json(0, 'storage', 'transfer', '--source-env=BETWEEN', "--target=$back");

	cmp_ok($there->{transferred}, '>', 20, 'to Redis');
	is($again->{transferred}, $there->{transferred}, 'and back');
	for my $type (qw(saga outbox))
	{
		is(sql("SELECT sagaz.checksum('$type', '$library') = sagaz.checksum('$type', '$back')"), 't', "$type: every field is as it was");
	}
}

# The password was never to be seen.
unlike($said, qr/$secret/, 'no output has the password');
unlike(slurp_file($node->logfile), qr/$secret/, 'nor has the log of the server');

done_testing();
