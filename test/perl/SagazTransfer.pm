# What the tests of transfers share: places for records of every kind of
# storage, twice, so that any can be copied to any; awkward records; and the
# rows of sagaz.transfers.
package SagazTransfer;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use Test::More;

our @EXPORT = qw(database_url awkward_sagas awkward_events event_id import_into);

# ----------------------------------------------------------------------
# Places

sub database_url
{
	my ($node, $database, $login) = @_;

	return sprintf 'postgresql://%s@%s:%d/%s', $login // '', $node->host =~ s{/}{%2F}gr,
	  $node->port, $database;
}

# Two of each kind: "filled" for sources, "empty" for targets.  The native tables
# of a database are either; a session in each database knows all the others.
sub new
{
	my ($class, %options) = @_;
	my $conf = "fsync = off\ntimezone = 'UTC'\nsagaz.retry_backoff = '1h'\nsagaz.memory_limit = 256MB\n";
	my $self = bless {
		node => new_node('here', conf => $conf . ($options{conf} // '')),
		other => new_node('there', conf => $conf . ($options{other_conf} // '')),
		files => PostgreSQL::Test::Utils::tempdir()
	}, $class;

	for my $place (qw(filled empty))
	{
		$self->{redis}{$place} = SagazRedis->new(%{ $options{redis} // {} })->start;
		$self->{node}->safe_psql('postgres', "CREATE DATABASE $place");
		$self->{node}->safe_psql($place, 'CREATE EXTENSION sagaz');
		$self->{other}->safe_psql('postgres', "CREATE DATABASE library_$place");
		$self->{other}->safe_psql('postgres', "CREATE DATABASE sagaz_$place");
		$self->{other}->safe_psql("sagaz_$place", 'CREATE EXTENSION sagaz');
	}
	for my $place (qw(filled empty))
	{
		$self->name_storages($place);
		$self->{session}{$place} = SagazSession->new($self->{node}, $place);
		$self->{session}{$place}->query('SET client_min_messages = error');
	}
	return $self;
}

sub urls
{
	my ($self, $place) = @_;

	return (
		memory => "memory://$place",
		sqlite => "sqlite://$self->{files}/$place.db",
		redis => $self->{redis}{$place}->url,
		library => database_url($self->{other}, "library_$place"),
		sagaz => database_url($self->{other}, "sagaz_$place"));
}

sub name_storages
{
	my ($self, $database) = @_;

	for my $place (qw(filled empty))
	{
		my %url = $self->urls($place);

		$self->{node}->safe_psql($database, join ';', map {
			"SELECT sagaz.create_storage('${_}_$place', '$url{$_}')" } sort keys %url);
	}
}

# The name of a kind of storage, as a session in any database has it.
sub name
{
	my ($kind, $place) = @_;
	return $kind eq 'native' ? $kind : "${kind}_$place";
}

# What is in the native tables of a database goes.
sub clear_tables
{
	my ($node, $database) = @_;

	$node->safe_psql($database, 'TRUNCATE ' . join ', ', map { "sagaz.$_" }
		qw(sagas saga_steps outbox outbox_batch outbox_receipt outbox_retry outbox_archive));
}

# Nothing is left in a place; the memory is that of the session, which has other
# names for it and for the file from then on.
sub clear
{
	my ($self, $kind, $place, $session) = @_;

	return clear_tables($self->{node}, $place) if $kind eq 'native';
	return clear_tables($self->{other}, "sagaz_$place") if $kind eq 'sagaz';
	return $self->{redis}{$place}->cli('FLUSHALL') if $kind eq 'redis';
	return $self->{other}->safe_psql("library_$place", <<'SQL') if $kind eq 'library';
SELECT 'TRUNCATE ' || string_agg(oid::regclass::text, ', ') FROM pg_class
	WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' \gexec
SQL
	my $name = $place . ++$self->{fresh};
	append_to_file("$self->{files}/$name.db", '') if $kind eq 'sqlite';
	my $url = $kind eq 'memory' ? "memory://$name" : "sqlite://$self->{files}/$name.db";
	$session->query("SELECT sagaz.drop_storage('${kind}_$place'), sagaz.create_storage('${kind}_$place', '$url')");
}

# ----------------------------------------------------------------------
# Records

sub event_id
{
	return sprintf '00000000-0000-4000-8000-%012d', $_[0];
}

# JSON that is easily bent on the way.
my @values = (
	'1.0', '1e400', '-1e-300', '12345678901234567890', '1180591620717411303424', '-0.0', '0.1', '1e-07', '1e22',
	'9007199254740993', 'null', 'true', 'false', '""', '[]', '{}', '[null, [], {}, ""]', '{"": {"": ""}}',
	'"é ☃ 😀 e\u0301"', '"\\u0001\\u001f\\u007f\\u2028"', '"\\" \\\\ / \\n\\r\\t\\b\\f"', '"null"', '"1.0"',
	'"%s %d ; \' \\" -- $1 {a,b}"', '{"__type__": "datetime", "value": "2024-02-29T23:59:59.678901+00:00"}',
	'{"__type__": "decimal", "value": "1.10"}', '{"__type__": "none such", "value": 1}',
	'{"b": 1, "a": 2, "aa": 3, "é": 4}', '[1, 1.0, 1.00, "1"]');

my @texts = (
	'x', ' ', "two\nlines", "tab\there", 'it\'s "quoted"', 'back\\slash', '*?[a-z]', '100%', 'a:b:c', ':step:', 'é☃😀',
	'{"json": 1}', 'null', '$1', ' padded ', 'n' x 255);

my @times = map { "\"$_\"" } (
	'2024-02-29T23:59:59.678901+00:00', '2025-03-01T08:00:17+00:00', '2000-01-01T00:00:00+00:00',
	'1999-12-31T23:59:59.999999+00:00', '1970-01-01T00:00:00+00:00', '0001-01-01T00:00:00+00:00',
	'9999-12-31T23:59:59.999999+00:00', '2024-06-01T00:00:00.000001+05:30');

my @saga_status = qw(pending executing completed compensating failed rolled_back partially_committed forward_recovery);
my @step_status = qw(pending executing completed compensating compensated failed tainted skipped);
my @event_status = qw(pending claimed sent failed dead_letter);

sub quote
{
	my ($text) = @_;
	return 'null' unless defined $text;
	my %short = ("\n" => '\\n', "\t" => '\\t');
	return '"' . $text =~ s/(["\\])/\\$1/gr =~ s/([\n\t])/$short{$1}/gr . '"';
}

sub pick
{
	my ($list, $n) = @_;
	return $list->[ $n % @$list ];
}

sub step
{
	my ($n, $name) = @_;

	return sprintf '{"name": %s, "status": "%s", "result": %s, "error": %s, "executed_at": %s, "compensated_at": %s, "retry_count": %d%s}',
	  quote($name), pick(\@step_status, $n), pick(\@values, $n), $n % 3 ? 'null' : quote(pick(\@texts, $n)),
	  $n % 2 ? pick(\@times, $n) : 'null', $n % 5 ? 'null' : pick(\@times, $n + 1), $n % 4,
	  $n % 4 ? '' : sprintf ', "note": %s, "another key": %s', pick(\@values, $n + 3), quote(pick(\@texts, $n));
}

# As many sagas as there are of anything awkward, as JSON texts.
sub awkward_sagas
{
	my @sagas;
	my $deep = '[' x 400 . '1' . ']' x 400;

	for my $n (0 .. 63)
	{
		my @steps = map { step($n + $_, pick(\@texts, $n + $_)) } 1 .. $n % 6;

		push @sagas, sprintf '{"saga_id": %s, "saga_name": %s, "status": "%s", "steps": [%s], "context": %s, "metadata": %s, "created_at": %s, "updated_at": %s}',
		  quote($n < @texts ? $texts[$n] : "saga $n"), quote(pick(\@texts, $n + 1)), pick(\@saga_status, $n),
		  join(', ', @steps), pick([ map { qq({"v": $_}) } @values, $deep ], $n), $n % 3 ? 'null' : qq({"m": @{[ pick(\@values, $n + 5) ]}}),
		  pick(\@times, $n), pick(\@times, $n + 3);
	}
	return @sagas;
}

# Every status with every set of the fields that may be missing.  The ids rise as
# the times fall.
sub awkward_events
{
	my @events;

	for my $n (0 .. 159)
	{
		my $bits = int($n / 5);
		my $has = sub { $bits & 1 << $_[0] };

		push @events, sprintf '{"event_id": "%s", "saga_id": %s, "aggregate_type": %s, "aggregate_id": %s, "event_type": %s, "payload": %s, "headers": %s, "status": "%s", '
		  . '"created_at": "2025-01-%02dT00:00:%02d.%06d+00:00", "claimed_at": %s, "sent_at": %s, "retry_count": %d, "last_error": %s, "worker_id": %s, "routing_key": %s, "partition_key": %s}',
		  event_id(1000 - $n), quote(pick(\@texts, $n % 7)), quote($n % 11 ? 'saga' : pick(\@texts, $n)), quote(pick(\@texts, $n % 7)),
		  quote(pick(\@texts, $n + 2)), pick(\@values, $n), $n % 2 ? '{}' : qq({"h": @{[ pick(\@values, $n + 1) ]}, "é": "x"}),
		  $event_status[ $n % 5 ], 1 + $n / 20, $n % 50, $n * 7919 % 1_000_000,
		  $has->(0) ? '"2025-02-01T00:00:00.000001+00:00"' : 'null', $has->(1) ? '"2025-02-02T12:30:00+00:00"' : 'null',
		  $n % 4, $has->(2) ? quote(pick(\@texts, $n)) : 'null', $has->(3) ? quote(pick(\@texts, $n + 4)) : 'null',
		  $has->(4) ? quote(pick(\@texts, $n + 5)) : 'null', $has->(4) ? quote(pick(\@texts, $n + 6)) : 'null';
	}
	# and some that wait
	push @events, map { sprintf '{"event_id": "%s", "saga_id": "in order %d", "event_type": "Ordered", "payload": %d, "status": "pending", "created_at": "2025-04-%02dT00:00:00.%06d+00:00"}',
		event_id(3000 - $_), $_ % 3, $_, 1 + $_ / 2, $_ % 2 } 1 .. 30;
	return @events;
}

# Write records, given as JSON texts, with a session.
sub import_into
{
	my ($session, $kind, $storage, @records) = @_;
	my $list = '[' . join(', ', @records) . ']';

	return $session->query("SELECT sagaz.import_records(\$json\$$list\$json\$, '$kind', 'replace', '$storage')");
}

1;
