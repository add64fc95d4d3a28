# doc/postgres_exporter.yml: YAML, and each query runs as a role that may only
# monitor, gives the columns that are described, and says what is so.
use strict;
use warnings;

use CPAN::Meta::YAML;
use PostgreSQL::Test::Utils;
use SagazTest;
use Test::More;

my $node = new_node('exporter', conf => "sagaz.max_retries = 0\n");
my ($queries) =
  CPAN::Meta::YAML->read_string(slurp_file('doc/postgres_exporter.yml'))->@*;

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE exporter LOGIN;
SELECT sagaz.grant_access('exporter', 'monitor');
CREATE FUNCTION public.handle(events sagaz.outbox_event[]) RETURNS void
	LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM unnest(events) WHERE event_type = 'bad') THEN
		RAISE EXCEPTION 'bad';
	END IF;
END $$;
SELECT sagaz.create_consumer_group('bills');
SELECT sagaz.create_delivery('to_bills', 'public.handle(sagaz.outbox_event[])', 'bills');
SELECT sagaz.insert_events('[{"saga_id": "a", "event_type": "good", "payload": {}},
	{"saga_id": "b", "event_type": "bad", "payload": {}},
	{"saga_id": "c", "event_type": "good", "payload": {}}]');
SQL
$node->poll_query_until('postgres',
	q(SELECT delivered = 2 AND dead = 1 AND state = 'idle' FROM sagaz.stat_delivery))
  or die 'nothing was delivered';
$node->safe_psql('postgres', q(
SELECT sagaz.pause_delivery('to_bills');
SELECT sagaz.insert_event('d', 'good', '{}');
));
$node->poll_query_until('postgres',
	'SELECT pid IS NULL FROM sagaz.stat_delivery')
  or die 'the worker did not end';

# The rows of a query, each as a hash of its columns.
sub rows_of
{
	my ($name) = @_;
	my $query = $queries->{$name}{query};

	return map {
		my $row = $_;
		+{ map { split /=/, $_, 2 } split /\t/, $row }
	} split /\n/, $node->safe_psql('postgres', <<"SQL", extra_params => [ '-U', 'exporter' ]);
SELECT string_agg(key || '=' || value, E'\\t')
	FROM (SELECT row_number() OVER () AS n, q.* FROM ($query) AS q) AS r,
		jsonb_each_text(to_jsonb(r) - 'n') GROUP BY n ORDER BY n
SQL
}

is_deeply([ sort keys %$queries ],
	[qw(sagaz sagaz_delivery sagaz_group)], 'the queries');
for my $name (sort keys %$queries)
{
	my %described = map { %$_ } $queries->{$name}{metrics}->@*;
	my ($row) = rows_of($name);
	my @labels = grep { $described{$_}{usage} eq 'LABEL' } keys %described;

	is_deeply([ sort keys %$row ], [ sort keys %described ],
		"$name: what is described is what comes");
	is_deeply(
		[ grep { $_->{usage} !~ /^(?:LABEL|GAUGE|COUNTER)$/ || !$_->{description} }
			  values %described ],
		[], "$name: each has a usage and a description");
	delete @$row{@labels};
	is_deeply([ grep { !/^-?[\d.]+(?:e[-+]?\d+)?$/ } values %$row ],
		[], "$name: numbers, but for the labels");
}

my ($server) = rows_of('sagaz');
is("$server->{health} $server->{active} $server->{launcher}",
	'1 1 1', 'a dead letter degrades the health');
my ($group) = rows_of('sagaz_group');
is("$group->{consumer_group} $group->{pending} $group->{dead_letter}",
	'bills 1 1', 'a group');
my ($delivery) = rows_of('sagaz_delivery');
is( join(' ', @$delivery{qw(name consumer_group running paused delivered failed dead lag_events)}),
	'to_bills bills 0 1 2 0 1 1', 'a delivery');
$node->stop;

done_testing();
