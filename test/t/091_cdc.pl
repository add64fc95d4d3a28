# doc/cdc.md: what logical decoding gives of the outbox is what the router's
# options there name, and who polls the view in its order misses nothing.
use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Utils;
use SagazSession;
use SagazTest;
use Test::More;

my $node = new_node('cdc', init => { allows_streaming => 'logical' });
my $document = slurp_file('doc/cdc.md');
my @sql = $document =~ /^```sql\n(.*?)^```$/msg;
my ($json) = $document =~ /^```json\n(.*?)^```$/ms;
my %config = %{ decode_json($json)->{config} };

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# The messages of pgoutput since the last call, each its type and its body.
sub messages
{
	my $hex = sql(<<"SQL");
SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('$config{'slot.name'}',
	NULL, NULL, 'proto_version', '1', 'publication_names', '$config{'publication.name'}')
SQL
	return map { unpack 'a a*', pack 'H*', $_ } split /\n/, $hex;
}

# The rows inserted, as a client of the protocol reads them: hashes by column.
sub captured
{
	my @messages = messages();
	my (@columns, @rows);

	while (my ($type, $body) = splice @messages, 0, 2)
	{
		if ($type eq 'R')
		{
			my ($schema, $table, $count, $rest) =
			  (unpack 'N Z* Z* C n a*', $body)[ 1, 2, 4, 5 ];
			is("$schema.$table", $config{'table.include.list'}, 'the table');
			my @parts = unpack "(C Z* N N)$count", $rest;
			@columns = @parts[ map { 4 * $_ + 1 } 0 .. $count - 1 ];
		}
		elsif ($type eq 'I')
		{
			my ($count, $rest) = (unpack 'N a n a*', $body)[ 2, 3 ];
			my %row;
			for my $column (@columns[ 0 .. $count - 1 ])
			{
				(my $kind, $rest) = unpack 'a a*', $rest;
				($row{$column}, $rest) = $kind eq 't' ? unpack 'N/a a*', $rest : (undef, $rest);
			}
			push @rows, \%row;
		}
		else
		{
			like($type, qr/^[BCOY]$/, 'no update, no delete') or diag($type);
		}
	}
	return @rows;
}

# What the router makes of a row, by the options of the document.
sub routed
{
	my ($row) = @_;
	my $prefix = 'transforms.outbox.';
	my $field = sub {
		my ($name) = @_;
		exists $row->{$name} or die "the document names column $name";
		return $row->{$name};
	};
	my $routed = $field->($config{ $prefix . 'route.by.field' });

	return {
		topic => $config{ $prefix . 'route.topic.replacement' } =~ s/\$\{routedByValue\}/$routed/r,
		id => $field->($config{ $prefix . 'table.field.event.id' }),
		key => $field->($config{ $prefix . 'table.field.event.key' }),
		value => decode_json($field->($config{ $prefix . 'table.field.event.payload' })),
		map {
			my ($column, $placement, $name) = split /:/;
			("$placement $name" => $field->($column))
		} split /,/, $config{ $prefix . 'table.fields.additional.placement' }
	};
}

# Debezium's way.
sql($sql[0]);
sql(qq(SELECT pg_create_logical_replication_slot('$config{'slot.name'}', '$config{'plugin.name'}')));
my $first = sql(q{SELECT sagaz.insert_event('order-1', 'OrderPlaced', '{"total": 42}')});
my $second = sql(<<'SQL');
INSERT INTO sagaz.emit (saga_id, event_type, payload, aggregate_type, aggregate_id, headers)
	VALUES ('order-2', 'Paid', '{"by": "card"}', 'payment', 'p-7', '{"trace": "x"}') RETURNING event_id
