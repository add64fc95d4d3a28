#
# Transfers between every two storages, sagas with three steps and events,
# against the raw tool of the slower side: COPY into tables with the same
# indexes and foreign key, ours or the library's, redis-cli --pipe of the same
# commands, and sqlite3 with a transaction for 500 rows.  A storage in memory
# has no such tool.
#
use strict;
use warnings;

use List::Util qw(max min);
use Time::HiRes qw(time usleep);

our (@rows, $trials, $scale, $work);

my %raw_title = (copy => 'COPY', load => "COPY into the library's", pipe => 'redis-cli --pipe', shell => 'sqlite3');
my %raw_of = (native => 'copy', sagaz => 'copy', library => 'load',
	redis => 'pipe', sqlite => 'shell');
my @stores = qw(native memory sqlite redis sagaz library);
my %count;
my $pipe = "$work/transfer.socket";
my $server;

# Statements in a database, in one session; the last one's answer.
sub in_database
{
	my ($database, @statements) = @_;
	my $text = run_program(qw(psql -XqAt -v ON_ERROR_STOP=1 -d), $database,
		map { ('-c', $_) } @statements);

	return (split /\n/, $text)[-1] // '';
}

sub pipe_cli
{
	return run_program('redis-cli', '-s', $pipe, @_);
}

sub start_pipe_server
{
	$server = fork() // die "could not fork: $!\n";
	if ($server == 0)
	{
		open(STDOUT, '>', '/dev/null');
		exec(qw(redis-server --port 0 --save), '', '--dir', $work, '--unixsocket', $pipe)
		  or die "could not run redis-server: $!\n";
	}
	usleep(10_000) until -S $pipe;
}

END
{
	my $status = $?;

	kill 'KILL', $server if $server;
	$? = $status;
}

# ----------------------------------------------------------------------
# Storages, full and empty

# The URL of a store that is full, or of one to be filled.
sub url
{
	my ($store, $role) = @_;
	my $host = $ENV{PGHOST} =~ s{/}{%2F}gr;

	return {
		native => 'native',
		memory => "memory://$role",
		sqlite => "sqlite://$work/$role.db",
		redis => "unix://$pipe?db=" . ($role eq 'full' ? 0 : 1),
		sagaz => "postgresql://$ENV{PGUSER}\@/transfer_sagaz_$role?host=$host&port=$ENV{PGPORT}",
		library => "postgresql://$ENV{PGUSER}\@/transfer_library_$role?host=$host&port=$ENV{PGPORT}"
	}->{$store};
}

sub new_database
{
	my ($name, @statements) = @_;

	query("DROP DATABASE IF EXISTS $name WITH (FORCE)", "CREATE DATABASE $name");
	in_database($name, @statements) if @statements;
}

# Nothing is in the store that a transfer goes to.
sub empty
{
	my ($store) = @_;

	new_database('transfer_empty', 'CREATE EXTENSION sagaz') if $store eq 'native';
	new_database('transfer_sagaz_empty', 'CREATE EXTENSION sagaz') if $store eq 'sagaz';
	new_database('transfer_library_empty') if $store eq 'library';
	unlink glob "$work/empty.db*" if $store eq 'sqlite';
	pipe_cli(qw(-n 1 FLUSHDB)) if $store eq 'redis';
}

sub fill_all
{
	my $payload = '{"order": 481516, "total": 45.39, "note": "leave at the door"}';

	%count = (saga => 1000 * max(1, 20 * $scale), outbox => 1000 * max(1, 50 * $scale));
	new_database('transfer_full', 'CREATE EXTENSION sagaz',
		q{SELECT count(sagaz.save_saga_state('saga-' || i, 'order', 'executing',}
		  . q{ '[{"name": "reserve", "status": "completed"}, {"name": "pay"}, {"name": "ship"}]',}
		  . qq{ '$payload')) FROM generate_series(1, $count{saga}) AS i},
		q{SELECT count(sagaz.insert_event('saga-' || i, 'OrderPlaced', }
		  . qq{'$payload')) FROM generate_series(1, $count{outbox}) AS i},
		'VACUUM ANALYZE');
	new_database('transfer_empty', 'CREATE EXTENSION sagaz');
	new_database('transfer_sagaz_full', 'CREATE EXTENSION sagaz');
	new_database('transfer_library_full');
	in_database('transfer_full', "CALL sagaz.transfer('native', '" . url($_, 'full') . "')")
	  for qw(sqlite redis sagaz library);
}

# ----------------------------------------------------------------------
# The raw tools, records a second

sub timed
{
	my ($records, $work_on) = @_;
	my $start = time;

	$work_on->();
	return $records / (time - $start);
}

# Rows of these tables, read again into tables that are made like them.
sub copy_rate
{
	my ($database, $schema, $type, @tables) = @_;
	my (@make, @read);

	for my $table (@tables)
	{
		my $columns = in_database($database,
			"SELECT string_agg(attname, ', ') FROM pg_attribute"
			  . " WHERE attrelid = '$schema.$table'::regclass AND attnum > 0 AND attgenerated = ''");

		in_database($database, "COPY $schema.$table ($columns) TO '$work/$table.copy'");
		push @make, "CREATE TABLE raw_$table (LIKE $schema.$table INCLUDING ALL)";
		push @read, "COPY raw_$table ($columns) FROM '$work/$table.copy'";
	}
	push @make, 'ALTER TABLE raw_saga_steps ADD FOREIGN KEY (saga_id) REFERENCES raw_sagas'
	  if $type eq 'saga';
	in_database($database, map({ "DROP TABLE IF EXISTS raw_$_ CASCADE" } @tables), @make);
	return timed($count{$type}, sub { in_database($database, @read) });
}

