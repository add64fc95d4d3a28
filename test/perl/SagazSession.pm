# A psql session that a test drives step by step.  A statement may be sent
# without waiting for its end, so that another session can act meanwhile.
package SagazSession;

use strict;
use warnings;

use IPC::Run;
use Test::More;

my $mark = 'end of statement';

# A session that has not ended after so many seconds (600) is given up.
sub new
{
	my ($class, $node, $database, $seconds) = @_;
	my $self = bless { in => '', out => '', err => '' }, $class;

	$self->{psql} = IPC::Run::start(
		[
			'psql', '--no-psqlrc', '--no-align', '--tuples-only', '--quiet',
			'--file' => '-',
			'--dbname' => $node->connstr($database)
		],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err},
		IPC::Run::timeout($seconds // 600));
	$self->{pid} = $self->query('SELECT pg_backend_pid()');
	return $self;
}

# Let the session begin a statement.
sub send
{
	my ($self, $sql) = @_;

	$self->{in} .= "$sql;\n\\echo $mark\n";
	$self->{psql}->pump_nb;
}

# Wait for the end of what was sent; the rows it gave, joined by a blank.
sub result
{
	my ($self) = @_;

	$self->{psql}->pump until $self->{out} =~ s/^(.*?)$mark\n//s;
	my $rows = $1;
	diag($self->{err}) if $self->{err} ne '';
	$self->{err} = '';
	$rows =~ s/\n+$//;
	return $rows =~ s/\n/ /gr;
}

sub query
{
	my ($self, $sql) = @_;

	$self->send($sql);
	return $self->result;
}

# The rows that a statement, given with its end, yields; its SQLSTATE if it fails.
sub outcome
{
	my ($self, $sql) = @_;

	$self->ask($sql);
	return $self->answer;
}

# outcome() in one line: the values, or the SQLSTATE of what failed.
sub value_or_state
{
	my ($self, $statement) = @_;
	my $result = $self->outcome("$statement;");
	return $result =~ /^ERROR (\w+)/m ? $1 : $result =~ s/\n+$//r =~ s/\n/ /gr;
}

# outcome() in two halves.
sub ask
{
	my ($self, $sql) = @_;

	$self->{in} .= "$sql\n\\if :ERROR\n\\echo ERROR :SQLSTATE\n\\endif\n\\echo $mark\n";
	$self->{psql}->pump_nb;
}

sub answer
{
	my ($self) = @_;

	$self->{psql}->pump until $self->{out} =~ s/^(.*?)$mark\n//s;
	$self->{err} = '';
	return $1;
}

sub close
{
	my ($self) = @_;

	$self->{in} .= "\\q\n";
	$self->{psql}->finish;
}

1;
