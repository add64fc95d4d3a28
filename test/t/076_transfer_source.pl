# A transfer knows what its source was: one that was replaced, emptied or has lost
# most of what it held stops it, and nothing is taken from the target; removals
# are followed where somebody removed; and the last copy of a record is kept.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use Test::More;

my $node = new_node('source', conf => "fsync = off\ntimezone = 'UTC'\n");
my $redis = SagazRedis->new->start;
my $dir = $node->basedir;
my $session = SagazSession->new($node, 'postgres');

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

sub state_of
{
	my ($statement) = @_;
	return $session->outcome("$statement;") =~ /^ERROR (\w+)/m ? $1 : '';
}

sub newest
{
	my ($columns) = @_;
	return sql("SELECT $columns FROM sagaz.transfers ORDER BY transfer_id DESC LIMIT 1");
}

sub held
{
	return sql(q{SELECT (SELECT count(*) FROM sagaz.sagas), (SELECT count(*) FROM sagaz.outbox_events WHERE status = 'pending'), (SELECT count(*) FROM sagaz.outbox_events WHERE status = 'sent')});
}

sub clear
{
	sql('TRUNCATE sagaz.sagas, sagaz.saga_steps, sagaz.outbox, sagaz.outbox_batch, sagaz.outbox_receipt, sagaz.outbox_retry, sagaz.outbox_archive');
}

# Sagas and events, the last of which the native tables refuse.
sub fill
{
	my ($storage, $count, $status) = @_;

	$status //= 'executing';
	$session->query("SELECT count(sagaz.save_saga_state('o' || lpad(i::text, 3, '0'), 'Order', '$status', storage => '$storage')),
		count(sagaz.insert_event('o' || i, 'E', to_jsonb(i), storage => '$storage')) FROM generate_series(1, $count) i");
	$session->query("SELECT sagaz.import_records(jsonb_build_array(jsonb_build_object('event_id', 'no uuid', 'saga_id', 'o1',
		'event_type', 'Odd', 'payload', 1, 'status', 'pending', 'created_at', '2099-01-01T00:00:00Z')), 'outbox', 'replace', '$storage')");
}

sub remove
{
	unlink map { "$dir/$_[0]$_" } '', '-wal', '-shm';
}

$session->query("SELECT sagaz.create_storage('file', 'sqlite://$dir/file.db'), sagaz.create_storage('target', 'sqlite://$dir/target.db')");
$session->query('SELECT sagaz.create_storage(\'red\', \'' . $redis->url . '\')');

# ----------------------------------------------------------------------
# A migration whose source goes away

fill('file', 50);
is(state_of(q{CALL sagaz.migrate('file', 'native', batch_size => 10)}), 'SZ004', 'file: the migration fails at one record');
my $id = newest('transfer_id');
my $before = held();
is($before, '50|50|0', 'file: the others are there');
rename "$dir/file.db$_", "$dir/away.db$_" for grep { -e "$dir/file.db$_" } '', '-wal', '-shm';
is(state_of("CALL sagaz.resume_transfer($id)"), 'SZ001', 'file: gone, it is not resumed');
is(state_of("CALL sagaz.retry_transfer_errors($id)"), 'SZ001', 'file: gone, nothing is tried again');
is(held(), $before, 'file: gone, nothing is taken from the target');
append_to_file("$dir/file.db", '');
is(state_of("CALL sagaz.resume_transfer($id)"), 'SZ004', 'file: another, it is not resumed');
is(state_of("CALL sagaz.retry_transfer_errors($id)"), 'SZ004', 'file: another, nothing is tried again');
is(held(), $before, 'file: another, nothing is taken from the target');
is(sql("SELECT count(*) FROM sagaz.transfer_error WHERE transfer_id = $id"), 1, 'file: another, the refused record is kept');
my $err;
$node->psql('postgres', "CALL sagaz.resume_transfer($id)", stderr => \$err);
like($err, qr/source is not the one.*DETAIL:  It was sqlite:\d+:\d+, and is sqlite:\d+:\d+\.\nHINT:  .*CALL sagaz.migrate\(source, target\)/s, 'file: another, and how to go on');
remove('file.db');
rename "$dir/away.db$_", "$dir/file.db$_" for grep { -e "$dir/away.db$_" } '', '-wal', '-shm';

# ----------------------------------------------------------------------
# One that lost most of what it held

