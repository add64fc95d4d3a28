# The program sagaz: what it takes, how it connects, what each command prints
# and how it ends.  Transfers have a test of their own.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazProgram;
use SagazTerminal;
use SagazTest;
use Test::More;

my $node = new_node('program');
my @commands = (
	map({ "storage $_" } qw(transfer migrate validate list add drop health stats)),
	map({ "saga $_" } qw(list show stuck)),
	map({ "outbox $_" } qw(status tail dead-letters requeue explain)),
	map({ "delivery $_" } qw(list show pause resume)));
my $file = "$ENV{WORK}/program.db";

connect_to($node, 'postgres');

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# A call that fails, and how.
sub refused
{
	my ($wanted, $pattern, @words) = @_;
	my ($status, $out, $err) = sagaz(@words);

	is($status, $wanted, "status of sagaz @words");
	like($err, $pattern, "complaint of sagaz @words");
	return $out;
}

# Help at each level, and what the documents say of it.
my $help = sagaz_ok('--help');
my $page = slurp_file('doc/sagaz.1') =~ s/\\-/-/gr;
like($help, qr/^  \Q$_\E /m, "--help has $_") for @commands;
is(scalar(() = $help =~ /^  (?:storage|saga|outbox|delivery) /mg), @commands, 'and no other command');
like(sagaz_ok('outbox', '-?'), qr/^Commands:\n(?:  outbox .*\n)+\n/m, 'help of a group');
like(sagaz_ok('--version'), qr/^sagaz \d+\.\d+$/, '--version');
for my $command (@commands)
{
	my $text = sagaz_ok(split(/ /, $command), '--help');
	like($text, qr/^  sagaz $command \[OPTION\]/m, "usage of $command");
	like($page, qr/sagaz \Q$command\E/, "the manual page has $command");
	for my $option ($text =~ /^  (?:-., )?--([a-z-]+)/mg)
	{
		like($page, qr/--\Q$option\E\b/, "the manual page has --$option of $command");
	}
}

# The manual page is one, where there is something to read it with.
SKIP:
{
	skip 'no groff', 1 unless grep { -x "$_/groff" } split /:/, $ENV{PATH};
	my ($out, $err) = run_command([ 'groff', '-man', '-Tutf8', '-ww', 'doc/sagaz.1' ]);
	is($err, '', 'the manual page has no mistake');
}

# Completion offers what there is.
sub completions
{
	my @words = @_;
	my ($out) = run_command([ 'bash', '-c', <<'SH', 'bash', @words ]);
source src/cli/completion.bash
COMP_WORDS=(sagaz "$@") COMP_CWORD=$#
_sagaz
printf '%s\n' "${COMPREPLY[@]}" | sort | tr '\n' ' '
SH
	return $out =~ s/ +$//r;
}
is(completions(''), 'delivery outbox saga storage', 'completion of groups');
is(completions('saga', ''), 'list show stuck', 'of commands');
is(completions('-q', 'delivery', 'p'), 'pause', 'of a command, behind an option');
is(completions('storage', 'transfer', '--source'), '--source-env= --source-file= --source=', 'of options');
is(completions('storage', 'transfer', '--on-error', ''), 'fail retry skip', 'of words');
is(completions('storage', 'transfer', '--type', '=', 'o'), 'outbox', 'of a word behind =');