sub sagaz_rate
{
	my ($type) = @_;

	return copy_rate('transfer_full', 'sagaz', $type,
		$type eq 'saga' ? qw(sagas saga_steps) : qw(outbox));
}

sub library_rate
{
	my ($type) = @_;

	return copy_rate('transfer_library_full', 'public', $type,
		$type eq 'saga' ? qw(sagas saga_steps) : qw(saga_outbox));
}

sub resp
{
	return join '', '*' . @_ . "\r\n", map { '$' . length($_) . "\r\n$_\r\n" } @_;
}

sub words_of
{
	my @words = map { $_ // '' } split /\n/, pipe_cli('--raw', @_), -1;

	pop @words;
	return @words;
}

# The commands that write such records, with other keys.
sub pipe_commands
{
	my ($type, $out) = @_;
	my ($sample) = grep { /\S/ }
	  split /\n/, pipe_cli(qw(--scan --pattern), $type eq 'saga' ? 'saga:saga-*' : '*:meta:*');
	my @hash = words_of('HGETALL', $sample);
	my @entry = $type eq 'saga' ? () : (words_of(qw(XRANGE sagaz:outbox:events - + COUNT 1)));

	shift @entry;
	for my $i (1 .. $count{$type})
	{
		print $out resp('HSET', "raw:$type:$i", @hash);
		print $out $type eq 'saga' ?
		  resp('SADD', 'raw:status', "saga-$i") . resp('SADD', 'raw:name', "saga-$i") :
		  resp('XADD', 'raw:events', '*', @entry);
	}
}

sub pipe_rate
{
	my ($type) = @_;
	my $file = "$work/pipe.resp";

	open(my $out, '>', $file) or die "$file: $!\n";
	pipe_commands($type, $out);
	close($out) or die "$file: $!\n";
	pipe_cli(qw(-n 2 FLUSHDB));
	return timed($count{$type}, sub {
		run_program('sh', '-c', "redis-cli -s $pipe -n 2 --pipe <$file >/dev/null");
	});
}

sub shell_rate
{
	my ($type) = @_;
	my $table = $type eq 'saga' ? 'sagas' : 'outbox_events';
	my $file = "$work/shell.sql";
	my @lines = split /\n/,
	  run_program('sqlite3', "$work/full.db", ".mode insert $table", "SELECT * FROM $table");

	unlink glob "$work/shell.db*";
	run_program('sh', '-c', "sqlite3 $work/full.db .schema | sqlite3 $work/shell.db");
	open(my $out, '>', $file) or die "$file: $!\n";
	print $out "PRAGMA journal_mode = wal;\n";
	while (my @part = splice @lines, 0, 500)
	{
		print $out join("\n", 'BEGIN;', @part, 'COMMIT;'), "\n";
	}
	close($out) or die "$file: $!\n";
	return timed($count{$type}, sub {
		run_program('sh', '-c', "sqlite3 $work/shell.db <$file >/dev/null");
	});
}

my %raw_rate = (copy => \&sagaz_rate, load => \&library_rate, pipe => \&pipe_rate, shell => \&shell_rate);

# ----------------------------------------------------------------------
# The transfers

sub transfer_rate
{
	my ($type, $from, $to) = @_;
	my $database = $to eq 'native' ? 'transfer_empty' : 'transfer_full';
	my ($source, $target) = (url($from, 'full'), url($to, 'empty'));

	empty($to);
	query('CHECKPOINT');
	my $rate = in_database($database,
		'SET sagaz.memory_limit = 2000000',
		$from eq 'memory' ? "CALL sagaz.transfer('" . url('sqlite', 'full') . "', '$source')" : 'SELECT 1',
		"CALL sagaz.transfer('$source', '$target', '$type', validate => false)",
		'SELECT transferred || chr(9) || transferred / extract(epoch FROM elapsed)'
		  . ' FROM sagaz.transfers ORDER BY transfer_id DESC LIMIT 1');
	my ($records, $per_second) = split /\t/, $rate;

	die "$records of $count{$type} records from $from to $to\n" if $records != $count{$type};
	return $per_second;
}

# Every pair in a row of the table.
sub transfer_row
{
	my ($type, $from, $to, $raw) = @_;
	my @tools = map { $raw_of{$_} // () } $from, $to;
	my (@rates, @ratios, @peers);

	for my $trial (1 .. $trials)
	{
		my $rate = transfer_rate($type, $from, $to);
		my ($slower) = sort { $raw->{$a}[ $trial - 1 ] <=> $raw->{$b}[ $trial - 1 ] } @tools;

		record("transfer $type", "$from-$to", $trial, sprintf('%.0f', $rate), '/s');
		push @rates, $rate;
		push @ratios, $rate / $raw->{$slower}[ $trial - 1 ];
		@peers = ("$raw_title{$slower} " . figure($raw->{$slower}, '/s'));
	}
	push @rows, ["$type: $from to $to", figure(\@rates, '/s'), @peers,
		sprintf('%.2f', median(@ratios)), '≥ 0.5 × the slower tool',
		median(@ratios) >= 0.5 ? 'yes' : 'no'];
}

sub group_transfer
{
	start_pipe_server();
	fill_all();
	for my $type (qw(saga outbox))
	{
		my %raw;

		for my $trial (1 .. $trials)
		{
			for my $tool (sort keys %raw_rate)
			{
				my $rate = $raw_rate{$tool}->($type);

				record("raw $type", $tool, $trial, sprintf('%.0f', $rate), '/s');
				push @{ $raw{$tool} }, $rate;
			}
		}
		for my $from (@stores)
		{
			transfer_row($type, $from, $_, \%raw) for grep { $_ ne $from } @stores;
		}
	}
}

1;