my @ids = map { sprintf "'o%03d'", $_ } 1 .. 50;
my $most = join ', ', @ids[ 0 .. 44 ];
$session->query("SELECT count(sagaz.delete_saga_state(s, 'file')) FROM unnest(ARRAY[$most]) s");
is(state_of("CALL sagaz.resume_transfer($id)"), 'SZ004', 'emptied: one record is refused still');
$session->query(q{CREATE SCHEMA f; IMPORT FOREIGN SCHEMA sagaz FROM SERVER file INTO f; DELETE FROM f.outbox_events WHERE event_type <> 'E'});
is(state_of("CALL sagaz.resume_transfer($id)"), 'SZ004', 'emptied: most sagas are gone, it stops');
is(held(), $before, 'emptied: nothing is taken from the target');
like(newest('error'), qr/most of what the source held is gone/, 'emptied: and says why');
is(state_of("CALL sagaz.resume_transfer($id, accept_removals => true)"), '', 'emptied: but goes on if it was meant');
is(held() . ' ' . newest('state, removed'), '5|50|0 completed|45', 'emptied: and follows');
is(sql("SELECT count(*) FROM sagaz.transfer_error WHERE transfer_id = $id"), 1, 'emptied: what was refused is kept, though it is gone');
is(state_of("CALL sagaz.retry_transfer_errors($id)"), 'SZ004', 'emptied: also when it is tried again');
is(sql("SELECT count(*) FROM sagaz.transfer_error WHERE transfer_id = $id AND record->>'saga_id' = 'o1'"), 1, 'emptied: whole');

# Fewer are followed as ever
clear();
remove('file.db');
fill('file', 50);
is(state_of(q{CALL sagaz.migrate('file', 'native', batch_size => 10)}), 'SZ004', 'removed: it fails at one');
$id = newest('transfer_id');
$session->query("SELECT count(sagaz.delete_saga_state(s, 'file')) FROM unnest(ARRAY[$ids[0], $ids[1]]) s");
$session->query(q{DELETE FROM f.outbox_events WHERE event_type <> 'E' OR payload = '7'});
is(state_of("CALL sagaz.resume_transfer($id)"), '', 'removed: some were');
is(held(), '48|49|1', 'removed: they go from the target');

# What has ended at the source has ended for every group
clear();
remove('file.db');
$session->query(q{SELECT sagaz.create_consumer_group('others')});
fill('file', 4);
is(state_of(q{CALL sagaz.migrate('file', 'native', batch_size => 1)}), 'SZ004', 'ended: it fails at one');
$id = newest('transfer_id');
is(sql(q{SELECT count(*) FROM sagaz.outbox AS e, sagaz.explain_event(e.event_id) AS x WHERE x.status = 'pending' AND x.consumer_group IN ('others', 'sagaz-workers')}), 8, 'ended: two groups have all');
$session->query(q{DELETE FROM f.outbox_events WHERE event_type <> 'E' OR payload = '1'});
$session->query(q{UPDATE f.outbox_events SET status = 'sent', sent_at = now() WHERE payload = '2'});
is(state_of("CALL sagaz.resume_transfer($id)"), '', 'ended: one is removed, one is sent');
for my $group (qw(others sagaz-workers))
{
	is(sql(qq{SELECT string_agg(format('%s %s', e.payload, x.status), ', ' ORDER BY e.payload) FROM sagaz.outbox AS e, sagaz.explain_event(e.event_id) AS x WHERE x.consumer_group = '$group'}),
		'1 sent, 2 sent, 3 pending, 4 pending', "ended: so it is for the group $group");
	is(sql(qq{SELECT count(*) FROM sagaz.claim_batch('w', consumer_group => '$group')}), 2, "ended: which gets the others");
}
clear();
sql(q{SELECT sagaz.drop_consumer_group('others')});

# ----------------------------------------------------------------------
# A Redis that expires, and one that restarts without its data

clear();
fill('red', 20, 'completed');
is(state_of(q{CALL sagaz.migrate('red', 'native')}), 'SZ004', 'expired: it fails at one');
$id = newest('transfer_id');
$redis->cli('DEL', map { sprintf 'saga:o%03d', $_ } 1 .. 5);
$redis->cli('DEL', 'sagaz:outbox:meta:no uuid');
is(state_of("CALL sagaz.resume_transfer($id)"), '', 'expired: it goes on');
is(held() . ' ' . newest('state, removed'), '20|20|0 completed|0', 'expired: what may have is not removed');

clear();
$redis->cli('FLUSHALL');
fill('red', 20);
is(state_of(q{CALL sagaz.transfer('red', 'native', batch_size => 5)}), 'SZ004', 'restarted: it fails at one');
$id = newest('transfer_id');
$redis->cli('FLUSHALL');
is(state_of("CALL sagaz.resume_transfer($id)"), 'SZ004', 'restarted: without its data it is not resumed');
isnt(newest('state'), 'completed', 'restarted: nor completed');
is(sql('SELECT count(*) FROM sagaz.sagas'), 20, 'restarted: nothing is taken from the target');

