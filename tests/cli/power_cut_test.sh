#!/bin/bash
# The power fails under an edit mount. The library lies on an ext4 of its own, in a file; what the kernel has not written to
# that file at one instant is lost: the file is copied at random instants while a program edits, and each copy is mounted as
# the machine would after it came back. What was synced is there, names are a prefix of the order answered, a rename over a
# file shows the old or the new one, whole, whether the new one was synced or not, a truncated file is as before or cut, and no
# byte is read that nobody wrote.
#
# MIRAGE_TEST_CUTS: how many instants (default 6). MIRAGE_TEST_SEED: to have the same program again.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || skip "only root can mount a filesystem"
[ -c /dev/fuse ] || skip "no /dev/fuse"
cuts=${MIRAGE_TEST_CUTS:-6} seed=${MIRAGE_TEST_SEED:-$RANDOM}
echo "MIRAGE_TEST_SEED=$seed MIRAGE_TEST_CUTS=$cuts"
RANDOM=$seed
ram=$work/ram disk=$work/disk mnt=$work/mnt
mkdir "$ram" "$disk" "$mnt"
mount -t tmpfs tmpfs "$ram" || skip "no tmpfs"
truncate -s 192M "$ram/disk.img"
mkfs.ext4 -q -F "$ram/disk.img"
mount -o loop "$ram/disk.img" "$disk" || skip "no loop devices"
mounts+=("$mnt" "$disk" "$ram")
export MIRAGE_LIBRARY=$disk/library