SQL
my $third = sql(q{SELECT (sagaz.insert_events('[{"saga_id": "order-1", "event_type": "Paid", "payload": {}}]'))[1]});
sql(q{BEGIN; SELECT sagaz.insert_event('order-3', 'OrderPlaced', '{}'); ROLLBACK});
my @messages = map { routed($_) } captured();
like(delete $_->{'header createdAt'}, qr/^\d{4}-\d\d-\d\d \d\d:/, 'a time') for @messages;
is_deeply(
	\@messages,
	[
		{
			topic => 'outbox.event.saga', id => $first, key => 'order-1', value => { total => 42 },
			'header eventType' => 'OrderPlaced', 'header aggregateId' => undef, 'header headers' => '{}'
		},
		{
			topic => 'outbox.event.payment', id => $second, key => 'order-2', value => { by => 'card' },
			'header eventType' => 'Paid', 'header aggregateId' => 'p-7', 'header headers' => '{"trace": "x"}'
		},
		{
			topic => 'outbox.event.saga', id => $third, key => 'order-1', value => {},
			'header eventType' => 'Paid', 'header aggregateId' => undef, 'header headers' => '{}'
		}
	],
	'each event of a committed transaction is captured, with what the options name');

# Who only captures has events removed by a group that does nothing.
sql($sql[1]);
ok( $node->poll_query_until('postgres',
		q{SELECT sent = 3 FROM sagaz.get_outbox_statistics('captured')}),
	'the delivery that does nothing finishes them');
is(sql(q{SELECT sagaz.archive_sent_events('0')}), '3', 'they leave the log');
is_deeply([ captured() ], [], 'nothing of all that is captured');

# A publication of all tables, as Debezium makes it when left alone.
sql('CREATE PUBLICATION everything FOR ALL TABLES');
sql($_) for (
	q{SELECT sagaz.drop_delivery('captured')},
	q{SELECT sagaz.insert_event('a', 'b', '1')},
	q{SELECT sagaz.finish_batch(batch_id, 'w') FROM sagaz.claim_batch('w', consumer_group => 'captured')},
	q{SELECT sagaz.archive_sent_events('0')},
	q{SELECT sagaz.drop_consumer_group('captured')},
	q{SELECT sagaz.activate()},
	q{UPDATE sagaz.cluster SET epoch = epoch},
	map { "DELETE FROM sagaz.$_" } qw(outbox outbox_batch outbox_receipt outbox_retry));
pass('a publication of all tables forbids nothing');

# The view, polled as the document says.
my ($pos, $seq) = (0, 0);

sub poll
{
	my $query = $sql[2] =~ s/\('0', 0\)/('$pos', $seq)/r;
	my @rows = map { [ split /\|/ ] } split /\n/, sql($query);

	($pos, $seq) = @{ $rows[-1] }[ 0, 1 ] if @rows;
	return [ map { $_->[5] } @rows ];
}

my $insert = q{SELECT sagaz.insert_event('s', '%s', '{}')};
my $slow = SagazSession->new($node);
my $slower = SagazSession->new($node);
is_deeply(poll(), [], 'an empty log');
sql(sprintf $insert, 'first');
is_deeply(poll(), ['first'], 'what has committed is shown');
$slow->query('BEGIN; ' . sprintf $insert, 'begun early');
$slower->query('BEGIN; ' . sprintf $insert, 'begun later');
sql(sprintf $insert, 'short');
$slow->query(sprintf $insert, 'inserted late');
is_deeply(poll(), [], 'not while somebody could put an event before it');
$slow->query('COMMIT');
is_deeply(poll(), [ 'begun early', 'inserted late' ], 'up to the oldest that is open');
$slower->query('COMMIT');
is_deeply(poll(), [ 'begun later', 'short' ], 'each event once, none is skipped');
is_deeply(poll(), [], 'and that is all');
sql(q{SELECT sagaz.insert_event('s', 't', '1', aggregate_type => 'order', headers => '{"tracingspancontext": "c"}')});
is( sql(q{SELECT aggregatetype, aggregateid, type, payload, tracingspancontext, now() AT TIME ZONE 'UTC' - "timestamp" < '1 hour'
		FROM sagaz.outbox_debezium WHERE type = 't' AND aggregatetype = 'order'}),
	'order|s|t|1|c|t', 'the columns that the router expects');
$node->stop;

done_testing();
