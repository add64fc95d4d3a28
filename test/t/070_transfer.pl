# CALL sagaz.transfer() between any two storages: every record arrives as it
# is, once, whatever was there before.
use strict;
use warnings;

use File::Copy;
use PostgreSQL::Test::Utils;
use SagazRecord;
use SagazRedis;
use SagazTest;
use SagazTransfer;
use Test::More;

my $places = SagazTransfer->new;
my ($node, $other, $files) = @$places{qw(node other files)};
my @kinds = qw(native memory sqlite redis library sagaz);
my @types = qw(saga outbox);

# ----------------------------------------------------------------------
# Asking

# Columns of the newest transfer.
sub newest
{
	my ($session, $columns) = @_;
	return $session->query("SELECT $columns FROM sagaz.transfers ORDER BY transfer_id DESC LIMIT 1");
}

sub counts
{
	return newest($_[0], 'state, total, transferred, unchanged, kept, failed, skipped');
}

# A transfer that works; its counts.
sub transfer
{
	my ($session, $source, $target, $more) = @_;
	my $outcome = $session->outcome("CALL sagaz.transfer('$source', '$target'" . ($more // '') . ');');

	return $outcome =~ /^\d+\n\z/ ? counts($session) : $outcome . newest($session, 'error');
}

sub verified
{
	my ($session, $type, @numbers) = @_;
	return newest($session, join ', ', map { "verification->'$type'->'$_'" } @numbers);
}

sub contents
{
	my ($session, $type, $storage) = @_;
	return $session->query("SELECT sagaz.count_records('$type', '$storage'), sagaz.checksum('$type', '$storage')");
}

# Records of a storage that are not so in another; digits of numbers count.
sub lacking
{
	my ($session, $type, $source, $target) = @_;

	return $session->query("SELECT count(*) FROM (SELECT r::text FROM sagaz.export_all('$type', '$source') AS r
		EXCEPT SELECT r::text FROM sagaz.export_all('$type', '$target') AS r) AS x");
}

# ----------------------------------------------------------------------
# Every pair

my $long = q{SELECT jsonb_agg('é😀 ' || n) FROM generate_series(1, 80000) AS n};
my %total;

sub fill
{
	my ($session, $storage) = @_;

	import_into($session, 'saga', $storage, awkward_sagas());
	# what is put into the log of sagaz has its order by that
	import_into($session, 'outbox', $storage, $storage =~ /native|sagaz/ ? awkward_events() : reverse awkward_events());
	$session->query("SELECT sagaz.import_record(jsonb_build_object('saga_id', 'long', 'saga_name', 'L', 'status', 'failed',
		'steps', '[]'::jsonb, 'context', jsonb_build_object('long', ($long))), 'saga', '$storage')");
	$session->query("SELECT sagaz.import_record(jsonb_build_object('event_id', '@{[event_id(2000)]}', 'saga_id', 'long',
		'event_type', 'L', 'status', 'pending', 'payload', ($long)), 'outbox', '$storage')");
	%total = (saga => awkward_sagas() + 1, outbox => awkward_events() + 1);
	is($session->query("SELECT sagaz.count_records('$_', '$storage')"), $total{$_}, "$storage has records: $_")
	  for @types;
}

# What is in the target before: something that only it has, an older saga, and
# as pending what is sent in the source.
sub fill_before
{
	my ($session, $storage) = @_;

	import_into($session, 'saga', $storage,
		'{"saga_id": "only here", "saga_name": "O", "status": "pending", "steps": [], "context": {}}',
		'{"saga_id": "x", "saga_name": "old", "status": "pending", "steps": [{"name": "old"}], "context": {"old": 1}}');
	import_into($session, 'outbox', $storage,
		sprintf('{"event_id": "%s", "saga_id": "s", "event_type": "T", "payload": 1, "status": "dead_letter"}', event_id(3)),
		map { /"@{[event_id(998)]}"/ ? s/"status": "sent"/"status": "pending"/r : () } awkward_events());
}

