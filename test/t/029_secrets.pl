# A password in a URL that a caller wrote reaches no message, context, statement
# or line of the log, whatever the nesting and however the URL is mistaken.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use SagazTest;
use Test::More;

my $secret = 'TOPs3cret';
my $node = new_node('secrets', conf => <<'CONF');
log_error_verbosity = verbose
log_min_messages = debug1
client_min_messages = notice
CONF

# What is wrong with them: nobody listens, no backend, no "://", no port, not even a "/".
my @urls = (
	"redis://u:$secret\@127.0.0.1:1/0", "postgresql://u:$secret\@127.0.0.1:1/x?connect_timeout=1",
	"postgresql://u:$secret\@127.0.0.1:1/x?no_such=1", "oracle://u:$secret\@h/0", "redis//u:$secret\@h/0",
	"redis:u:$secret\@h", "redis://u:$secret\@h:port", "sqlite:///x/$secret?y=1", "u:$secret\@h", "postgres://h/?password=$secret&x",
	"redis://u:$secret(\@h/0", "u(:$secret");

# Calls with the URL as %s.
my @calls = (
	"sagaz.create_storage('s', %s)", "sagaz.create_outbox_storage('s', %s)", "sagaz.drop_storage(%s)",
	"sagaz.create_delivery('d', %s::text)", "sagaz.load_saga_state('x', %s)",
	"sagaz.save_saga_state('x', 'X', 'pending', storage => %s)", "sagaz.insert_event('x', 'X', '{}', storage => %s)",
	"sagaz.claim_batch('w', storage => %s)", "sagaz.health_check(%s)", "sagaz.count_records('saga', %s)",
	"sagaz.checksum('saga', %s)", "sagaz.export_all('saga', %s)", "sagaz.import_record('{}', 'saga', %s)",
	"sagaz.validate_transfer(%s, 'native')", "sagaz.validate_transfer('native', %s)");
my @procedures = ("sagaz.transfer(%s, 'native')", "sagaz.transfer('native', %s)", "sagaz.migrate(%s, 'native')");

# Ways to get there, with the call as %s.
my @ways = (
	'SELECT %s', 'DO $do$ BEGIN PERFORM %s; END $do$', 'DO $do$ BEGIN EXECUTE $ex$SELECT %s$ex$; END $do$',
	'SELECT public.wrap($wrap$SELECT %s$wrap$)', 'BEGIN; SAVEPOINT a; SELECT %s');
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION public.wrap(statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'DO ' || quote_literal('BEGIN EXECUTE ' || quote_literal(statement) || '; END');
END $$;
SQL

my ($asked, $shown, $succeeded) = (0, '', '');

sub ask
{
	my ($statement) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $statement, on_error_stop => 0, extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	$asked++;
	$succeeded .= "$statement\n" if $err !~ /ERROR/ && $statement !~ /health_check|validate_transfer|sqlite/;
	# psql's own lines, which repeat what was typed
	$err =~ s/^LINE \d+:.*\n.*\n//mg;
	$shown .= "$statement\n$err\n" if $err =~ /$secret/;
	return $err;
}

for my $url (@urls)
{
	my $literal = "'$url'";

	# in one session, as many are asked
	ask(join ";\n", map { my $call = sprintf $_, $literal; map { my $way = $_; $way =~ s/%s/$call/; $way } '%s' =~ s/%s/SELECT $call/r, 'ROLLBACK' } @calls);
	for my $way (@ways[1 .. $#ways])
	{
		my $call = sprintf $calls[$asked % @calls], $literal;
		ask($way =~ s/%s/$call/r);
	}
	for my $call (@procedures)
	{
		my $procedure = sprintf $call, $literal;
		ask("CALL $procedure");
		ask("DO \$do\$ DECLARE id bigint; BEGIN CALL " . $procedure =~ s/\)$/, transfer_id => id)/r . "; END \$do\$");
	}
}
for my $call (@calls)
{
	for my $way (@ways[1 .. $#ways])
	{
		my $full = sprintf $call, "'$urls[0]'";
		ask($way =~ s/%s/$full/r);
	}
}
cmp_ok($asked, '>', 100, "$asked scripts");
is($shown, '', 'no client is shown the password');
is($succeeded, '', 'each was an error');

# Options of a user mapping that PostgreSQL hands to the validator.
$node->safe_psql('postgres', "CREATE SERVER r FOREIGN DATA WRAPPER sagaz_redis OPTIONS (host '127.0.0.1')");
my $error = ask("CREATE USER MAPPING FOR CURRENT_USER SERVER r OPTIONS (user 'u', passwort '$secret')");
like($error, qr/HV00D.*passwort/, 'a mistaken option is named');
ask("CREATE SERVER q FOREIGN DATA WRAPPER sagaz_redis OPTIONS (password '$secret')");

# Settings, whose value PostgreSQL has checked.
for my $set ("SET sagaz.outbox_storage = %s", "SET LOCAL sagaz.saga_storage = %s", "SELECT set_config('sagaz.outbox_storage', %s, true)",
	"ALTER ROLE CURRENT_USER SET sagaz.outbox_storage = %s", "ALTER DATABASE postgres SET sagaz.saga_storage = %s",
	"CREATE FUNCTION public.f() RETURNS int LANGUAGE sql SET sagaz.outbox_storage = %s AS 'SELECT 1'")
{
	my $full = sprintf $set, "'$urls[0]'";
	for my $way ('%s', 'DO $do$ BEGIN %s; END $do$', 'DO $do$ BEGIN EXECUTE $ex$%s$ex$; END $do$')
	{
		like(ask($way =~ s/%s/$full/r =~ s/BEGIN SELECT/BEGIN PERFORM/r), qr/ERROR:  22023: a storage that is a setting/, "$way: $set");
	}
}
is($shown, '', 'nor from a setting');

# Caught and raised again, the caller's own context is there.
$error = ask(<<"SQL");
DO \$\$ BEGIN
	BEGIN PERFORM sagaz.load_saga_state('x', '$urls[0]'); EXCEPTION WHEN OTHERS THEN NULL; END;
	RAISE EXCEPTION 'mine';
END \$\$
SQL
like($error, qr/mine.*CONTEXT:.*inline_code_block line 3 at RAISE/s, 'contexts come back');

my $log = slurp_file($node->logfile);
# the statement that raised 'mine' is not sagaz's
$log =~ s/STATEMENT:  DO \$\$ BEGIN\n\t+BEGIN PERFORM.*?END \$\$//s;
my @lines = grep { /$secret/ } split /\n/, $log;
is(join("\n", @lines), '', 'nor is it in the log');
like($log, qr/SZ001.*could not connect/, 'which has the errors');

$node->stop;
done_testing();
