# What a transfer costs: round trips, counted on the way, and memory, for one
# large record and for many small ones.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazProxy;
use SagazSession;
use SagazTest;
use SagazTransfer;
use Test::More;

my $places = SagazTransfer->new;
my ($node, $other) = @$places{qw(node other)};
my $session = $places->{session}{empty};

# ----------------------------------------------------------------------
# Records

# So many sagas with three steps, and events, of so many bytes each.
sub fill
{
	my ($session, $storage, $count, $bytes) = @_;

	$session->query("SELECT sagaz.import_records((SELECT jsonb_agg(jsonb_build_object('saga_id', 'saga' || n, 'saga_name', 'M', 'status', 'pending',
		'steps', '[{\"name\": \"a\"}, {\"name\": \"b\"}, {\"name\": \"c\"}]'::jsonb, 'context', jsonb_build_object('x', repeat('x', $bytes)))) FROM generate_series(1, $count) n), 'saga', 'replace', '$storage')");
	$session->query("SELECT sagaz.import_records((SELECT jsonb_agg(jsonb_build_object('event_id', '00000000-0000-4000-8000-' || lpad(n::text, 12, '0'),
		'saga_id', 's' || n % 10, 'event_type', 'E', 'payload', repeat('x', $bytes), 'status', 'pending', 'created_at', '2025-01-01T00:00:00Z'::timestamptz + n * interval '1 s'))
		FROM generate_series(1, $count) n), 'outbox', 'replace', '$storage')");
}

