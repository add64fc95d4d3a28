# Records of the Python library as the tests compare them: as Perl values, in
# the normal form of the design.
package SagazRecord;

use strict;
use warnings;

use Exporter 'import';
use JSON::PP;
use Math::BigFloat;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::Local qw(timegm_modern);

our @EXPORT = qw($json listed exported same_records is_unfit is_spelled_well is_python_json);

our $json = JSON::PP->new->utf8->allow_bignum->allow_nonref->canonical;
my @times = qw(created_at updated_at claimed_at sent_at);
my @step_times = qw(executed_at compensated_at);

# ----------------------------------------------------------------------
# The normal form, by the words of the design

# An instant as sagaz spells it; other text stays.
sub utc
{
	my ($text) = @_;

	return $text
	  unless defined $text
	  && $text =~ /^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?
			(?:(Z)|([+-])(\d\d):(\d\d))?\z/x;
	my @part = ($1, $2, $3, $4, $5, $6);
	my $offset = $9 ? ($10 * 60 + $11) * ($9 eq '-' ? -60 : 60) : 0;
	my $fraction = substr(($7 // '') . '0' x 6, 0, 6);
	my @t = gmtime(
		timegm_modern(@part[ 5, 4, 3, 2 ], $part[1] - 1, $part[0]) - $offset);
	return sprintf(
		'%04d-%02d-%02dT%02d:%02d:%02d%s+00:00',
		$t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ],
		$fraction > 0 ? ".$fraction" : '');
}

sub is_typed
{
	my ($value, $type) = @_;
	return
	     ref $value eq 'HASH'
	  && exists $value->{value}
	  && ($value->{__type__} // '') eq $type;
}

# Numbers are equal if their values are, and nothing else equals a number.  The
# library forgets of an enum member all but its value.
sub normal_value
{
	my ($value) = @_;

	return $value if !defined $value || JSON::PP::is_bool($value);
	if (ref $value eq 'HASH')
	{
		return $value->{value} if is_typed($value, 'enum');
		my %normal = map { $_ => normal_value($value->{$_}) } keys %$value;
		$normal{value} = utc($value->{value}) if is_typed($value, 'datetime');
		return \%normal;
	}
	return [ map { normal_value($_) } @$value ] if ref $value eq 'ARRAY';
	return { number => Math::BigFloat->new("$value")->bsstr }
	  if ref $value || JSON::PP->new->allow_nonref->encode($value) !~ /^"/;
	return $value;
}

sub normal_step
{
	my ($step) = @_;

	return $step unless ref $step eq 'HASH';
	my %normal = (
		name => undef, result => undef, error => undef,
		executed_at => undef, compensated_at => undef, %$step,
		status => $step->{status} // 'pending',
		retry_count => $step->{retry_count} // 0);
	for my $key (@step_times)
	{
		$normal{$key} = $normal{$key}{value}
		  if is_typed($normal{$key}, 'datetime');
		$normal{$key} = utc($normal{$key});
	}
	return \%normal;
}

sub normal_record
{
	my ($record) = @_;
	my %normal = %$record;

	for my $key (grep { exists $normal{$_} } @times)
	{
		$normal{$key} = utc($normal{$key});
	}
	$normal{steps} = [ map { normal_step($_) } @{ $normal{steps} } ]
	  if ref $normal{steps} eq 'ARRAY';
	return normal_value(\%normal);
}

# ----------------------------------------------------------------------
# Records by kind and key

sub listed
{
	my ($name) = @_;
	my %records = (saga => {}, outbox => {});

	for my $line (split /\n/, slurp_file("test/data/$name.jsonl"))
	{
		# half a surrogate pair is as unfit as a NUL, but Perl reads only that
		$line =~ s/(\\ud[89ab]..\\ud[c-f]..)|\\ud[89a-f]../$1 \/\/ '\u0000'/gie;
		my $entry = $json->decode($line);
		$records{ $entry->{kind} }{ $entry->{id} } = $entry->{record};
	}
	return \%records;
}

# What no jsonb can hold.
sub is_unfit
{
	my ($value) = @_;

	if (ref $value eq 'HASH')
	{
		return 1 if exists $value->{'$float'};
		return grep { /\0/ || is_unfit($value->{$_}) } keys %$value;
	}
	return grep { is_unfit($_) } @$value if ref $value eq 'ARRAY';
	return defined $value && !ref $value && $value =~ /\0/;
}

sub key_of
{
	my ($record) = @_;
	return $record->{event_id} // $record->{saga_id};
}

# What export_all() gives, and the warnings.
sub exported
{
	my ($node, $kind, $url) = @_;
	my ($out, $err);

	$node->psql(
		'postgres', "SELECT * FROM sagaz.export_all('$kind', '$url')",
		stdout => \$out, stderr => \$err,
		extra_params => [ '-v', 'VERBOSITY=verbose' ], on_error_die => 1);
	my %records = map {
		my $record = $json->decode($_);
		key_of($record) => $record
	} split /\n/, $out;
	return (\%records, $err);
}

sub same_records
{
	my ($found, $wanted, $what) = @_;

	is_deeply([ sort keys %$found ], [ sort keys %$wanted ],
		"$what: every record, and no other");
	my @different = grep {
		$json->encode(normal_record($found->{$_})) ne
		  $json->encode(normal_record($wanted->{$_}))
	} sort keys %$wanted;
	is_deeply(\@different, [], "$what: every field");
	is_deeply(normal_record($found->{$_}), normal_record($wanted->{$_}), $_)
	  for @different;
}

# ----------------------------------------------------------------------
# Spelling

sub is_spelled_well
{
	my ($record) = @_;
	my @steps = ref $record->{steps} eq 'ARRAY' ? @{ $record->{steps} } : ();
	my @all = (@$record{@times}, map { ref $_ ? @$_{@step_times} : () } @steps);

	return !grep { defined && $_ ne utc($_) } @all;
}

# Between the words, after every comma and colon there is one blank.
sub is_python_json
{
	my ($text) = @_;

	return 1 unless defined $text;
	return 0 if $text =~ /\\u(?!00[01])/;
	$text =~ s/"(?:[^"\\]|\\.)*"/s/g;
	return $text !~ /[,:](?! \S)|\s[,:]|[\[{]\s|\s[\]}]|\n/;
}

1;
