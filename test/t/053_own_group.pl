# A storage whose option consumer_group names a group of its own: every call that
# names none means that one, and so does the program.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazProgram;
use SagazRedis;
use SagazTest;
use Test::More;

my $node = new_node('near', conf => "fsync = off");
my $other = new_node('far', conf => "fsync = off");
my %has = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT name FROM sagaz.backends()');
my $redis = $has{redis} ? SagazRedis->new : undef;
$redis->start if $redis;

$other->safe_psql('postgres', "SELECT sagaz.create_consumer_group('mine'); CREATE DATABASE library");
sub url { return sprintf 'postgresql://%s:%d/%s', $other->host =~ s{/}{%2F}gr, $other->port, $_[0] }
my %url = (
	memory => 'memory://mine',
	sqlite => 'sqlite://' . $node->basedir . '/mine.db',
	redis => $redis ? $redis->url : undef,
	postgresql => url('postgres'),
	library => url('library'));
my $id = '00000000-0000-4000-8000-00000000000';
connect_to($node, 'postgres');

for my $s (sort grep { $has{ $_ eq 'library' ? 'postgresql' : $_ } } keys %url)
{
	$node->safe_psql('postgres', "SELECT sagaz.create_storage('$s', '$url{$s}', options => '{\"consumer_group\": \"mine\"}')");
	# one session, as one in memory ends with it
	my ($out, $err) = ('', '');
	$node->psql('postgres', <<"SQL", stdout => \$out, stderr => \$err);
SELECT count(sagaz.insert_event('s', 'E', '1', event_id => ('$id' || i)::uuid, storage => '$s')) FROM generate_series(1, 6) i;
SELECT sagaz.get_pending_count(storage => '$s');
SELECT count(*), min(consumer_group) FROM sagaz.claim_batch('w', 4, storage => '$s');
SELECT sagaz.mark_sent('{${id}1}', 'w', storage => '$s'), sagaz.mark_failed('{${id}2}', 'w', 'x', storage => '$s');
SELECT status, consumer_group FROM sagaz.get_event('${id}1', storage => '$s');
SELECT count(*), min(consumer_group) FROM sagaz.get_events_by_saga('s', storage => '$s');
SELECT count(*) FROM sagaz.get_stuck_events('0', storage => '$s');
SELECT sagaz.release_stuck_events('0', storage => '$s');
SELECT (sagaz.update_event_status('${id}3', 'dead_letter', 'dead', storage => '$s')).consumer_group;
SELECT count(*) FROM sagaz.get_dead_letter_events(storage => '$s');
SELECT "group", dead_letter, sent FROM sagaz.get_outbox_statistics(storage => '$s');
SELECT sagaz.requeue_dead_letters(storage => '$s');
SELECT sagaz.get_pending_count(NULL, '$s') = sagaz.get_pending_count('mine', '$s');
SQL
	is($out, "6\n6\n4|mine\n1|1\nsent|mine\n6|mine\n2\n2\nmine\n1\nmine|1|1\n1\nt", "$s: its own group is the default");
	is($err, '', "$s: without a word");
	if ($s ne 'postgresql')
	{
		$node->psql('postgres', "SELECT sagaz.get_pending_count('sagaz-workers', '$s')", stderr => \$err);
		like($err, qr/has no consumer group "sagaz-workers"/, "$s: another is refused");
	}
	next if $s eq 'memory';
	$node->safe_psql('postgres', "SELECT sagaz.update_event_status('${id}4', 'dead_letter', 'dead', storage => '$s')");
	my $status = sagaz_json(0, 'outbox', 'status', '--storage', $s);
	is($status->[0]{group} . ' ' . @$status, 'mine 1', "$s: status of the program");
	is(scalar @{ sagaz_json(0, 'outbox', 'dead-letters', '--storage', $s) }, 1, "$s: dead letters");
	is(sagaz_json(0, 'outbox', 'requeue', '--all', '--storage', $s)->{requeued}, 1, "$s: requeued");
	like(sagaz_ok('storage', 'stats', $s), qr/mine/, "$s: statistics");
	$node->safe_psql('postgres', "ALTER DATABASE postgres SET sagaz.outbox_storage = '$s'");
	is(sagaz_json(0, 'outbox', 'status')->[0]{group}, 'mine', "$s: status, where it is the default");
	$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET sagaz.outbox_storage');
}
is(scalar @{ sagaz_json(0, 'outbox', 'status') }, 0, 'here nobody has made one');
is($node->safe_psql('postgres', "SELECT count(*) FROM sagaz.claim_batch('w', 1, '0', NULL)"), '0', 'NULL is the default one here');
is(sagaz_json(0, 'outbox', 'status')->[0]{group}, 'sagaz-workers', 'which the claim has made');

done_testing();