# Of what is there already, nothing is written again, and what has got further
# there stays.
sub run_again
{
	my ($session, $source, $target, $more) = @_;
	my $name = "$source to $target";
	my $all = $total{saga} + $total{outbox};

	is(transfer($session, $source, $target, $more), "completed|$all|0|$all|0|0|0", "$name: all is there already");
	my @claimed = split / /, $session->query("SELECT event_id FROM sagaz.claim_batch('there', 2, storage => '$target')");
	$session->query("SELECT sagaz.mark_sent('{$claimed[0]}', 'there', storage => '$target')");
	# what was claimed in the source may be handed out there by now, and is as it was then
	my (undef, undef, $written, $unchanged, $kept) = split /\|/, transfer($session, $source, $target, $more);
	is("$kept " . ($written + $unchanged), '2 ' . ($all - 2), "$name: what is further there is kept");
	# a claim in Redis also gives back what has waited there for longer than its lease
	is($written, $target =~ /redis/ ? 2 : 0, "$name: the rest is left alone") if $target !~ /native|sagaz/;
	is($session->query("SELECT e->>'status', e->>'worker_id' FROM sagaz.export_all('outbox', '$target') AS e
		WHERE e->>'event_id' = ANY ('{$claimed[0],$claimed[1]}') ORDER BY e->>'status' = 'claimed'"), 'sent|there claimed|there',
		"$name: as it was");
	is(verified($session, 'outbox', qw(missing different ahead)), '0|0|2', "$name: and is told of");

	my $handed_out = $session->query("SELECT array_agg(event_id) FROM sagaz.claim_batch('drain', 1000, storage => '$target')");
	is($session->query("SELECT count(*) > 20, count(*) FILTER (WHERE e->>'event_id' = ANY ('$handed_out'))
		FROM sagaz.export_all('outbox', '$source') AS e WHERE e->>'status' = 'sent' OR e->>'event_id' = ANY ('{$claimed[0],$claimed[1]}')"),
		't|0', "$name: nothing that is sent is handed out");
	is($session->query("SELECT count(*) > 25, count(*) FILTER (WHERE created_at < before) FROM (
		SELECT e->>'created_at' AS created_at, lag(e->>'created_at') OVER (PARTITION BY e->>'saga_id' ORDER BY place) AS before
			FROM sagaz.export_all('outbox', '$source') AS e
				JOIN unnest('$handed_out'::text[]) WITH ORDINALITY AS u (event_id, place) ON event_id = e->>'event_id'
			WHERE e->>'saga_id' LIKE 'in order%') AS x"), 't|0', "$name: the events of a saga are handed out oldest first");
}

sub test_pair
{
	my ($from, $to, $n) = @_;
	my $session = $places->{session}{ $from eq 'native' ? 'filled' : 'empty' };
	my ($source, $target) = (SagazTransfer::name($from, 'filled'), SagazTransfer::name($to, 'empty'));
	my $name = "$source to $target";
	my $more = ', batch_size => ' . (1, 7, 100, 100000)[ $n % 4 ];
	my %other = (saga => 'outbox', outbox => 'saga');

	$places->clear($to, 'empty', $session);
	fill_before($session, $target);
	for my $type ($n % 2 ? @types : reverse @types)
	{
		my $before = contents($session, $other{$type}, $target);

		is(transfer($session, $source, $target, "$more, type => '$type'"),
			"completed|$total{$type}|$total{$type}|0|0|0|0", "$name, $type: all are moved");
		is(lacking($session, $type, $source, $target), 0, "$name, $type: as they are");
		is($session->query("SELECT sagaz.count_records('$type', '$target')"), $total{$type} + 1, "$name, $type: and what was there before");
		is(verified($session, $type, qw(missing different ahead only_in_target)), '0|0|0|1', "$name, $type: it is told");
		is(contents($session, $other{$type}, $target), $before, "$name, $type: and nothing else");
	}
	run_again($session, $source, $target, $more);
}

fill($places->{session}{ $_ eq 'native' ? 'filled' : 'empty' }, SagazTransfer::name($_, 'filled')) for @kinds;
my $pairs = 0;
for my $from (@kinds)
{
	test_pair($from, $_, $pairs++) for grep { $_ ne $from } @kinds;
}

# ----------------------------------------------------------------------
# What the Python library wrote

my %redis = map { $_ => SagazRedis->new->start } qw(clean hostile);
$redis{$_}->load("test/data/redis-$_.resp") for sort keys %redis;
copy("test/data/sqlite-$_.db", "$files/$_.db") or die $! for qw(clean hostile);
$other->safe_psql('postgres', 'CREATE DATABASE written');
command_ok(
	[
		'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('written'), '-o', '/dev/null',
		'-f', 'test/data/pg-clean.sql'
	],
	'the tables of the library are loaded');

my %url = (
	(map { ("redis-$_" => $redis{$_}->url, "sqlite-$_" => "sqlite://$files/$_.db") } qw(clean hostile)),
	'pg-clean' => database_url($other, 'written'));

# How many of the hostile ones are refused, those that no jsonb can hold and
# those that a kind of storage cannot.
my %hostile = (
	'redis-hostile' => { saga => 5, outbox => 3, native => { saga => 5, outbox => 4 }, library => { saga => 7, outbox => 5 } },
	'sqlite-hostile' => { saga => 3, outbox => 2, native => { saga => 5, outbox => 4 }, library => { saga => 7, outbox => 5 }, redis => { outbox => 1 } });
$hostile{$_}{sagaz} = $hostile{$_}{native} for keys %hostile;

my %records = map { $_ => listed($_) } keys %url;

sub test_data
{
	my ($data, $type, $to) = @_;
	my $session = $places->{session}{empty};
	my $target = SagazTransfer::name($to, 'empty');
	my $name = "$data to $target, $type";
	my $all = keys %{ $records{$data}{$type} };
	my $refused = ($hostile{$data}{$type} // 0) + ($hostile{$data}{$to}{$type} // 0);

	is($session->query("SELECT compatible, sum((i->>'count')::integer) FROM sagaz.validate_transfer('$url{$data}', '$target', '$type')
		LEFT JOIN jsonb_array_elements(issues) AS i ON i->>'severity' = 'error' GROUP BY 1"),
		$refused ? "f|$refused" : 't|', "$name: it is known before how many are refused");
	is(transfer($session, $url{$data}, $target, ", type => '$type', on_error => 'skip'"),
		sprintf('completed|%d|%d|0|0|0|%d', $all, $all - $refused, $refused), "$name: all are moved or refused");
	is($session->query("SELECT count(*) FROM sagaz.export_all('$type', '$url{$data}') AS r
		WHERE r::text NOT IN (SELECT r::text FROM sagaz.export_all('$type', '$target') AS r)
			AND NOT EXISTS (SELECT FROM sagaz.transfer_error WHERE record::text = r::text)"), 0, "$name: and kept whole");
}

for my $data (sort keys %url)
{
	for my $to (@kinds)
	{
		$places->clear($to, 'empty', $places->{session}{empty});
		test_data($data, $_, $to) for @types;
	}
}

# ----------------------------------------------------------------------
# Arguments

# What a call raises, in full.
sub error_there { return error_of($node, $_[0], database => 'empty') }

my $before = $node->safe_psql('empty', 'SELECT count(*) FROM sagaz.transfer');
for my $case (
	[ q{NULL, 'native'} => 'source' ],
	[ q{'native', NULL} => 'target' ],
	[ q{'sqlite_filled', 'native', 'events'} => 'type' ],
	[ q{'sqlite_filled', 'native', NULL} => 'type' ],
	[ q{'sqlite_filled', 'native', batch_size => 0} => 'batch_size' ],
	[ q{'sqlite_filled', 'native', batch_size => -1} => 'batch_size' ],
	[ q{'sqlite_filled', 'native', batch_size => 100001} => 'batch_size' ],
	[ q{'sqlite_filled', 'native', batch_size => NULL} => 'batch_size' ],
	[ q{'sqlite_filled', 'native', on_error => 'abort'} => 'on_error' ],
	[ q{'sqlite_filled', 'native', on_error => NULL} => 'on_error' ],
	[ q{'sqlite_filled', 'native', validate => NULL} => 'validate' ])
{
	like(error_there("CALL sagaz.transfer($case->[0])"), qr/ERROR:  SZ009: .*$case->[1]/, "refused: $case->[0]");
}
like(error_there($_), qr/ERROR:  SZ009: transfer_id must not be null/, $_)
  for 'CALL sagaz.resume_transfer(NULL)', 'CALL sagaz.retry_transfer_errors(NULL)';
like(error_there($_), qr/ERROR:  SZ002: .*424242/, $_)
  for 'CALL sagaz.resume_transfer(424242)', 'CALL sagaz.retry_transfer_errors(424242)', 'SELECT sagaz.cancel_transfer(424242)';
like(error_there(q{CALL sagaz.transfer('none such', 'native')}), qr/ERROR:  SZ002: .*none such/, 'a storage that there is not');
like(error_there(q{CALL sagaz.transfer('mysql://host', 'native')}), qr/ERROR:  SZ000: .*mysql/, 'nor a backend for it');

# One place under two names
sub same_place
{
	my ($one, $two) = @_;

	like(error_there("CALL sagaz.transfer('$one', '$two')"), qr/ERROR:  SZ009: source and target are the same storage/,
		"refused: $one to $two");
	is($node->safe_psql('empty', "SELECT issues->0->>'code' FROM sagaz.validate_transfer('$one', '$two')"), 'same_storage',
		"and found out before: $one to $two");
}

my $redis = $places->{redis}{filled};
same_place('native', 'native');
same_place('native', database_url($node, 'empty'));
same_place(database_url($node, 'empty'), 'native');
same_place('sqlite_filled', 'sqlite_filled');
same_place('sqlite_filled', "sqlite://$files/../" . ($files =~ s{.*/}{}r) . '/filled.db');
symlink "$files/filled.db", "$files/link.db" or die $!;
same_place("sqlite://$files/link.db", 'sqlite_filled');
same_place('redis_filled', $redis->url);
same_place('redis_filled', $redis->url . '?db=0');
same_place('memory_filled', 'memory_filled');
same_place('library_filled', database_url($other, 'library_filled'));
same_place('library_filled', database_url($other, 'library_filled', 'postgres'));
same_place('sagaz_filled', database_url($other, 'sagaz_filled'));
is(error_there(q{CALL sagaz.transfer('sqlite_filled', 'memory://other', type => 'saga', validate => false)}), '', 'two places are two');
is($node->safe_psql('empty', 'SELECT count(*) FROM sagaz.transfer'), $before + 1, 'what is refused so leaves no trace');

# A transaction block
like(error_there(q{BEGIN; CALL sagaz.transfer('sqlite_filled', 'memory://block'); COMMIT}), qr/NOTICE:  00000: in a transaction block, all of the transfer is one transaction/,
	'in a transaction block it says so');
is($node->safe_psql('empty', 'SELECT count(*) FROM sagaz.transfer'), $before + 2, 'and works');
error_there(q{BEGIN; CALL sagaz.transfer('sqlite_filled', 'memory://block'); ROLLBACK});
is($node->safe_psql('empty', 'SELECT count(*) FROM sagaz.transfer'), $before + 2, 'as one transaction');

$places->{session}{$_}->close for qw(filled empty);
done_testing();
