# A Redis whose replies are changed on the way, each of a kind and then at random,
# also to a delivery and two streams: errors that say so, no crash, and no more
# memory than allowed.
use strict;
use warnings FATAL => 'all';

use SagazDelivery;
use SagazHostile;
use SagazMutator::Redis;
use SagazRedis;
use Test::More;

my $node = hostile_node('100ms');
my $redis = SagazRedis->new->start;

$node->safe_psql('postgres', "SELECT sagaz.create_storage('real', '" . $redis->url . "')");
$node->safe_psql('postgres', <<'SQL');
SET sagaz.command_timeout = '1 min';
SELECT sagaz.save_saga_state('order-' || i, 'Order', 'executing', '[{"name": "a"}]', '{}', storage => 'real') FROM generate_series(1, 20) AS i;
SELECT sagaz.insert_event('order-1', 'E', '{}', event_id => ('00000000-0000-4000-8000-0000000000' || i)::uuid, storage => 'real') FROM generate_series(10, 30) AS i;
SELECT sagaz.save_saga_state('here', 'Order', 'executing'), sagaz.insert_event('here', 'E', '{}');
SELECT sagaz.create_consumer_group('plain'), sagaz.create_consumer_group('ordered', 'saga'), sagaz.create_consumer_group('copy');
SQL

# A delivery to a stream, one to the stream of an ordered group, and one to the
# storage: they come and go with it, and each round has events for them, which
# they have delivered, or tried to, when they go.
sub deliver
{
	my ($url) = @_;
	return <<"SQL";
SELECT sagaz.create_storage('y', '$url', options => '{"stream": "other"}');
SELECT sagaz.create_delivery('plain', 'x', 'plain', options => '{"as": "stream"}');
SELECT sagaz.create_delivery('ordered', 'y', 'ordered', options => '{"as": "stream"}');
SELECT sagaz.create_delivery('copy', 'x', 'copy');
SELECT sagaz.insert_event('here', 'E', '{}', storage => 'native') FROM generate_series(1, 5)
SQL
}
my $waiting = 'FROM sagaz.stat_delivery WHERE batches = 0 AND last_error IS NULL';
my $drop = <<"SQL";
DO \$\$ BEGIN WHILE EXISTS (SELECT $waiting) LOOP PERFORM pg_sleep(0.02); END LOOP; END \$\$;
SELECT sagaz.drop_delivery(name) FROM sagaz.delivery;
SELECT sagaz.drop_storage('y')
SQL

my $seed = hostile_seed();
srand $seed;

# Deliveries meet what is changed.
{
	my $replies = 0;
	my $peer = SagazMutator::Redis->new($redis->{socket}, 1, sub { $replies++ < 3 ? $_[0] : [ '-', 'ERR another reply' ] });

	$node->safe_psql('postgres', "SELECT sagaz.create_storage('x', '" . $peer->url . "'); " . deliver($peer->url));
	query_is($node, 'postgres', q{SELECT string_agg(name, ' ' ORDER BY name) FROM sagaz.stat_delivery WHERE last_error LIKE '%another reply%'},
		'copy ordered plain', 'each delivery has met a reply that was changed');
	$node->safe_psql('postgres', "SELECT sagaz.drop_delivery(name) FROM sagaz.delivery; SELECT sagaz.drop_storage('y'), sagaz.drop_storage('x')");
	$peer->stop;
}

# Every reply but the three to a login is another.
for my $odd (hostile_some(2, SagazMutator::Redis::odd_replies()), hostile_some(1, SagazMutator::Redis::floods()))
{
	my $replies = 0;
	my $peer = SagazMutator::Redis->new($redis->{socket}, 1, sub { $replies++ < 3 ? $_[0] : $odd });

	ask_all($node, $peer->url);
	$peer->stop;
}
stands($node, 'the same reply to everything');

# The last element of all that is nested is another.
for my $odd (hostile_some(2, SagazMutator::Redis::odd_replies()))
{
	my $peer = SagazMutator::Redis->new($redis->{socket}, 1, sub {
			my ($reply) = @_;
			my ($list) = reverse grep { $_->[0] eq '*' && @{ $_->[1] // [] } } SagazMutator::Redis::nodes($reply);

			$list->[1][-1] = $odd if $list;
			return $reply;
		});

	ask_all($node, $peer->url);
	$peer->stop;
}
stands($node, 'the same in every reply');

my $peer;
hostile_rounds($node, $seed, sub {
		my ($round) = @_;

		$peer->stop if $peer;
		$peer = SagazMutator::Redis->new($redis->{socket}, $seed + $round, (20, 60, 200)[$round % 3]);
		return ($peer->url, deliver($peer->url), $drop);
	});
is($node->safe_psql('postgres', "SELECT status FROM sagaz.list_sagas(saga_name => 'Order') WHERE saga_id = 'here'"), 'executing', 'what is native is as it was');
is($node->safe_psql('postgres', "SELECT count(*) FROM sagaz.outbox"), $node->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox_events'), 'and nothing was lost');

$node->stop;
done_testing();