# Records of 16 bytes say what they are: of which block of `big`, and written by which step; step 0 is the version below.
make_source "$work/source"
perl -e 'for my $block (0..511) { printf("B%06d %07d\n", $block, 0) for 1..256 }' >"$work/source/big"
perl -e 'printf("C%06d %07d\n", $_, 0) for 0..999' | tee "$work/source/whole" >"$work/source/plain"
mkdir "$work/source/cut"
for file in $(seq 0 29); do head -c 262144 "$work/source/big" >"$work/source/cut/$file"; done
expect 0 "$mirage" init
expect 0 "$mirage" import "$work/source" debian
expect 0 "$mirage" mount --edit debian "$mnt"
overlay=$(basename "$MIRAGE_LIBRARY"/overlays/*)
daemon=$(cat "$MIRAGE_LIBRARY/overlays/$overlay/lock")
daemon=${daemon%% *}

# Says outside what it is about to do, and what was answered to be on the disk.
cat >"$work/edit.pl" <<'PERL'
use strict; use IO::Handle; use Fcntl;
my ($mnt, $work, $seed) = @ARGV;
srand($seed);
open(my $said, '>>', "$work/said") or die; $said->autoflush(1);
sub say_it { print $said "@_\n" }
sub synced { my $file = shift; $file->sync or die "sync: $!" }
sub sync_directory { sysopen(my $top, $mnt, O_RDONLY | O_DIRECTORY) or die "open: $!"; synced($top) }
open(my $log, '>>', "$mnt/log") or die; $log->autoflush(1);
sysopen(my $big, "$mnt/big", O_RDWR) or die;
my $names = 0;
my %size;
for (my $step = 1;; ++$step) {
  my $what = int(rand(14));
  if ($what < 2) {
    say_it("try log $step");
    print $log sprintf("L%06d %07d\n", 0, $step);
    if (rand() < 0.5) { synced($log); say_it("done log $step") }
  } elsif ($what < 4) {
    say_it("try whole $step");
    open(my $new, '>', "$mnt/whole.new") or die;
    printf $new "C%06d %07d\n", $_, $step for 0..999;
    $new->flush; synced($new); close($new) or die;
    rename("$mnt/whole.new", "$mnt/whole") or die "rename: $!";
    if (rand() < 0.5) { sync_directory(); say_it("done whole $step") }
  } elsif ($what >= 12) {
    say_it("try plain $step");
    open(my $new, '>', "$mnt/plain.new") or die;
    printf $new "C%06d %07d\n", $_, $step for 0..999;
    close($new) or die;
    rename("$mnt/plain.new", "$mnt/plain") or die "rename: $!";
    if (rand() < 0.3) { sync_directory(); say_it("done plain $step") }
  } elsif ($what >= 10) {
    # Block 0 is written, and then a long file gets short, or a short one shorter.
    my $file = int(rand(30));
    my $size = int(($size{$file} // 262144) * rand());
    next if $size < 4096;
    say_it("try cut $file $size $step");
    sysopen(my $cut, "$mnt/cut/$file", O_RDWR) or die "open: $!";
    syswrite($cut, sprintf("B%06d %07d\n", 0, $step) x 256) == 4096 or die "write: $!";
    truncate($cut, $size) or die "truncate: $!";
    $size{$file} = $size;
    if (rand() < 0.3) { synced($cut); say_it("sync cut $file $size $step") }
  } elsif ($what < 7) {
    ++$names;
    say_it("try name $names");
    if ($names % 3 == 0) { mkdir("$mnt/name-$names") or die "mkdir: $!" }
    elsif ($names % 3 == 1) { symlink("target", "$mnt/name-$names") or die "symlink: $!" }
    else { sysopen(my $made, "$mnt/name-$names", O_WRONLY | O_CREAT | O_EXCL) or die "create: $!" }
    if (rand() < 0.2) { sync_directory(); say_it("done name $names") }
  } else {
    my $block = int(rand(64));
    say_it("try big $block $step");
    sysseek($big, 4096 * $block, 0);
    syswrite($big, sprintf("B%06d %07d\n", $block, $step) x 256) == 4096 or die "write: $!";
    if (rand() < 0.3) { synced($big); say_it("sync big $step") }
  }
  select(undef, undef, undef, 0.003);
}
PERL
cat >"$work/check.pl" <<'PERL'
use strict;
my ($mnt, $said) = @ARGV;
my (%tried, %done, %block_tried, %block_done, %pending, %cut_tried, %cut_done);
open(my $in, '<', $said) or die;
while (<$in>) {
  my @word = split;
  if ("@word[0,1]" eq 'try big') { push @{$block_tried{$word[2]}}, $word[3]; $pending{$word[2]} = $word[3] }
  elsif ("@word[0,1]" eq 'sync big') { %block_done = (%block_done, %pending); %pending = () }
  elsif ("@word[0,1]" eq 'try cut') { push @{$cut_tried{$word[2]}}, [@word[3,4]] }
  elsif ("@word[0,1]" eq 'sync cut') { $cut_done{$word[2]} = [@word[3,4]] }
  elsif ($word[0] eq 'try') { push @{$tried{$word[1]}}, $word[2] }
  else { $done{$word[1]} = $word[2] }
}
my $bad = 0;
sub bad { print "@_\n"; $bad = 1 }
sub content { my $file = shift; local $/; open(my $in, '<', "$mnt/$file") or return undef; my $bytes = <$in>; close($in) or bad("$file: $!"); defined $bytes ? $bytes : '' }

for my $file ('whole', 'plain') {
  my $whole = content($file);
  my @whole = $whole =~ /C\d{6} (\d{7})\n/g;
  bad("$file: " . length($whole) . " bytes, not one whole version") unless @whole == 1000 && length($whole) == 16000 && !grep { $_ != $whole[0] } @whole;
  my ($version, $least) = (@whole ? $whole[0] + 0 : -1, $done{$file} || 0);
  bad("$file: version $version, but $least was synced") if $version < $least;
  bad("$file: version $version was never written") unless $version == 0 || grep { $_ == $version } @{$tried{$file}};
  print "$file $version (synced $least), ";
}

for my $file (0..29) {
  my $cut = content("cut/$file");
  my ($size, $step) = @{$cut_done{$file} || [262144, 0]};
  my @may = ([$size, $step], grep { $_->[1] > $step } @{$cut_tried{$file} || []});
  bad("cut/$file: " . length($cut) . " bytes, which it never had") unless grep { $_->[0] == length($cut) } @may;
  for my $at (0..int(length($cut) / 16) - 1) {
    my $record = substr($cut, 16 * $at, 16);
    my ($is, $by) = $record =~ /^B(\d{6}) (\d{7})\n$/;
    next if defined $is && $is == int($at / 256) && ($by == 0 && ($at >= 256 || !$step) || $at < 256 && grep { $_->[1] == $by } @may);
    bad("cut/$file: has '" . unpack('H*', $record) . "' at " . 16 * $at . ", synced was step $step");
    last;
  }
}

# Appended and synced: there; appended later: none of it, some or zeros as far as the file grew.
my $log = content('log');
bad("log: gone, but synced") if !defined $log && $done{log};
my $at = 0;
for my $step (@{$tried{log} || []}) {
  my $record = defined $log ? substr($log, 16 * $at, 16) : '';
  my $is = $record eq sprintf("L%06d %07d\n", 0, $step);
  bad("log: step $step was synced and is not there") if $step <= ($done{log} || 0) && !$is;
  bad("log: bytes nobody wrote at " . 16 * $at) unless $is || $record =~ /^\0*$/;
  ++$at;
}
bad("log: longer than was written") if defined $log && length($log) > 16 * $at;

opendir(my $top, $mnt) or die;
my %names = map { $_ => 1 } grep { s/^name-// } readdir($top);
my $count = keys %names;
bad("names: $count, but $done{name} were synced") if $count < ($done{name} || 0);
for (1..$count) { bad("names: $count of them, but not name-$_") unless $names{$_} }

my $big = content('big');
bad("big: " . length($big) . " bytes") unless length($big) == 512 * 4096;
for my $block (0..511) {
  my %may = map { $_ => 1 } grep { $_ >= ($block_done{$block} || 0) } (0, @{$block_tried{$block} || []});
  for my $record (unpack('(a16)*', substr($big, 4096 * $block, 4096))) {
    my ($is, $step) = $record =~ /^B(\d{6}) (\d{7})\n$/;
    next if defined $is && $is == $block && $may{$step + 0};
    bad("big: block $block has '" . unpack('H*', $record) . "', synced was step " . ($block_done{$block} || 0));
    last;
  }
}
my $synced = grep { $_ } values %block_done;
print "$count names (", $done{name} || 0, "), log of ", defined $log ? length($log) / 16 : 0, " (step ",
  $done{log} || 0, "), $synced blocks synced\n";
exit($bad);
PERL

perl "$work/edit.pl" "$mnt" "$work" "$seed" 2>"$work/edit.err" &
editor=$!
# Both stand still while the file is copied, and two copies that are equal are of one instant.
for cut in $(seq "$cuts"); do
  sleep "$(printf '%d.%02d' $((RANDOM % 3)) $((RANDOM % 100)))"
  kill -STOP "$editor" "$daemon"
  cp "$work/said" "$ram/said-$cut"
  for _ in $(seq 20); do
    cp --sparse=always "$ram/disk.img" "$ram/cut-$cut"
    cmp -s "$ram/disk.img" "$ram/cut-$cut" && break
  done
  cmp -s "$ram/disk.img" "$ram/cut-$cut" || echo "cut $cut: the file never stood still; of several instants"
  kill -CONT "$daemon" "$editor"
done
kill -0 "$editor" || { cat "$work/edit.err"; fail "the editing program has ended"; }
kill "$editor"
wait "$editor" 2>/dev/null

check=$work/check back=$work/back
mkdir "$check" "$back"
mounts+=("$back" "$check")
for cut in $(seq "$cuts"); do
  mount -o loop "$ram/cut-$cut" "$check" || fail "cut $cut: ext4 cannot be mounted"
  MIRAGE_LIBRARY=$check/library
  expect 0 "$mirage" fsck
  expect 0 "$mirage" overlay list
  out_has "^$overlay .*active"
  expect 0 "$mirage" overlay resume "$overlay" "$back"
  perl "$work/check.pl" "$back" "$ram/said-$cut" >"$work/out" 2>"$work/err" || fail "cut $cut"
  echo "cut $cut: $(tail -1 "$work/out")"
  expect 0 "$mirage" umount "$back"
  expect 0 "$mirage" fsck
  for _ in $(seq 100); do umount "$check" 2>/dev/null && break; sleep 0.1; done  # the daemon may still be removing the overlay's files
  rm "$ram/cut-$cut"
done
MIRAGE_LIBRARY=$disk/library
expect 0 "$mirage" umount "$mnt"
finish