# Usage.
refused(2, qr/^sagaz: no command is given\nTry "sagaz --help"/);
refused(2, qr/no command is given after "saga"/, 'saga');
refused(2, qr/unknown command "sago"/, 'sago');
refused(2, qr/unknown command "saga tail"\nTry "sagaz saga --help"/, 'saga', 'tail');
refused(2, qr/unrecognized option '--bogus'\nTry "sagaz saga list --help"/, 'saga', 'list', '--bogus');
refused(2, qr/unrecognized option '--source/, 'saga', 'list', '--source=native');
refused(2, qr/too many arguments/, 'saga', 'list', 'x');
refused(2, qr/an argument is missing: SAGA_ID/, 'saga', 'show');
refused(2, qr/--limit must be a whole number/, 'saga', 'list', '--limit', '-1');
refused(2, qr/--on-error must be one of fail\|skip\|retry/, 'storage', 'transfer', '--on-error', 'ski');
refused(2, qr/--source and --target are needed/, 'storage', 'transfer', '--source', 'native');
refused(2, qr/--source and --target are needed/, 'storage', 'validate');
refused(2, qr/of --target, --target-env and --target-file only one/,
	'storage', 'migrate', '--source=native', '--target=a', '--target-env=A');
refused(2, qr/environment variable "NO_SUCH" is not set/,
	'storage', 'migrate', '--source=native', '--target-env=NO_SUCH');
refused(2, qr/could not open file "\/no\/such"/,
	'storage', 'migrate', '--source=native', '--target-file=/no/such');
refused(2, qr/goes on as it was begun/, 'storage', 'transfer', '--resume=1', '--type=saga');
refused(2, qr/exclude each other/, 'storage', 'transfer', '--resume=1', '--retry-errors=1');
refused(2, qr/--interval must be a number/, 'outbox', 'tail', '--interval=0');
refused(2, qr/say which dead letters/, 'outbox', 'requeue');
refused(2, qr/say which dead letters/, 'outbox', 'requeue', '--all', '--saga=x');

# Connections, as of psql.
refused(3, qr/no-such-directory/, '-h', '/no-such-directory', 'saga', 'list');
refused(3, qr/database "nowhere" does not exist/, 'saga', 'list', '-d', 'nowhere');
refused(1, qr/^ERROR:  schema "sagaz" does not exist\n(?:.*\n)*HINT: .*CREATE EXTENSION sagaz in "template1"/m, '-d', 'template1', 'outbox', 'dead-letters');
is(sagaz_json(3, '-d', 'nowhere', 'saga', 'list')->{error} =~ /nowhere/, 1, 'the error in JSON');
{
	local @ENV{qw(PGHOST PGPORT)} = ('/no-such-directory', 1);
	sagaz_ok('saga', 'list', '-d', $node->connstr('postgres'));
	sagaz_ok('-h', $node->host, '-p', $node->port, 'saga', 'list');
	append_to_file("$ENV{WORK}/services", "[here]\nhost=" . $node->host . "\nport=" . $node->port . "\ndbname=postgres\n");
	local @ENV{qw(PGSERVICEFILE PGSERVICE)} = ("$ENV{WORK}/services", 'here');
	delete local @ENV{qw(PGHOST PGPORT PGDATABASE)};
	sagaz_ok('saga', 'list');
}

# Passwords: asked for, forbidden, from .pgpass.
sql(q{CREATE ROLE guest LOGIN PASSWORD 'Zauberwort'; SELECT sagaz.grant_access('guest', 'monitor')});
my $hba = slurp_file($node->data_dir . '/pg_hba.conf');
unlink $node->data_dir . '/pg_hba.conf';
$node->append_conf('pg_hba.conf', "local all guest scram-sha-256\n$hba");
$node->reload;
refused(3, qr/no password supplied/, '-w', '-U', 'guest', 'saga', 'list');
for my $try ([ 'Zauberwort', 0 ], [ 'wrong', 3 ])
{
	last unless SagazTerminal::available();
	my $run = SagazTerminal->begin(80, '-U', 'guest', 'saga', 'list');
	ok($run->shows(qr/Password for user guest: /), 'it asks for the password');
	$run->type("$try->[0]\n");
	is($run->status, $try->[1], "and takes $try->[0]");
	unlike($run->{out}, qr/$try->[0]/, 'which is not shown');
}
append_to_file("$ENV{WORK}/pgpass", "*:*:*:guest:Zauberwort\n");
chmod 0600, "$ENV{WORK}/pgpass";
{
	local $ENV{PGPASSFILE} = "$ENV{WORK}/pgpass";
	sagaz_ok('-U', 'guest', 'saga', 'list');
}

# JSON is UTF-8 whatever the locale, and a result that cannot be written is no
# success.
sql(q{SELECT sagaz.save_saga_state('Fr' || chr(252) || 'hling', 'odd', 'pending')});
{
	local $ENV{PGCLIENTENCODING} = 'LATIN1';
	is(sagaz_json(0, 'saga', 'list')->[0]{saga_id}, "Fr\x{fc}hling", 'JSON in another locale');
	like(sagaz_ok('saga', 'list'), qr/^ Fr\xfchling /m, 'a table in it');
}
sql(q{DELETE FROM sagaz.sagas});
is(system('sagaz saga list --json >/dev/full 2>/dev/null') >> 8, 1, 'a full disk: status 1');

# Without the privilege nothing happens.
{
	local @ENV{qw(PGUSER PGPASSWORD)} = ('guest', 'Zauberwort');
	refused(1, qr/^ERROR:  permission denied for function create_storage$/m,
		'storage', 'add', 'mine', 'memory://mine');
	is(sagaz_json(1, 'storage', 'drop', 'x')->{sqlstate}, '42501', 'the SQLSTATE in JSON');
	sagaz_ok('outbox', 'status');
}

# Storages.
is(sagaz_ok('storage', 'add', 'file', "sqlite://$file", '--set', 'consumer_group=readers'),
	"storage \"file\" added\n", 'storage add');
is_deeply(
	[ map { [ @$_{qw(name backend type)} ] } @{ sagaz_json(0, 'storage', 'list') } ],
	[ [ 'native', 'native', 'both' ], [ 'file', 'sqlite', 'both' ] ], 'storage list');
like(sagaz_ok('storage', 'list'), qr/^ file   \| sqlite  \| both .*consumer_group=readers.*\n\(2 rows\)\n/m, 'as a table');
like(refused(1, qr/^ERROR:  .*nonsense.*\nHINT:  /, 'storage', 'add', 'bad', 'sqlite:///tmp/x', '--set', 'nonsense=1'),
	qr/^$/, 'a wrong option: the hint is shown, and no result');
refused(1, qr/^ERROR:  /, 'storage', 'add', 'file', "sqlite://$file");
{
	local $ENV{PLACE} = 'memory://m';
	sagaz_ok('storage', 'add', 'volatile', '--url-env', 'PLACE', '--type', 'saga', '-q');
	is(sql(q(SELECT storage_type FROM sagaz.storages WHERE name = 'volatile')), 'saga', 'the URL out of the environment');
}
is_deeply(sagaz_json(0, 'storage', 'drop', 'volatile'),
	[ { storage => 'volatile', result => 'dropped' } ], 'storage drop');
refused(1, qr/^ERROR:  .*volatile/, 'storage', 'drop', 'volatile');

# A password among the arguments draws a warning, and is hidden at once.
my ($status, $out, $err) = sagaz('storage', 'health', 'redis://u:Geheim@127.0.0.1:1/0', 'native');
is($status, 1, 'a storage that does not answer: status 1');
like($err, qr/^sagaz: warning: a password among the arguments/, 'the warning');
unlike("$out$err", qr/Geheim/, 'without the password');
like($out, qr/^ native .* healthy /m, 'the others are told of');
like($out, qr/\| unhealthy \|.*could not connect/, 'and what is wrong with it');
# the first write makes the file
sql(q{SELECT sagaz.save_saga_state('first', 'F', 'pending', storage => 'file'); SELECT sagaz.delete_saga_state('first', 'file')});
my $health = sagaz_json(0, 'storage', 'health');
is_deeply([ map { "$_->{storage} $_->{status}" } @$health ], [ 'native healthy', 'file healthy' ], 'storage health');
is($health->[0]{details}{active}, JSON::PP::true(), 'with its details');
refused(1, qr/storage "nix" does not exist/, 'storage', 'health', 'nix');

# Sagas.
sql(<<'SQL');
SELECT sagaz.save_saga_state('order-' || n, 'OrderSaga', CASE n WHEN 3 THEN 'completed' ELSE 'executing' END,
	'[{"name": "reserve", "status": "completed", "result": {"a": 1}}, {"name": "pay", "error": "none"}]', '{"amount": 10}')
	FROM generate_series(1, 3) AS n;
SELECT sagaz.save_saga_state('odd', 'other', 'pending', storage => 'file')
SQL
is_deeply([ map { $_->{saga_id} } @{ sagaz_json(0, 'saga', 'list', '--limit', 2, '--status', 'executing') } ],
	[ 'order-2', 'order-1' ], 'saga list');
is_deeply([ map { $_->{saga_id} } @{ sagaz_json(0, 'saga', 'list', '--skip', 1, '--name', 'ordersaga') } ],
	[ 'order-2', 'order-1' ], 'saga list by name');
is_deeply([ map { $_->{saga_id} } @{ sagaz_json(0, 'saga', 'list', '--storage', 'file') } ], ['odd'], 'saga list of a storage');
refused(1, qr/^ERROR:  .*status.*\nHINT:  .*executing/s, 'saga', 'list', '--status', 'doing');
my $saga = sagaz_json(0, 'saga', 'show', 'order-1');
is("$saga->{saga_id} $saga->{context}{amount} $saga->{steps}[1]{name}", 'order-1 10 pay', 'saga show');
like(sagaz_ok('saga', 'show', 'order-1'),
	qr/^status +\| executing\n.*^ +"amount": 10|^status +\| executing\n.*"amount": 10.*^ reserve \| completed \| +0 \| .*\{"a": 1\}\n pay +\| pending /ms, 'as a table');
refused(1, qr/^sagaz: error: there is no saga "nix"$/m, 'saga', 'show', 'nix');
is(sagaz_json(1, 'saga', 'show', 'nix')->{error}, 'there is no saga "nix"', 'that in JSON');
is(scalar @{ sagaz_json(0, 'saga', 'stuck', '--older-than', '0') }, 2, 'saga stuck');
is(sagaz_json(0, 'saga', 'stuck')->[0], undef, 'nothing is stuck for an hour');
my $stats = sagaz_json(0, 'storage', 'stats', 'native');
is_deeply($stats->{sagas}, [ { saga_name => 'OrderSaga', status => 'executing', sagas => 2, estimated => JSON::PP::false },
	{ saga_name => 'OrderSaga', status => 'completed', sagas => 1, estimated => JSON::PP::false } ], 'storage stats');
is($stats->{outbox}{total}, 0, 'with those of the outbox');
is(sagaz_json(0, 'storage', 'stats', '--type', 'saga')->{outbox}, undef, 'or without');

# The outbox.
is_deeply(sagaz_json(0, 'outbox', 'status'), [], 'a group that nobody made is not there');
sql(<<'SQL');
SELECT sagaz.create_consumer_group('billing');
SELECT sagaz.insert_event('s' || n, CASE WHEN n < 3 THEN 'paid' ELSE 'sent' END, to_jsonb(n)) FROM generate_series(1, 4) AS n;
SELECT sagaz.update_event_status(event_id, 'dead_letter', 'gone') FROM sagaz.outbox_events
SQL
is_deeply([ map { "$_->{group} $_->{pending} $_->{dead_letter}" } @{ sagaz_json(0, 'outbox', 'status') } ],
	[ 'billing 4 0', 'sagaz-workers 0 4' ], 'outbox status');
is(scalar @{ sagaz_json(0, 'outbox', 'status', '--group', 'billing') }, 1, 'of one group');
refused(1, qr/^ERROR:  .*nobody/, 'outbox', 'status', '--group', 'nobody');
is(sagaz_json(0, 'outbox', 'status', '--storage', 'file', '--group', 'readers')->[0]{total}, 0, 'of another storage');
my $dead = sagaz_json(0, 'outbox', 'dead-letters');
is_deeply([ @{ $dead->[0] }{qw(saga_id last_error)} ], [ 's1', 'gone' ], 'outbox dead-letters');
is(scalar @{ sagaz_json(0, 'outbox', 'dead-letters', '--limit', 3) }, 3, 'some of them');
is(sagaz_json(0, 'outbox', 'requeue', '--event-type', 'paid', '--limit', 1, '--reason', 'mended')->{requeued}, 1, 'outbox requeue by type');
is(sql(q{SELECT count(*) FROM sagaz.outbox_retry WHERE reason = 'mended'}), 1, 'with the reason');
is(sagaz_json(0, 'outbox', 'requeue', $dead->[2]{event_id}, $dead->[3]{event_id})->{requeued}, 2, 'by id');
like(sagaz_ok('outbox', 'requeue', '--all', '--spread', '1 hour'), qr/^ requeued \n-+\n +1\n/, 'what is left');
refused(1, qr/^ERROR:  invalid input syntax for type uuid/, 'outbox', 'requeue', 'x');
is_deeply([ sort map { "$_->{consumer_group} $_->{status}" } @{ sagaz_json(0, 'outbox', 'explain', $dead->[0]{event_id}) } ],
	[ 'billing pending', 'sagaz-workers pending' ], 'outbox explain');
refused(1, qr/^ERROR:  /, 'outbox', 'explain', '00000000-0000-0000-0000-000000000000');

# What a terminal would obey is shown in words, in tables, documents and errors.
sql(q{SELECT sagaz.save_saga_state('odd' || chr(155) || chr(8238), 'Odd' || chr(27), 'pending')});
like(sagaz_ok('saga', 'list', '--name', 'odd'), qr/odd\\u009B\\u202E .*Odd\\x1B/, 'in a table');
is(sagaz_json(0, 'saga', 'list', '--name', 'odd')->[0]{saga_id}, "odd\x{9b}\x{202e}", 'in a document, which says the same');
refused(1, qr/^sagaz: error: .*"odd\\u009B\\x1B"/, 'saga', 'show', "odd\xc2\x9b\e");
sql(q{SELECT sagaz.delete_saga_state('odd' || chr(155) || chr(8238))});

# The tail follows what is committed, in that order, until Ctrl-C.
my $tail = begin_sagaz('outbox', 'tail', '--last', 2, '--interval', '0.05');
ok($tail->shows('out', qr/  s3  .*\n.*  s4  .*  4\n/), 'it begins with the last');
my ($in, $late) = ('', '');
my $psql = IPC::Run::start([ 'psql', '-XAtq' ], '<', \$in, '>', \$late);
$in = "BEGIN; SELECT sagaz.insert_event('late', 'tailed', '1') IS NOT NULL;\n";
$psql->pump until $late =~ /t/;
sql(q{SELECT sagaz.insert_event('red' || chr(27) || '[31m', 'tailed', '2')});
ok($tail->shows('out', qr/  tailed  red\\x1B\[31m  .*  2\n/), 'a new one, with nothing that a terminal obeys');
sql(q{SELECT sagaz.insert_event('csi' || chr(155) || '31m' || chr(8238) || chr(127), 'tailed', to_jsonb(chr(8294)))});
ok($tail->shows('out', qr/  tailed  csi\\u009B31m\\u202E\\u007F  .*\\u2066/), 'nor in the controls beyond ASCII');
unlike($tail->{out}, qr/late/, 'one that is not committed is not shown');
$in = "COMMIT;\n\\q\n";
$psql->finish;
ok($tail->shows('out', qr/  late  .*  1\n/), 'until it is');
$tail->signal('INT');
is($tail->status, 0, 'Ctrl-C is the way to end it');
is($tail->{err}, '', 'without a complaint');
is(scalar(() = $tail->{out} =~ /\n/g), 5, 'each event was shown once');
SKIP: {
	skip 'no pseudo-terminal is to be had here', 2 unless SagazTerminal::available();
	$tail = SagazTerminal->begin(80, 'outbox', 'tail', '--json', '--saga', 'late', '--interval', '0.05');
	ok($tail->shows(qr/^\{.*"payload":1.*\}\r\n/), 'as lines of JSON');
	$tail->type("\x03");
	is($tail->status, 0, 'Ctrl-C in a terminal');
}

# Deliveries.
sql(<<'SQL');
CREATE FUNCTION public.handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS '';
SELECT sagaz.create_delivery(name, 'public.handle(sagaz.outbox_event[])') FROM (VALUES ('one'), ('two')) AS v (name)
SQL
sub paused
{
	return sql(q{SELECT string_agg(name, ' ' ORDER BY name) FROM sagaz.delivery WHERE paused_at IS NOT NULL});
}
is(sagaz_ok('delivery', 'pause', 'one', 'two'), qq(delivery "one" paused\ndelivery "two" paused\n), 'delivery pause');
is(paused(), 'one two', 'both are');
is_deeply([ map { "$_->{name} $_->{state}" } @{ sagaz_json(0, 'delivery', 'list') } ],
	[ 'one paused', 'two paused' ], 'delivery list');
my ($longest) = sort { $b <=> $a } map { length } split /\n/, sagaz_ok('delivery', 'list');
cmp_ok($longest, '<=', 80, 'it fits into a terminal');
like(sagaz_ok('delivery', 'show', 'one'), qr/consumer_group +\| sagaz-workers *\n.*state +\| paused *\n.*last_error +\| *\n/s, 'delivery show');
is(sagaz_json(0, 'delivery', 'show', 'two')->{state}, 'paused', 'as JSON');
refused(1, qr/there is no delivery "nix"/, 'delivery', 'show', 'nix');
is_deeply(sagaz_json(0, 'delivery', 'resume', 'two'), [ { delivery => 'two', result => 'resumed' } ], 'delivery resume');
refused(1, qr/^ERROR:  delivery "nix" does not exist/, 'delivery', 'resume', 'one', 'nix');
is(paused(), 'one', 'all that are named or none');

# A connection that breaks, and one that was broken off by Ctrl-C.
$tail = begin_sagaz('outbox', 'tail', '--interval', '0.05');
ok($tail->shows('out', qr/\n/), 'a tail');
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'LATERAL sagaz.new_events' AND pid <> pg_backend_pid()});
is($tail->status, 3, 'whose connection breaks: status 3');
like($tail->{err}, qr/^FATAL:  terminating connection/, 'and why');
$in = "BEGIN; LOCK TABLE sagaz.sagas; SELECT 'locked';\n";
$late = '';
$psql = IPC::Run::start([ 'psql', '-XAtq' ], '<', \$in, '>', \$late);
$psql->pump until $late =~ /locked/;
my $waits = begin_sagaz('saga', 'list');
ok($node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ 'sagaz.list_sagas' AND wait_event_type = 'Lock'}),
	'a command that waits');
$waits->signal('INT');
is($waits->status, 1, 'is cancelled by Ctrl-C');
like($waits->{err}, qr/^ERROR:  canceling statement due to user request/, 'in the server, too');
$in = "\\q\n";
$psql->finish;

done_testing();
