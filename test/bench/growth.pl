#
# What an application and its operators notice of the outbox: a business
# transaction with one event, look-ups in tables that have grown, and further
# consumer groups.
#
use strict;
use warnings;

use List::Util qw(max min);

our (%single, %title, %peer, %schema, @rows, $trials, $scale, $work);

# ----------------------------------------------------------------------
# A business transaction of three statements and one event

sub business
{
	my ($event) = @_;

	return join ";\n", 'BEGIN',
	  'UPDATE bench_business.account SET balance = balance - 45.39 WHERE id = :saga',
	  'INSERT INTO bench_business.customer_order (account, total) VALUES (:saga, 45.39)'
	  . " RETURNING id AS order_id \\gset\nINSERT INTO bench_business.item"
	  . q{ VALUES (:order_id, 1, 'A-100'), (:order_id, 2, 'B-220')},
	  $event, 'COMMIT';
}

sub group_business
{
	my $seconds = max(1, int(15 * $scale));
	local $peer{business} = 'business';
	my $values = measure('business transaction', '/s',
		map { my $name = $_; ($name => sub {
			reset_peer($_) for $name, 'business';
			return transactions_per_second(pgbench(business($single{$name}),
					qw(-c 32 -j 2 -T), $seconds));
		}) } qw(function plain));

	compare('business transaction with one event, 32 clients', $values, 'function',
		'≥ 0.95 × plain', plain => 0.95);
}

# ----------------------------------------------------------------------
# Look-ups, when nearly all is finished and 1000 events are not

my %look_up = (
	'list_sagas()' => 'SELECT * FROM sagaz.list_sagas()',
	'list_sagas(status)' => q{SELECT * FROM sagaz.list_sagas('executing')},
	'list_sagas(status, name)' => q{SELECT * FROM sagaz.list_sagas('executing', 'order7')},
	'get_saga_statistics()' => 'SELECT * FROM sagaz.get_saga_statistics()',
	'get_outbox_statistics()' => 'SELECT * FROM sagaz.get_outbox_statistics()',
	'get_pending_count(), 1000 pending' => 'SELECT sagaz.get_pending_count()',
	'outbox_events, one id' => q{SELECT * FROM sagaz.outbox_events}
	  . q{ WHERE event_id = (SELECT event_id FROM sagaz.outbox WHERE seq >= :saga}
	  . q{ AND lane = 1 ORDER BY seq LIMIT 1)},
	'outbox_events, pending, LIMIT 100' =>
	  q{SELECT * FROM sagaz.outbox_events WHERE status = 'pending' LIMIT 100},
	'outbox_events, sent, LIMIT 100' =>
	  q{SELECT * FROM sagaz.outbox_events WHERE status = 'sent' LIMIT 100},
	'outbox_events, one saga' =>
	  q{SELECT * FROM sagaz.outbox_events WHERE saga_id = 'order-' || :saga});

# That many sagas and that many events, all but 1000 of these delivered.
sub grow
{
	my ($from, $to) = @_;

	query('SELECT count(sagaz.save_saga_state(format($$order-%s$$, i), $$order$$ || i % 20,'
		  . q{ (ARRAY['completed', 'completed', 'executing', 'failed'])[1 + i % 4],}
		  . q{ '[{"name": "reserve", "status": "completed"}, {"name": "pay"}, {"name": "ship"}]'))}
		  . " FROM generate_series($from + 1, $to) AS i",
		'INSERT INTO sagaz.emit (saga_id, event_type, payload) SELECT'
		  . q{ format($$order-%s$$, i), 'OrderPlaced', '{"order": 481516, "total": 45.39}'}
		  . " FROM generate_series($from + 1, $to - 1000) AS i");
	drain('-n', 1000, 'sagaz');
	query('INSERT INTO sagaz.emit (saga_id, event_type, payload) SELECT'
		  . q{ format($$order-%s$$, i), 'OrderPlaced', '{"order": 481516, "total": 45.39}'}
		  . " FROM generate_series($to - 999, $to) AS i");
	settle('sagaz');
}

# Milliseconds of each look-up, the median of the trials.
sub look_ups
{
	my %got;

	for my $trial (1 .. $trials)
	{
		for my $what (sort keys %look_up)
		{
			my @command = pgbench($look_up{$what}, qw(-c 1));

			# the first second of a session fills its caches
			transactions_per_second(@command, '-t', 20);
			my $rate = transactions_per_second(@command, '-t', 200);
			push @{ $got{$what} }, 1000 / $rate;
		}
	}
	return \%got;
}

sub group_look_up
{
	my @sizes = map { max(2000, $_ * min(1, $scale)) } 10_000, 100_000, 1_000_000;
	my ($have, @got) = (0);

	reset_peer('sagaz');
	for my $size (@sizes)
	{
		grow($have, $size);
		$have = $size;
		push @got, look_ups();
		for my $what (sort keys %look_up)
		{
			record("look-up among $size", $what, $_ + 1,
				sprintf('%.4g', $got[-1]{$what}[$_]), 'ms') for 0 .. $trials - 1;
		}
	}
	for my $what (sort keys %look_up)
	{
		my @medians = map { median(@{ $_->{$what} }) } @got;
		my $limit = $what =~ /one saga/ ? 100 : 10;

		push @rows, ["$what among " . join(', ', map { number($_) =~ s/\.0+k/k/r } @sizes),
			join("\n", map { figure($_->{$what}, ' ms') } @got), '',
			sprintf('last/first %.2f', $medians[-1] / $medians[0]), "< $limit ms",
			$medians[-1] < $limit ? 'yes' : 'no'];
	}
}

# ----------------------------------------------------------------------
# WAL of insert, claims and finishes, by the number of consumer groups

sub wal_of_groups
{
	my ($groups) = @_;
	my $events = 1000 * max(1, int(50 * $scale));

	reset_peer('sagaz');
	query(map { "SELECT sagaz.create_consumer_group('group-$_')" } 2 .. $groups) if $groups > 1;
	query('CHECKPOINT');
	my $before = query('SELECT pg_current_wal_insert_lsn()');
	transactions_per_second(pgbench($single{function} =~ s/'order-' \|\| :saga::text/'order-1'/r,
			'-c', 1, '-t', $events));
	for my $group ('sagaz-workers', map { "group-$_" } 2 .. $groups)
	{
		local $ENV{PGOPTIONS} = "$ENV{PGOPTIONS} -c bench.consumer_group=$group";
		my ($got) = drain('sagaz-group');

		die "group $group got $got of $events events\n" if $got != $events;
	}
	return query("SELECT pg_current_wal_insert_lsn() - '$before'") / $events;
}

sub group_groups
{
	my $values = measure('WAL per event, inserted and delivered', 'B',
		one => sub { wal_of_groups(1) }, ten => sub { wal_of_groups(10) });
	my $ratio = median(map { $values->{ten}[$_] / $values->{one}[$_] } 0 .. $trials - 1);

	push @rows, ['WAL per event, insert to finish, 10 consumer groups',
		figure($values->{ten}, ' B'), 'one group ' . figure($values->{one}, ' B'),
		sprintf('%.2f', $ratio), '< 1.2 × one', $ratio < 1.2 ? 'yes' : 'no'];
}

1;
