#!/usr/bin/perl
# Makes the hostile sources of hostile_test.sh, of perl's core alone.
#   hostile_sources.pl NAME [ARGUMENT...] > ARCHIVE    one of the archives below
#   hostile_sources.pl patch FILE FROM TO              FROM, which is there once, becomes TO (as long; \xNN is a byte)
#   hostile_sources.pl poke FILE OFFSET HEX            writes bytes
#   hostile_sources.pl measure FILE COMMAND...         runs it; the peak memory in KiB of it or a child of it to FILE
use strict;
use warnings;

my $end = "\0" x 1024;

# name, type, size; then any of: link, prefix, size_field (12 bytes as they are), devices, mode, magic.
sub header {
  my ($name, $type, $size, %more) = @_;
  my $block = pack('a100a8a8a8a12a12a8aa100a8a32a32a8a8a155x12', $name, sprintf('%07o', $more{mode} // ($type eq '2' ? 0777 : 0644)),
    sprintf('%07o', 0), sprintf('%07o', 0), $more{size_field} // sprintf('%011o', $size), sprintf('%011o', 1700000000),
    '        ', $type, $more{link} // '', $more{magic} // "ustar\00000", '', '',
    sprintf('%07o', $more{major} // 0), sprintf('%07o', $more{minor} // 0), $more{prefix} // '');
  substr($block, 345, 155) = pack('a155', $more{raw}) if defined $more{raw};
  substr($block, $more{at}, length $more{bytes}) = $more{bytes} if defined $more{at};
  substr($block, 148, 8) = sprintf("%06o\0 ", unpack('%32C*', $block));
  return $block;
}
sub padded { my ($bytes) = @_; return $bytes . "\0" x (-length($bytes) % 512); }
sub file { my ($name, $bytes, %more) = @_; return header($name, '0', length $bytes, %more) . padded($bytes); }
sub directory { return header($_[0], '5', 0, mode => 0755); }
sub record {
  my ($key, $value) = @_;
  my $length = length("$key=$value") + 2;
  my $whole = $length + length $length;
  $whole = $length + length $whole;
  return "$whole $key=$value\n";
}
sub extended { my ($records) = @_; return header('pax', 'x', length $records) . padded($records); }
sub binary { return pack('CxxxQ>', 0x80, $_[0]); }  # a number of 12 bytes, as GNU tar writes large ones

my $huge = 9223372036854775792;  # 8 EiB
my %sources = (
  # ---- what tar(1) takes
  absolute => sub {
    directory('d') . file('/d/file', 'inside') . header('d/link', '2', 0, link => '/etc/passwd')
      . header('/d/same', '1', 0, link => '/d/file');
  },
  names => sub {
    directory('d') . file("d/new\nline", 'a') . file("d/\xff\xfe", 'b') . file("d/\e[2Jcolour", 'c') . file('d/ ', 'd')
      . file("d/back\\slash", 'e') . file('d/-rf', 'f') . file('d/...', 'g');
  },
  devices => sub {
    directory('dev') . header('dev/null', '3', 0, major => 1, minor => 3) . header('dev/sda', '4', 0, major => 8)
      . header('dev/fifo', '6', 0);
  },
  twice => sub { file('a', 'first') . file('b', 'b') . file('a', 'the last holds'); },

  # ---- names that lead out
  dotdot => sub { file('../x', 'out'); },
  dotdot_inside => sub { file('a/../../x', 'out'); },
  dotdot_prefix => sub { file('x', 'out', prefix => '../..'); },
  dotdot_pax => sub { extended(record('path', '../x')) . file('x', 'out'); },
  dotdot_gnu => sub { header('long', 'L', 5) . padded("../x\0") . file('x', 'out', magic => "ustar  \0"); },
  dotdot_sparse => sub { extended(record('GNU.sparse.name', '../x') . record('GNU.sparse.size', 3)) . file('x', 'out'); },
  nul => sub { extended(record('path', "a\0../../x")) . file('x', 'out'); },
  link_out => sub { header('x', '1', 0, link => '../../etc/shadow'); },
  link_absolute => sub { header('x', '1', 0, link => '/etc/shadow'); },
  through_link => sub { header('d', '2', 0, link => $_[0]) . file('d/x', 'out'); },
  through_second_name => sub {
    header('s', '2', 0, link => $_[0]) . header('d', '1', 0, link => 's') . file('d/x', 'out');
  },
  through_replaced => sub { directory('d') . header('d', '2', 0, link => $_[0]) . file('d/x', 'out'); },
  file_and_directory => sub { file('a', 'a') . directory('a/'); },
  below_file => sub { file('a', 'a') . file('a/b', 'b'); },

  # ---- lengths that lie
  negative => sub { header('a', '0', 0, size_field => "\xff" x 12); },
  more_than_there_is => sub { header('a', '0', 0, size_field => binary($huge)) . 'x' x 2000; },
  too_large => sub { header('a', '0', 0, size_field => pack('CxxxQ>', 0x80, 1 << 63)); },
  record_too_long => sub { extended("99999 path=a\n") . file('a', 'a'); },
  record_overflow => sub { extended("18446744073709551617 path=a\n") . file('a', 'a'); },
  header_of_gigabytes => sub { header('pax', 'x', 0, size_field => binary(1 << 33)) . padded('10 a=b\n'); },
  headers_without_end => sub {
    my $all = '';
    for my $i (1 .. 12) {
      $all .= extended(join '', map { record("SCHILY.xattr.user.$i.$_", 'v' x 1000) } 1 .. 900);
    }
    return $all . file('a', 'a');
  },

  # ---- 8 EiB of holes, in the four forms that GNU tar writes
  sparse_old => sub {
    header('a', 'S', 1, magic => "ustar  \0", at => 386, bytes => binary(0) . binary(1) . "\0" x 73 . binary($huge)) . padded('x');
  },
  sparse_00 => sub {
    extended(record('GNU.sparse.size', $huge) . record('GNU.sparse.numblocks', 1) . record('GNU.sparse.offset', 0)
      . record('GNU.sparse.numbytes', 1)) . file('a', 'x');
  },
  sparse_01 => sub {
    extended(record('GNU.sparse.size', $_[0] // $huge) . record('GNU.sparse.map', '0,1')) . file('a', 'x');
  },
  sparse_10 => sub {
    extended(record('GNU.sparse.major', 1) . record('GNU.sparse.minor', 0) . record('GNU.sparse.name', 'a')
      . record('GNU.sparse.realsize', $huge)) . file('a', padded("1\n0\n1\n") . 'x');
  },
  sparse_overlap => sub { extended(record('GNU.sparse.size', 9) . record('GNU.sparse.map', '0,3,2,3')) . file('a', 'abcdef'); },
  sparse_beyond => sub { extended(record('GNU.sparse.size', 9) . record('GNU.sparse.map', "$huge,9")) . file('a', 'x' x 9); },
  sparse_billion => sub {
    extended(record('GNU.sparse.major', 1) . record('GNU.sparse.realsize', 9)) . file('a', padded("1000000000\n0\n1\n") . 'x');
  },

  cut => sub { header('a', '0', 600) . 'cut'; },

  # ---- virtual machines
  ova => sub {
    my ($disk, @names) = @_;
    my ($files, $disks) = ('', '');
    for my $i (0 .. $#names) {
      $files .= qq(<File id="f$i" href="$names[$i]"/>);
      $disks .= qq(<Disk fileRef="f$i"/>);
    }
    return file('m.ovf', "<E><References>$files</References><DiskSection>$disks</DiskSection></E>") . file('disk', $disk);
  },

  # ---- containers as `docker save` writes them: its documents as given
  docker => sub { my ($manifest, $config) = @_; return file('manifest.json', $manifest) . file('config.json', $config // '{}'); },
  docker_json_depth => sub { file('manifest.json', '[' x 100_000); },
  docker_json_bytes => sub { file('manifest.json', ' ' x (5 << 20)); },
);

# ---- archives too long to be held: written in pieces
my %streams = (
  # One member of so many MiB: zeros, or one random MiB again and again.
  zeros => sub { my ($name, $mebibytes) = @_; member($name, $mebibytes, "\0" x (1 << 20)); print $end; },
  same => sub {
    my ($name, $mebibytes) = @_;
    srand 1;
    member($name, $mebibytes, pack('L*', map { int rand 0xffffffff } 1 .. 1 << 18));
    print $end;
  },
  empty_members => sub {
    my ($count) = @_;
    my $base = header('f0000000000', '0', 0);
    my $sum = unpack('%32C*', substr($base, 0, 148)) + unpack('%32C*', substr($base, 156)) + 256;
    for my $i (0 .. $count - 1) {
      my $block = $base;
      my $digits = sprintf('%010d', $i);
      substr($block, 1, 10) = $digits;
      substr($block, 148, 8) = sprintf("%06o\0 ", $sum + unpack('%32C*', $digits) - 480);
      print $block;
    }
    print $end;
  },
);
sub member {
  my ($name, $mebibytes, $piece) = @_;
  print header($name, '0', 0, size_field => binary($mebibytes << 20));
  print $piece for 1 .. $mebibytes;
}

sub rewrite {
  my ($file, $edit) = @_;
  open my $f, '+<:raw', $file or die "$file: $!";
  my $bytes = do { local $/; <$f> };
  $edit->(\$bytes);
  seek $f, 0, 0;
  print $f $bytes;
  close $f or die "$file: $!";
}

my ($what, @arguments) = @ARGV;
binmode STDOUT;
if ($what eq 'patch') {
  my ($file, $from, $to) = @arguments;
  s/\\x([0-9a-f]{2})/chr hex $1/ge for $from, $to;
  rewrite($file, sub {
    my ($bytes) = @_;
    my $at = index $$bytes, $from;
    die "$from: not once in $file" if $at < 0 || index($$bytes, $from, $at + 1) >= 0;
    substr($$bytes, $at, length $to) = $to;
  });
} elsif ($what eq 'poke') {
  my ($file, $offset, $hex) = @arguments;
  open my $f, '+<:raw', $file or die "$file: $!";
  seek $f, $offset, 0;
  print $f pack('H*', $hex);
  close $f or die "$file: $!";
} elsif ($what eq 'measure') {
  my $file = shift @arguments;
  my $code = system { $arguments[0] } @arguments;
  my $usage = "\0" x 256;
  chomp(my $machine = `uname -m`);
  syscall($machine eq 'x86_64' ? 98 : 165, -1, $usage);  # getrusage(2) of the children; ru_maxrss is the fifth long
  open my $out, '>', $file or die "$file: $!";
  print $out ((unpack 'q5', $usage)[4], "\n");
  close $out;
  exit($code & 127 ? 128 + ($code & 127) : $code >> 8);
} elsif ($streams{$what}) {
  $streams{$what}->(@arguments);
} else {
  die "no such source: $what" unless $sources{$what};
  print $sources{$what}->(@arguments), $what eq 'cut' ? '' : $end;
}
