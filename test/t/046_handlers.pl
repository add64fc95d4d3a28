# A delivery goes to a function, not to whatever has its name: dropped, made
# anew or moved to somebody else's hands, it is not called until the owner of
# the delivery confirms it.  So it is with storages, and with roles that may
# not run a delivery any more.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazTest;
use Test::More;

my $conf = <<'CONF';
max_worker_processes = 20
fsync = off
sagaz.poll_interval = 1h
sagaz.housekeeping_interval = 1h
CONF
my $node = new_node('handlers', conf => $conf);
my $handler = 'shop.h(sagaz.outbox_event[])';

sub sql
{
	my ($sql, $db) = @_;

	return $node->safe_psql($db // 'postgres', $sql);
}

sub warning_of
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql);

	is($status, 0, $sql);
	return $err;
}

sub emit
{
	sql("SELECT sagaz.insert_event('s', '$_[0]', '{}')");
}

# Wait until the events were handled, by which functions and as whom.
sub calls_are
{
	my ($expected, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	query_is($node, 'postgres',
		q{SELECT string_agg(concat_ws(' ', body, who, event_type), ', ' ORDER BY n) FROM calls},
		$expected, $what);
	sql('TRUNCATE calls');
}

# The delivery stands still and says why, wherever one looks.
sub halts
{
	my ($reason, $what) = @_;
	my $event = 'held';

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	emit($event);
	query_is($node, 'postgres',
		q{SELECT state, pid IS NULL, last_error FROM sagaz.stat_delivery WHERE name = 'd'},
		"halted|t|$reason", "$what: it stands still");
	is(sql('SELECT status, message FROM sagaz.health_check()'),
		qq{degraded|delivery "d" stands still: $reason}, "$what: health_check says so");
	is(sql('SELECT count(*) FROM calls'), '0', "$what: nothing is called");
}

sub resume
{
	sql(q{SET ROLE app; SELECT sagaz.resume_delivery('d')});
}

# A function of that name and body by a role, that tells when it is called.
sub function
{
	my ($name, $role, $body) = @_;

	return "SET ROLE $role; CREATE FUNCTION $name(sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS"
	  . " \$\$ INSERT INTO public.calls SELECT '$body', current_user, event_type FROM unnest(\$1) \$\$; RESET ROLE;";
}

my $plain = function('shop.h', 'maker', 'plain');
my $evil = function('shop.h', 'evil', 'evil');

sql(<<"SQL");
CREATE ROLE app LOGIN;
CREATE ROLE maker LOGIN;
CREATE ROLE evil LOGIN;
SELECT sagaz.grant_access('app', 'operator');
CREATE TABLE calls (body text, who text, event_type text, n bigserial);
GRANT INSERT ON calls TO app;
GRANT USAGE ON SEQUENCE calls_n_seq TO app;
CREATE SCHEMA shop;
CREATE SCHEMA yard;
GRANT USAGE ON SCHEMA sagaz TO maker, evil;
GRANT USAGE ON TYPE sagaz.outbox_event TO maker, evil;
GRANT CREATE, USAGE ON SCHEMA shop, yard TO app, maker, evil;
$plain
SET ROLE app;
SELECT sagaz.create_delivery('d', '$handler');
SQL
emit('a');
calls_are('plain app a', 'a handler of another role runs as the owner of the delivery');

subtest 'dropped' => sub {
	for my $drop ("FUNCTION $handler", 'SCHEMA shop', 'OWNED BY maker')
	{
		like(error_of($node, "DROP $drop"),
			qr/ERROR:  2BP01.*constraint delivery d depends on function shop\.h\(/s,
			"DROP $drop shows the delivery");
	}
	like(warning_of("DROP FUNCTION $handler CASCADE"),
		qr/drop cascades to constraint delivery d$/, 'CASCADE says so');
	halts("function $handler was dropped", 'without a function');
	like(error_of($node, q{SET ROLE app; SELECT sagaz.resume_delivery('d')}),
		qr/ERROR:  SZ002: function \Q$handler\E does not exist/, 'there is nothing to confirm');
	sql($evil);
	halts("function $handler was dropped", 'another of its name');
	$node->reload;
	halts("function $handler was dropped", 'after a reload');
	sql(q{SELECT sagaz.activate()});
	halts("function $handler was dropped", 'nor does activate() confirm it');
	like(error_of($node, q{SELECT sagaz.grant_access('evil', 'operator'); SET ROLE evil; SELECT sagaz.resume_delivery('d')}),
		qr/ERROR:  42501: must be owner of delivery "d"/, 'its owner cannot either');
	sql(qq{DROP FUNCTION $handler; $plain});
	resume();
	calls_are('plain app held, plain app held, plain app held, plain app held',
		'the owner of the delivery confirms it, and nothing was lost');
	like(error_of($node, "DROP FUNCTION $handler"), qr/constraint delivery d depends/,
		'which the delivery depends on again');
};

subtest 'the same function' => sub {
	sql('ALTER FUNCTION shop.h SET SCHEMA yard; ALTER FUNCTION yard.h RENAME TO "h, too"');
	sql($evil);
	emit('a');
	calls_are('plain app a', 'renamed and moved, it is called, and not what has its name');
	is(sql(q{SELECT handler FROM sagaz.delivery}), 'yard."h, too"(sagaz.outbox_event[])',
		'its name is kept');
	sql(qq{DROP FUNCTION $handler; ALTER FUNCTION yard."h, too" RENAME TO h; ALTER FUNCTION yard.h SET SCHEMA shop});
	my $replace = $plain =~ s/CREATE/CREATE OR REPLACE/r =~ s/'plain'/'better'/r;
	sql($replace);
	emit('b');
	calls_are('better app b', 'replaced by its owner');
};

subtest 'other hands' => sub {
	sql("ALTER FUNCTION $handler OWNER TO evil");
	halts(qq{function $handler belongs to role "evil" now}, 'given away');
	sql("ALTER FUNCTION $handler OWNER TO maker");
	$node->reload;
	calls_are('better app held', 'and back');
	for my $role ('app', 'postgres')
	{
		sql("ALTER FUNCTION $handler OWNER TO $role");
		emit('a');
		calls_are('better app a', "of role $role");
	}
	sql("ALTER FUNCTION $handler OWNER TO evil");
	halts(qq{function $handler belongs to role "evil" now}, 'given away again');
	resume();
	calls_are('better app held', 'the owner of the delivery agrees');
	sql('ALTER ROLE evil RENAME TO good');
	emit('b');
	calls_are('better app b', 'a role has many names');
	sql("ALTER ROLE good RENAME TO evil; ALTER FUNCTION $handler OWNER TO maker");
	resume();
};

subtest 'a pause' => sub {
	sql(q{SELECT sagaz.pause_delivery('d')});
	sql("DROP FUNCTION $handler CASCADE; $evil");
	like(warning_of(q{SET ROLE app; SELECT sagaz.resume_delivery('d')}),
		qr/WARNING:  delivery "d" stands still: function \Q$handler\E was dropped/,
		'who lifts it confirms nothing');
	halts("function $handler was dropped", 'so it goes on waiting');
	sql(qq{DROP FUNCTION $handler; $plain});
	resume();
	calls_are('plain app held', 'until it is resumed once more');
};

subtest 'an owner who may not' => sub {
	my $offset;

	sql("REVOKE EXECUTE ON FUNCTION $handler FROM PUBLIC");
	halts(qq{its owner, role "app", has no privilege EXECUTE on $handler}, 'no EXECUTE');
	sql("GRANT EXECUTE ON FUNCTION $handler TO app");
	resume();
	calls_are('plain app held', 'granted again');
	for my $change (
		[ 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC', 'GRANT CONNECT ON DATABASE postgres TO PUBLIC',
			'may not connect to this database', 'no CONNECT' ],
		[ 'ALTER ROLE app NOLOGIN', 'ALTER ROLE app LOGIN',
			'is not permitted to log in', 'no LOGIN' ])
	{
		my ($take, $give, $reason, $what) = @$change;

		next if $what eq 'no LOGIN' && sql('SHOW server_version_num') >= 170000;
		$offset = -s $node->logfile;
		sql($take);
		sql(q{SELECT pg_terminate_backend(pid) FROM sagaz.stat_delivery});
		log_says($node, qr/delivery "d" of database "postgres" stands still: .*\Q$reason/, $offset,
			"$what: the log says so");
		halts(qq{its owner, role "app", $reason}, $what);
		unlike(substr(slurp_file($node->logfile), $offset), qr/FATAL:  (?!terminating)/,
			"$what: no process tries");
		sql($give);
		sql(q{SELECT sagaz.resume_delivery('d')});
		calls_are('plain app held', "$what: given back");
	}
};

subtest 'a storage' => sub {
	sql(<<'SQL');
SELECT sagaz.create_consumer_group('file', start_from => 'now');
SELECT sagaz.create_outbox_storage('file', 'sqlite:///' || current_setting('data_directory') || '/one.db');
SELECT sagaz.create_delivery('file', 'file', 'file');
SQL
	emit('a');
	query_is($node, 'postgres', q{SELECT sagaz.count_records('outbox', 'file')}, '1', 'an event arrives');
	like(error_of($node, 'BEGIN; DROP SERVER file CASCADE; ROLLBACK'), qr/drop cascades to constraint delivery file/,
		'DROP SERVER … CASCADE says so');
	sql(<<'SQL');
ALTER SERVER file RENAME TO kept;
SELECT sagaz.create_outbox_storage('file', 'sqlite:///' || current_setting('data_directory') || '/two.db');
SQL
	emit('b');
	query_is($node, 'postgres', q{SELECT sagaz.count_records('outbox', 'kept')}, '2', 'renamed');
	like(error_of($node, q{SELECT sagaz.count_records('outbox', 'file')}), qr/two\.db.* does not exist/, 'nothing goes to the one that has its name');
	is(sql(q{SELECT target FROM sagaz.delivery WHERE name = 'file'}), 'kept', 'its name is kept');
	like(error_of($node, q{SELECT sagaz.drop_storage('kept')}), qr/ERROR:  2BP01/, 'it is not dropped');
	sql(q{ALTER SERVER kept OWNER TO evil});
	is(sql(q{SELECT state, last_error FROM sagaz.stat_delivery WHERE name = 'file'}),
		'halted|storage kept belongs to role "evil" now', 'given away');
	sql(q{SELECT sagaz.drop_delivery('file'), sagaz.drop_storage('kept'), sagaz.drop_storage('file')});
	calls_are('plain app a, plain app b', 'the other delivery has not noticed');
};

# Two more: their function belongs to their owner, or is found under another
# name than it had.
sql(<<"SQL");
SELECT sagaz.create_consumer_group(g, start_from => 'now') FROM unnest('{own,moved}'::text[]) g;
${\ function('yard.own', 'app', 'own')}
${\ function('yard.first', 'app', 'moved')}
SET ROLE app;
SELECT sagaz.create_delivery('own', 'yard.own(sagaz.outbox_event[])', 'own');
SELECT sagaz.create_delivery('moved', 'yard.first(sagaz.outbox_event[])', 'moved');
RESET ROLE;
ALTER FUNCTION yard.first RENAME TO second;
SQL
emit('a');
query_is($node, 'postgres', q{SELECT count(*) FROM calls}, '3', 'three deliveries');
sql('TRUNCATE calls');

sub check_copy
{
	my ($db, $what) = @_;
	my $states = q{SELECT string_agg(concat_ws(' ', name, last_error), ', ' ORDER BY name)
		FROM sagaz.stat_delivery WHERE state IN ('halted', 'stopped')};

	sql(q{SELECT sagaz.insert_event('s', 'x', '{}'), sagaz.activate()}, $db);
	query_is($node, $db,
		q{SELECT string_agg(concat_ws(' ', body, who, event_type), ', ' ORDER BY body) FROM calls},
		'moved app x, own app x', "$what: what its owner has is bound by name");
	is( sql($states, $db), "d its owner has not confirmed function $handler here",
		"$what: what is somebody else's waits");
	sql(q{SET ROLE app; SELECT sagaz.resume_delivery('d')}, $db);
	query_is($node, $db, q{SELECT count(*) FROM calls WHERE body = 'plain'}, '1', "$what: confirmed");
	for my $function ('shop.h', 'yard.own', 'yard.second')
	{
		my ($status, $out, $err) = $node->psql($db, "DROP FUNCTION $function");
		like($err, qr/constraint delivery \w+ depends on/, "$what: $function shows its delivery");
	}
}

my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', "--file=$dump", $node->connstr('postgres') ], 'a dump');
sql('CREATE DATABASE copy');
$node->command_ok(
	[
		'psql', '--no-psqlrc', '--quiet', '--set=ON_ERROR_STOP=1', "--file=$dump", $node->connstr('copy')
	],
	'is restored');
check_copy('copy', 'restored');
sql('DROP DATABASE copy');

my $new = new_node('upgraded', conf => $conf, start => 0);
my $bindir = $node->config_data('--bindir');
$node->stop;
chdir $new->basedir or die $!;
command_ok(
	[
		"$bindir/pg_upgrade", '--no-sync',
		'--old-bindir', $bindir, '--new-bindir', $bindir,
		'--old-datadir', $node->data_dir, '--new-datadir', $new->data_dir,
		'--old-port', $node->port, '--new-port', $new->port,
		'--socketdir', $new->host
	],
	'pg_upgrade');
$new->start;
$node = $new;
check_copy('postgres', 'upgraded');
sql(q{SELECT sagaz.drop_delivery(name) FROM sagaz.delivery});
sql('DROP FUNCTION shop.h, yard.own, yard.second');
is(sql(q{SELECT count(*) FROM pg_constraint WHERE contypid = 'sagaz.delivery_binding'::regtype}), '0',
	'a delivery that is dropped leaves nothing behind');
sql('DROP EXTENSION sagaz');
$node->stop;

done_testing();
