# The pgTAP tests, each in a database of its own that has both extensions.
use strict;
use warnings;

use SagazTest;
use TAP::Parser;
use Test::More;

# Tell the results of one script as a subtest.
sub relay
{
	my ($output) = @_;
	my $parser = TAP::Parser->new({ tap => $output });

	while (my $result = $parser->next)
	{
		if ($result->is_test)
		{
			ok($result->is_ok, $result->description =~ s/^- //r);
		}
		elsif (!$result->is_plan)
		{
			diag($result->as_string);
		}
	}
	is_deeply([ $parser->parse_errors ], [], 'ran to the end of its plan');
}

plan skip_all => 'no pgTAP for this server'
  unless -e "$ENV{SHAREDIR}/extension/pgtap.control";

my $node = new_node('pgtap');

for my $test (test_files('PGTAP', 'test/pgtap/*.sql'))
{
	$node->safe_psql('postgres', "CREATE DATABASE $test");
	$node->safe_psql($test,
		'CREATE EXTENSION pgtap SCHEMA public; CREATE EXTENSION sagaz');
	my ($status, $out, $err) = $node->psql($test, undef,
		extra_params => [ '--file', "test/pgtap/$test.sql" ]);
	subtest $test => sub {
		is($status, 0, 'runs') or diag($err);
		relay($out);
	};
}
$node->stop;

done_testing();