clear();
$redis->cli('FLUSHALL');
fill('red', 20);
$redis->cli('DEL', 'sagaz:outbox:meta:no uuid');
is(state_of("CALL sagaz.resume_transfer($id)"), 'SZ004', 'restarted: nor with as many others');
is(held(), '0|0|0', 'restarted: which are not moved');

my $kept = SagazRedis->new(appendonly => 'yes', appendfsync => 'always')->start;
$session->query(q{SELECT sagaz.create_storage('kept', '} . $kept->url . q{')});
fill('kept', 20);
is(state_of(q{CALL sagaz.transfer('kept', 'native', batch_size => 5)}), 'SZ004', 'restarted with its data: it fails at one');
$id = newest('transfer_id');
$kept->stop;
$kept->start;
$kept->cli('DEL', 'sagaz:outbox:meta:no uuid');
is(state_of("CALL sagaz.resume_transfer($id)"), '', 'restarted with its data: it goes on');
is(newest('state'), 'completed', 'restarted with its data: to the end');
is(sql(q{SELECT sagaz.count_records('saga', 'kept'), sagaz.count_records('outbox', 'kept')}), '20|20', 'the mark is no record');

# Who may not write leaves no mark, and goes on where another has left one.
clear();
$kept->cli('FLUSHALL');
fill('kept', 20);
$kept->cli('ACL', 'SETUSER', 'reader', 'on', '>pw', '~*', '+@all', '-@write');
$session->query(q{SELECT sagaz.create_storage('reader', '} . $kept->url(user => 'reader', password => 'pw') . q{')});
is(state_of(q{CALL sagaz.transfer('reader', 'native', batch_size => 5)}), 'SZ004', 'a reader: it fails at one');
$id = newest('transfer_id');
is($kept->cli('EXISTS', 'sagaz:outbox:sagaz:mark'), 0, 'a reader leaves no mark');
$kept->cli('DEL', 'sagaz:outbox:meta:no uuid');
is(state_of(q{CALL sagaz.transfer('kept', 'memory://elsewhere')}), '', 'a writer leaves one');
is($kept->cli('EXISTS', 'sagaz:outbox:sagaz:mark'), 1, 'which is there');
is(state_of("CALL sagaz.resume_transfer($id)"), '', 'a reader: it goes on all the same');

# ----------------------------------------------------------------------
# A peer that is unwell is asked again, so often and after so long

clear();
$redis->cli('FLUSHALL');
fill('red', 20);
$redis->cli('DEL', 'sagaz:outbox:meta:no uuid');
my $again = q{CALL sagaz.transfer('red', 'native', on_error => 'retry', delay => '%s', max_tries => %d)};
my @break = qw(ACL SETUSER default resetkeys ~other:*);
my @mend = qw(ACL SETUSER default ~*);

$redis->cli(@break);
is(state_of(sprintf $again, '1ms', 3), 'SZ004', 'unwell: a right is missing, it ends after some tries');
like(newest('error'), qr/NOPERM/, 'unwell: and says why');
$session->ask(sprintf($again, '100ms', 1000) . ';');
ok($node->poll_query_until('postgres', q{SELECT error LIKE 'attempt % of 1000: %' AND state = 'running' FROM sagaz.transfers ORDER BY transfer_id DESC LIMIT 1}), 'unwell: it waits for the right');
$redis->cli(@mend);
is($session->answer =~ /^ERROR/m, '', 'unwell: and goes on');
is(newest('state, transferred'), 'completed|40', 'unwell: to the end');
is(state_of(sprintf $again, '1ms', 0), 'SZ009', 'unwell: no tries are too few');
is(state_of(sprintf $again, '2 hours', 3), 'SZ009', 'unwell: a wait that nobody means');

# ----------------------------------------------------------------------
# A switch closes every group of the source

clear();
remove('target.db');
sql('DELETE FROM sagaz.consumer_group');
$session->query(q{SELECT sagaz.insert_event('s', 'E', '1')});
is(state_of(q{CALL sagaz.migrate('native', 'target', switch => true)}), '', 'switch: with a group that nobody has used');
is(sql(q{SELECT count(*) FROM sagaz.claim_batch('w', storage => 'native')}), 0, 'switch: it is closed, too');
is(sql(q{SELECT count(*) FROM sagaz.claim_batch('w', storage => 'target')}), 1, 'switch: the target hands out');

$session->close;
done_testing();
