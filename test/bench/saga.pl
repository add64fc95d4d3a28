#
# Saga state against the way of the client library: a statement at a time over
# the same connection, in a transaction, into tables like the library's.
#
use strict;
use warnings;

use List::Util qw(max);

our (%single, %title, %peer, %schema, @rows, $trials, $scale, $work);

$title{library} = "the library's statements";
$title{plpgsql} = 'the same in one plpgsql function';
$title{update} = 'one UPDATE, no transaction block';
@peer{qw(library plpgsql update)} = ('library') x 3;
$schema{library} = 'bench_library';

my $context = '{"order": 481516, "customer": "Ada Lovelace", "total": 45.39}';

# What the library sends for a save of three steps.
sub library_save
{
	my ($id, $status) = @_;
	my $step = sub {
		return 'INSERT INTO bench_library.saga_steps (saga_id, step_name, status,'
		  . ' result, error, executed_at, compensated_at, retry_count)'
		  . " VALUES ($id, '$_[0]', '$_[1]', NULL, NULL, NULL, NULL, 0)";
	};

	return join ";\n", 'BEGIN',
	  'INSERT INTO bench_library.sagas (saga_id, saga_name, status, context, metadata,'
	  . qq{ updated_at) VALUES ($id, 'order', 'executing', '$context', '{}', now())}
	  . ' ON CONFLICT (saga_id) DO UPDATE SET saga_name = excluded.saga_name,'
	  . ' status = excluded.status, context = excluded.context,'
	  . ' metadata = excluded.metadata, updated_at = excluded.updated_at',
	  "DELETE FROM bench_library.saga_steps WHERE saga_id = $id",
	  $step->('reserve', 'completed'), $step->('pay', $status), $step->('ship', 'pending'),
	  'COMMIT';
}

# The arguments of one call that does it.
sub save_arguments
{
	my ($id, $status) = @_;

	return qq{($id, 'order', 'executing', jsonb_build_array(}
	  . q{jsonb_build_object('name', 'reserve', 'status', 'completed'),}
	  . qq{ jsonb_build_object('name', 'pay', 'status', '$status'),}
	  . qq{ jsonb_build_object('name', 'ship', 'status', 'pending')), '$context')};
}

# A save whose middle step is now this, now that.
sub saves
{
	my ($id, $status) = @_;

	return (sagaz => 'SELECT sagaz.save_saga_state' . save_arguments($id, $status),
		plpgsql => 'SELECT bench_library.save' . save_arguments($id, $status),
		library => library_save($id, $status));
}

my $sagas = 10_000;
my $known = "'saga-' || :saga % $sagas";
my %step_update = (
	sagaz => "SELECT sagaz.update_step_state($known, 'pay', 'completed', to_jsonb(:saga::int),"
	  . ' executed_at => now())',
	update => q{UPDATE bench_library.saga_steps SET status = 'completed', result = to_jsonb(:saga::int),}
	  . qq{ error = NULL, executed_at = now() WHERE saga_id = $known AND step_name = 'pay'},
	library => "BEGIN;\nUPDATE bench_library.saga_steps SET status = 'completed',"
	  . ' result = to_jsonb(:saga::int), error = NULL, executed_at = now()'
	  . " WHERE saga_id = $known AND step_name = 'pay';\n"
	  . "UPDATE bench_library.sagas SET updated_at = now() WHERE saga_id = $known;\nCOMMIT");
my %load = (
	sagaz => "SELECT sagaz.load_saga_state($known)",
	library => "SELECT * FROM bench_library.sagas WHERE saga_id = $known;\n"
	  . "SELECT * FROM bench_library.saga_steps WHERE saga_id = $known ORDER BY id");

# Both kinds of tables with the sagas that updates and loads want.
sub fill_sagas
{
	my %save = saves("'saga-' || i", 'executing');

	reset_peer($_) for qw(sagaz library);
	for my $statement (@save{qw(sagaz plpgsql)})
	{
		query("SELECT count(($1)::text) FROM generate_series(0, $sagas - 1) AS i")
		  if $statement =~ /^SELECT (.*)$/s;
	}
	settle($_) for qw(sagaz library);
	query('CHECKPOINT');
}

# Calls a second over one connection, each way in turn.
sub saga_row
{
	my ($what, $target, $factor, $statements, @others) = @_;
	my $seconds = max(1, int(6 * $scale));
	my $values = measure($what, '/s',
		map { my $name = $_; ($name => sub {
			fill_sagas();
			return transactions_per_second(pgbench("\\set n :n + 1\n$statements->{$name}",
					qw(-D n=0 -c 1 -T), $seconds));
		}) } keys %$statements);

	compare($what, $values, 'sagaz', $target, library => $factor,
		map { ($_ => undef) } @others);
}

# Rows that a save writes when one step of a hundred has changed.
sub hundred_steps
{
	my $steps = sub {
		return "(SELECT jsonb_agg(jsonb_build_object('name', 'step-' || i, 'status',"
		  . " CASE WHEN i = 50 THEN '$_[0]' ELSE 'pending' END) ORDER BY i)"
		  . ' FROM generate_series(1, 100) AS i)';
	};
	my $written = sub {
		my ($schema) = @_;

		return 'SELECT sum(pg_stat_get_xact_tuples_inserted(oid)'
		  . ' + pg_stat_get_xact_tuples_updated(oid) + pg_stat_get_xact_tuples_deleted(oid))'
		  . " FROM pg_class WHERE relname = 'saga_steps' AND relnamespace = '$schema'::regnamespace";
	};
	my %rows;

	reset_peer($_) for qw(sagaz library);
	for my $way (['sagaz', 'sagaz', 'sagaz.save_saga_state'],
		['library', 'bench_library', 'bench_library.save'])
	{
		my ($name, $schema, $function) = @$way;
		my $save = sub { "SELECT $function('long', 'order', 'executing', " . $steps->($_[0]) . ", '{}')" };
		query($save->('pending'));
		my $text = query('BEGIN', $save->('executing'), $written->($schema), 'COMMIT');

		$rows{$name} = (split /\n/, $text)[-1];
		record('save of 100 steps, one changed', $name, 1, $rows{$name}, 'rows of steps');
	}
	push @rows, ['save of 100 steps, one changed: rows of steps written', $rows{sagaz},
		"$title{library} $rows{library}", sprintf('%.3f', $rows{sagaz} / $rows{library}),
		'1', $rows{sagaz} == 1 ? 'yes' : 'no'];
}

sub group_saga
{
	my %again = saves($known, "' || (ARRAY['pending', 'executing', 'completed', 'failed'])[1 + :n % 4] || '");

	saga_row('save of a new saga with 3 steps', '≥ 4 × the library', 4,
		{ saves("'new-' || :n", 'executing') }, 'plpgsql');
	saga_row('save of a saga with 3 steps, one changed', '≥ 4 × the library', 4,
		\%again, 'plpgsql');
	saga_row('update of one step', '≥ 2 × the library', 2, \%step_update, 'update');
	saga_row('load of a saga with 3 steps', '≥ 2 × the library', 2, \%load);
	hundred_steps();
}

1;
