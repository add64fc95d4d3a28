# test/layers finds nothing wrong with the sources, and does find what is put
# into a copy of them on purpose.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use File::Copy qw(copy);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use Test::More;

my $copy = tempdir(CLEANUP => 1);

sub write_to
{
	my ($mode, $path, $text) = @_;

	open my $file, $mode, "$copy/$path" or die "$path: $!";
	print $file $text;
	close $file or die "$path: $!";
}

# With text added to files of the copy the check fails and says so.
sub finds
{
	my ($what, $message, %added) = @_;
	my %size = map { $_ => -s "$copy/$_" // 0 } keys %added;

	write_to('>>', $_, $added{$_}) for keys %added;
	my $output = `$^X test/layers $copy`;
	isnt($?, 0, "$what is found");
	like($output, $message, 'and named');
	truncate("$copy/$_", $size{$_}) or die "$_: $!" for keys %added;
}

for my $path (glob 'src/*.[ch] src/*/*.[ch] backends/*/*.[ch]')
{
	make_path("$copy/" . dirname($path));
	copy($path, "$copy/$path") or die "$path: $!";
}

make_path("$copy/src/elsewhere");

my $output = `$^X test/layers`;
is($?, 0, 'nothing reaches up, and nothing runs in a circle') or diag($output);

finds('an include of a header above', qr{^src/lib/uuid\.c knows src/outbox/window\.h \(include\)}m,
	'src/lib/uuid.c' => "#include \"outbox/window.h\"\n");
finds('a call of a function above', qr{^src/outbox/window\.c knows src/status/event_scan\.c \(sagaz_scan_by_status\)}m,
	'src/outbox/window.c' => "static void *up(void)\n{\n\treturn sagaz_scan_by_status(0, 0);\n}\n");
finds('a variable of another backend', qr{^backends/redis/redis\.c knows backends/memory/memory\.c \(sagaz_memory_backend\)}m,
	'backends/redis/redis.c' => "static const void *other = &sagaz_memory_backend;\n");
finds('a macro of a header above', qr{^src/lib/uuid\.c knows backends/common/backend\.h \(SAGAZ_CLAIMS_BY_EDIT\)}m,
	'src/lib/uuid.c' => "struct { int x; } y = { SAGAZ_CLAIMS_BY_EDIT };\n");
finds('a name that a macro pastes together', qr{^src/lib/uuid\.c knows src/status/event_scan\.c \(sagaz_scan_by_status\)}m,
	'src/lib/uuid.c' => "#define CALL(name) sagaz_scan_##name(0, 0)\nCALL(by_status)\n");
finds('what another folder defines', qr{^src/lib/uuid\.h declares what src/saga/saga_delete\.c defines \(saga_delete\)}m,
	'src/lib/uuid.h' => "extern bool saga_delete(Datum saga_id);\n");
finds('two files that call each other', qr{^circle: src/lib/here -> src/lib/there \(there\), src/lib/there -> src/lib/here \(here\)}m,
	'src/lib/here.c' => "void\nhere(void)\n{\n\tthere();\n}\n",
	'src/lib/there.c' => "void\nthere(void)\n{\n\t" . "here();\n}\n");
finds('two headers that include each other', qr{^circle: src/lib/here\.h -> src/lib/there\.h}m,
	'src/lib/here.h' => "#include \"lib/there.h\"\n",
	'src/lib/there.h' => "#include \"lib/here.h\"\n");
finds('a function of one name', qr{^twice is defined in src/lib/here\.c and src/lib/there\.c}m,
	map { $_ => "static void\ntwice(void)\n{\n}\n" } 'src/lib/here.c', 'src/lib/there.c');
finds('a struct of one name', qr{^Twice is defined in src/lib/here\.c and src/lib/there\.c}m,
	map { $_ => "typedef struct Twice\n{\n\tint x;\n} Twice;\n" } 'src/lib/here.c', 'src/lib/there.c');
finds('a folder without a place', qr{^src/elsewhere has no layer}m,
	'src/elsewhere/x.h' => "#include \"lib/uuid.h\"\n");

done_testing();
