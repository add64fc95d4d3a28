# What all storages do alike where their records are odd: a claim from before the
# clock was set back holds no event, what cannot be listed takes no place, and
# what the Python library could not read is not written where it reads.
use strict;
use warnings;

use SagazRedis;
use SagazSession;
use SagazTest;
use Test::More;

my $node = new_node('near', conf => "fsync = off\n");
my $dir = $node->basedir;
my %has = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT name FROM sagaz.backends()');
my $redis = $has{redis} && SagazRedis->new->start;
my $session = SagazSession->new($node, 'postgres');
my %url = (memory => 'memory://m');
$url{sqlite} = "sqlite://$dir/s.db" if $has{sqlite};
$url{redis} = $redis->url if $redis;
if ($has{postgresql})
{
	$node->safe_psql('postgres', 'CREATE DATABASE library');
	$url{library} = sprintf 'postgresql://%s:%d/library', $node->host =~ s{/}{%2F}gr, $node->port;
}

my $id = '00000000-0000-4000-8000-00000000000';
for my $s (sort keys %url)
{
	$session->query(<<"SQL");
SELECT sagaz.create_storage('$s', '$url{$s}');
CREATE SCHEMA $s; IMPORT FOREIGN SCHEMA sagaz FROM SERVER $s INTO $s;
SELECT sagaz.insert_event('s', 'E', '1', event_id => ('$id' || i)::uuid, storage => '$s') FROM generate_series(1, 3) i
SQL
	my $batch = $session->query("SELECT max(batch_id) FROM sagaz.claim_batch('old', 1, storage => '$s')");
	$session->query("SELECT sagaz.extend_batch($batch, 'old', '1 hour', '$s'); SELECT count(*) FROM sagaz.claim_batch('old', 2, storage => '$s')");
	is($session->query("SELECT count(*) FROM sagaz.claim_batch('new', 9, storage => '$s')"), 0, "$s: three are claimed, one of them for longer");

	$session->query("UPDATE $s.outbox_events SET claimed_at = now() + '1 day' WHERE event_id IN ('${id}1', '${id}2')");
	is($session->query("SELECT count(*) FROM sagaz.get_stuck_events('1 min', storage => '$s')"), 2, "$s: claims from the future are old");
	my $got = join ' ', map { $session->query("SELECT event_id FROM sagaz.claim_batch('new', 9, storage => '$s')") } 1 .. 3;
	like($got, qr/\A\s*${id}2\s*\z/, "$s: one is handed out, but for the one that was extended");

	my $reads = $s eq 'memory' ? '' : 'SZ003';
	for ([ 'repeat(\'9\', %d)', 4300 ], [ 'repeat(\'[\', %1$d) || repeat(\']\', %1$d)', 900 ])
	{
		my ($document, $most) = @$_;
		for my $n ($most, $most + 1)
		{
			my $json = sprintf "($document)::jsonb", $n;
			my $state = $n > $most ? $reads : '';
			for my $sql ("sagaz.save_saga_state('deep', 'S', 'pending', context => $json, storage => '$s')", "sagaz.insert_event('s', 'E', $json, storage => '$s')",
				"sagaz.import_record(jsonb_build_object('saga_id', 'in', 'saga_name', 'S', 'status', 'pending', 'metadata', $json), 'saga', storage => '$s')")
			{
				is($session->outcome("SELECT 1 FROM (SELECT $sql) AS x;") =~ /ERROR (\w+)/ ? $1 : '', $state, "$s: $n: " . substr $sql, 0, 25);
			}
		}
	}
	$session->query("SELECT sagaz.save_saga_state('deeper', 'S', 'pending', context => repeat('9', 4301)::jsonb)");
	is($session->query("SELECT compatible FROM sagaz.validate_transfer('native', '$s', 'saga')"), $reads ? 'f' : 't', "$s: a transfer knows before");
	$session->query("SELECT sagaz.delete_saga_state('deep', '$s'), sagaz.delete_saga_state('in', '$s')");

	$session->query("SELECT count(sagaz.save_saga_state('saga' || i, 'S', 'pending', storage => '$s')) FROM generate_series(1, 9) i");
	if ($s eq 'sqlite') { system('sqlite3', "$dir/s.db", "UPDATE sagas SET status = 'odd' WHERE saga_id IN ('saga9', 'saga7', 'saga6')") == 0 or die }
	elsif ($s eq 'library') { $node->safe_psql('library', "UPDATE sagas SET status = 'odd' WHERE saga_id IN ('saga9', 'saga7', 'saga6')") }
	elsif ($s eq 'redis') { $redis->cli('HSET', "saga:saga$_", 'data', '{') for 9, 7, 6 }
	else { next }
	is($session->query("SET client_min_messages = error; SELECT saga_id FROM sagaz.list_sagas(max_rows => 2, skip_rows => 1, storage => '$s')"),
		'saga5 saga4', "$s: what cannot be read takes no place in a list");
}

$session->close;
done_testing();
