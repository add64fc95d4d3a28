# Who asks why an event is not delivered is told what is in its way: the delivery
# or the session that holds its lane.  A group that nobody made is nowhere.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazSession;
use SagazTest;
use Test::More;

my $node = new_node('reasons', conf => <<'CONF');
sagaz.retry_backoff = '200ms'
sagaz.max_retries = 1
CONF

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# What explain_event says of the newest event.
sub reason
{
	return 'SELECT reason FROM sagaz.outbox AS o, sagaz.explain_event(o.event_id) ORDER BY seq DESC LIMIT 1';
}

sub emit
{
	my ($type) = @_;

	sql("SELECT sagaz.insert_event('s', '$type', '{}')");
}

sub becomes
{
	my ($sql, $wanted, $what) = @_;
	my $got = '';

	for (1 .. 900)
	{
		$got = sql($sql);
		last if $got =~ $wanted;
		select(undef, undef, undef, 0.1);
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like($got, $wanted, $what);
}

sql(<<'SQL');
CREATE TABLE one (n integer PRIMARY KEY);
CREATE FUNCTION handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF events[1].event_type = 'wait' THEN
		PERFORM pg_advisory_xact_lock(1);
	ELSIF events[1].event_type = 'key' THEN
		INSERT INTO public.one VALUES (7), (7);
	ELSIF events[1].event_type = 'detail' THEN
		RAISE 'no' USING DETAIL = 'and why';
	END IF;
END $$;
SELECT sagaz.create_consumer_group('ledger');
SELECT sagaz.create_delivery('d', 'public.handle(sagaz.outbox_event[])', 'ledger');
SQL

emit('good');
becomes('SELECT status FROM sagaz.outbox_events', qr/^sent$/, 'delivered, it is sent');
is(sql('SELECT sagaz.get_pending_count(), pending, sent, "group" FROM sagaz.get_outbox_statistics()'), '0|0|1|ledger',
	'everywhere');
is(sql('SELECT string_agg(consumer_group, \' \') FROM sagaz.outbox AS o, sagaz.explain_event(o.event_id)'), 'ledger',
	'and no other group is there');

my $session = SagazSession->new($node, 'postgres');
$session->query('SELECT pg_advisory_lock(1)');
emit('wait');
becomes(reason(), qr/; delivery "d" is in its handler since 20/, 'in its handler');
is(sql(q{SELECT lag_events FROM sagaz.stat_delivery}), '1', 'it lags');
$session->query('SELECT pg_advisory_unlock(1)');
becomes('SELECT status FROM sagaz.outbox_events WHERE event_type = \'wait\'', qr/^sent$/, 'until it ends');

emit('detail');
becomes('SELECT last_error FROM sagaz.stat_delivery', qr/^event [-0-9a-f]{36}: no: and why$/, 'the last error has event and detail');
emit('key');
becomes(q{SELECT last_error FROM sagaz.get_dead_letter_events() WHERE event_type = 'key'}, qr/^duplicate key value violates unique constraint "one_pkey"$/,
	'a detail that quotes a row is left out');
is(sql('SELECT count(*), min(consumer_group) FROM sagaz.get_dead_letter_events()'), '2|ledger', 'dead letters of all groups');
sql('TRUNCATE one; CREATE OR REPLACE FUNCTION handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS \'\'');
is(sql('SELECT sagaz.requeue_dead_letters()'), '2', 'those of all groups are requeued');
becomes('SELECT count(*) FROM sagaz.outbox_events WHERE status <> \'sent\'', qr/^0$/, 'and delivered');
becomes('SELECT state, last_error IS NULL FROM sagaz.stat_delivery', qr/^idle\|t$/, 'where all is well it is past');

sql(q{SELECT sagaz.pause_delivery('d')});
emit('good');
becomes(reason(), qr/^not handed out yet.*; delivery "d" is paused since 20/, 'a delivery that is paused');
$session->query('BEGIN');
is($session->query(q{SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 'ledger')}), 'good', 'a claim in an open transaction');
like($session->query(q{SELECT sagaz.create_consumer_group('new'); SELECT count(*) FROM sagaz.claim_batch('w', consumer_group => 'new')}),
	qr/[1-9]$/, 'and one of a group that others do not see yet');
like(sql(reason()), qr/; lane \d is held by the open transaction of session $session->{pid} \(role \w+, application "[^"]*", idle in transaction\) since 20/,
	'holds the lane');
becomes('SELECT message FROM sagaz.health_check()', qr/lane \d of consumer group "ledger" is held by the open transaction of session $session->{pid}/,
	'health_check names it, too');
$session->query('ROLLBACK');
unlike(sql(reason()), qr/held by/, 'and no more');
$session->close;

sql(q{SELECT sagaz.drop_delivery('d')});
sql(<<'SQL');
SELECT sagaz.create_storage('gone', 'postgresql://nobody@127.0.0.1:1/none');
SELECT sagaz.create_delivery('far', 'gone', 'ledger');
SQL
becomes(reason(), qr/; delivery "far" fails, and is tried again at 20.*storage "gone"/, 'a target that is down');
is(sql(q{SELECT lag_events FROM sagaz.stat_delivery}), '1', 'and it lags');
like(sql('SELECT message FROM sagaz.health_check()'), qr/delivery "far" fails: .*storage "gone"/, 'health_check says why');

done_testing();