sub transferred
{
	my ($session, $source, $target, $more) = @_;

	$session->query("CALL sagaz.transfer('$source', '$target'" . ($more // '') . ')');
	return $session->query('SELECT state, transferred FROM sagaz.transfers ORDER BY transfer_id DESC LIMIT 1');
}

# ----------------------------------------------------------------------
# Round trips

my ($records, $batch) = (3000, 100);
my $batches = $records / $batch;

# What each batch costs where it is not one round trip.
my %a_batch = (
	'saga to redis' => 3);	# what is there is watched, its places are looked at, then it is written

fill($session, 'sqlite_filled', $records, 20);

my %proxy = (
	redis => SagazProxy->new($places->{redis}{empty}{socket}, 's'),
	postgres => SagazProxy->new($other->host . '/.s.PGSQL.' . $other->port, '.s.PGSQL.' . $other->port));

sub postgres_by_proxy
{
	my ($database) = @_;
	return sprintf 'postgresql://@%s:%d/%s', $proxy{postgres}{dir} =~ s{/}{%2F}gr, $other->port, $database;
}

my %url = (
	redis => "unix://$proxy{redis}{path}",
	library => postgres_by_proxy('library_empty'),
	sagaz => postgres_by_proxy('sagaz_empty'));

for my $case (map { my $kind = $_; map { [ $kind, $_ ] } qw(saga outbox) } sort keys %url)
{
	my ($kind, $type) = @$case;
	my $proxy = $proxy{redis} if $kind eq 'redis';
	$proxy //= $proxy{postgres};
	my $way = ", '$type', $batch, validate => false";

	$session->query("SELECT sagaz.count_records('$type', '$url{$kind}')");
	my $written = $proxy->round_trips(sub {
		is(transferred($session, 'sqlite_filled', $url{$kind}, $way), "completed|$records", "$type to $kind");
	});
	my $again = $proxy->round_trips(sub {
		is(transferred($session, 'sqlite_filled', $url{$kind}, $way), 'completed|0', "$type to $kind again");
	});
	my $read = $proxy->round_trips(sub {
		is(transferred($session, $url{$kind}, 'memory://' . join('_', @$case), $way), "completed|$records", "$type from $kind");
	});
	diag("$type, $kind: written in $written, again in $again, read in $read round trips, $batches batches");
	cmp_ok($written, '<=', ($a_batch{"$type to $kind"} // 1) * $batches + 30, "$type to $kind: round trips");
	cmp_ok($read, '<=', $batches + 10, "$type from $kind: round trips");
}

# ----------------------------------------------------------------------
# Memory

# The most that a session's process ever had, in MB, without what is shared.
sub peak
{
	my ($pid) = @_;
	my $status = slurp_file("/proc/$pid/status");
	my ($all) = $status =~ /^VmHWM:\s+(\d+) kB/m or die $status;

	return $all / 1024;
}

sub has_grown
{
	my ($what, $limit, $source, $target, $more) = @_;
	my $fresh = SagazSession->new($node, 'empty');

	# what every transfer needs, and the shared buffers
	transferred($fresh, 'sqlite_filled', $target =~ /^memory/ ? 'memory://warm' : $target, ", batch_size => 1000");
	$fresh->query("SELECT sagaz.count_records('saga', '$source'), sagaz.count_records('outbox', '$source')");
	my $before = peak($fresh->{pid});
	is(transferred($fresh, $source, $target, $more) =~ /^completed\|/, 1, "$what, $source to $target: completed");
	my $grown = peak($fresh->{pid}) - $before;
	diag(sprintf '%s, %s to %s: %.0f MB more', $what, $source, $target, $grown);
	grows_less($grown, $limit, "$what, $source to $target: memory");
	$fresh->close;
}

# Many small records, put into a file as the library would
my $small = 90_000;
my $files = $places->{files};

$session->query("SELECT sagaz.create_storage('$_', 'sqlite://$files/$_.db')") for qw(small large);
$session->query(qq{SELECT sagaz.save_saga_state('first', 'F', 'pending', storage => 'small'), sagaz.insert_event('first', 'E', '1', storage => 'small')});
system('sqlite3', "$files/small.db", <<"SQL") == 0 or die;
WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $small)
INSERT INTO sagas SELECT 'saga ' || n, 'S', 'completed', '[]', '{"n": ' || n || '}', NULL, '2025-03-01T08:00:01+00:00', '2025-03-01T08:00:01+00:00' FROM n;
WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $small)
INSERT INTO outbox_events (event_id, saga_id, event_type, payload, status, created_at)
	SELECT printf('00000000-0000-4000-9000-%012d', n), 'saga ' || n % 1000, 'E', '{"n": ' || n || '}', 'pending', printf('2025-03-01T08:%02d:%02d.%06d+00:00', n / 3600, n / 60 % 60, n) FROM n;
SQL
$session->query("SELECT sagaz.create_storage('fresh', '@{[$places->{redis}{empty}->url]}', options => '{\"saga_prefix\": \"fresh:\", \"outbox_prefix\": \"fresh-outbox\"}')");
has_grown('many', 40, 'small', 'fresh');
has_grown('many', 40, 'fresh', 'native', ", 'outbox'");

# So many at once that they would not all fit
$session->query(q{SELECT sagaz.import_record(jsonb_build_object('saga_id', n::text, 'saga_name', 'L', 'status', 'failed', 'steps', '[]'::jsonb,
	'context', jsonb_build_object('x', repeat('x', 1000000))), 'saga', 'large') FROM generate_series(1, 200) AS n});
has_grown('wide', 100, 'large', 'native', ", 'saga', 100000");
has_grown('wide', 250, 'native', 'sagaz_empty', ", 'saga', 100000");
$session->query(q{SELECT sagaz.delete_saga_state(n::text, 'large') FROM generate_series(1, 200) AS n});
$places->clear('native', 'empty');

# A large one
$session->query(q{SELECT sagaz.import_record(jsonb_build_object('saga_id', 'large', 'saga_name', 'L', 'status', 'failed', 'steps', '[]'::jsonb,
	'context', jsonb_build_object('x', repeat('x', 20000000))), 'saga', 'large')});
has_grown('large', 20 * 16, 'large', 'redis_filled');
has_grown('large', 20 * 16, 'redis_filled', 'library_filled');
has_grown('large', 20 * 16, 'library_filled', 'sagaz_filled');
has_grown('large', 20 * 16, 'sagaz_filled', 'native');

$session->close;
done_testing();
