#!/bin/bash
# Images made to do harm, of every kind that is imported without an appliance: refused with one line that says why, or a
# tree as tar(1) would unpack it; within the memory, room and time that indexer/IMPORT.md states; and nothing outside the
# library is touched. MIRAGE_TEST_BOMB_MIB: how far the bombs grow (512; the full tier takes more).
. "$(dirname "$0")/lib.sh"
sources=$(cd "$(dirname "$0")" && pwd)/hostile_sources.pl
make() { perl "$sources" "$@"; }

# The peak of any import here. AddressSanitizer keeps what was freed, and a shadow of all: it is given less to keep.
peak_limit_kib=$((400 << 10))
if [ "${MIRAGE_TEST_PEAK_MIB:-}" ]; then peak_limit_kib=$((MIRAGE_TEST_PEAK_MIB << 10)); fi
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:quarantine_size_mb=8:thread_local_quarantine_size_kb=64"
mib=${MIRAGE_TEST_BOMB_MIB:-512}
seconds=$((60 + mib / 16))

# All that surrounds the library lies in $work and is looked at before and after: the sources, the working directory, the
# places for temporary files, and what the images aim at.
mkdir -p "$work"/{here,there,tmp,home,src} && export TMPDIR=$work/tmp HOME=$work/home
for name in here there tmp home; do echo secret >"$work/$name/passwd"; done
cd "$work/here" || exit 1
surroundings() {
  (cd "$work" && find . \( -path ./library -o -path ./small -o -path ./out -o -path ./err -o -path ./peak -o -path ./list -o -path ./recipe.yaml \) -prune -o \
    ! -path . -printf '%p %y %s %T@ %C@ %i %m %U:%G %n %l\n' \( ! -type f -o -size +1000M -o -exec sha256sum {} \; \)) | sort
}
expect 0 "$mirage" init

peak=0 quiet=-q
measured() {
  timeout -s INT "$seconds" perl "$sources" measure "$work/peak" "$mirage" ${quiet+"$quiet"} "$@"
  local code=$?
  local now
  now=$(cat "$work/peak" 2>/dev/null || echo 0)
  if [ "$now" -gt "$peak" ]; then peak=$now; fi
  if [ "$now" -gt "$peak_limit_kib" ]; then echo "took $((now >> 10)) MiB of memory" >&2; return 98; fi
  return "$code"
}
unchanged() {
  [ "$(cat "$MIRAGE_LIBRARY/refs.log")" = "$refs" ] || fail "$last: refs.log changed"
  [ -z "$(ls -A "$MIRAGE_LIBRARY/staging")" ] || fail "$last: something is left in staging/"
}
# refused PATTERN SOURCE [OPTION...]: an error of one line, and the library as it was.
refused() {
  local pattern=$1 source=$2
  shift 2
  refs=$(cat "$MIRAGE_LIBRARY/refs.log")
  expect_error 1 "^mirage: import .*($pattern)" measured import "$@" "$source" hostile
  unchanged
}
# all_refused: the same for the lines of its input, "SOURCE PATTERN" or "SOURCE reader=direct PATTERN", by one process.
all_refused() {
  local name pattern options line count=0
  : >"$work/list"
  echo 'images:' >"$work/recipe.yaml"
  while read -r name pattern; do
    options=
    if [[ $pattern == reader=direct* ]]; then
      pattern=${pattern#reader=direct }
      options=', reader: direct'
    fi
    echo "  - {source: $work/src/$name, version: hostile$options}" >>"$work/recipe.yaml"
    echo "$name $pattern" >>"$work/list"
    count=$((count + 1))
  done
  refs=$(cat "$MIRAGE_LIBRARY/refs.log")
  local quiet
  unset quiet
  expect 1 measured import --recipe "$work/recipe.yaml"
  unchanged
  out_is ''
  while read -r name pattern; do
    line=$(grep -aF "import $work/src/$name: " "$work/err" | head -1)
    [[ $line =~ $pattern ]] || fail "$name: nothing like '$pattern' in '$line'"
  done <"$work/list"
  [ "$(grep -ac '^failed: ' "$work/err")" = "$count" ] || fail "not $count lines of errors"
}
taken() {
  local source=$1 branch=$2
  shift 2
  expect 0 measured import "$@" "$source" "$branch"
  [ -z "$(ls -A "$MIRAGE_LIBRARY/staging")" ] || fail "$last: something is left in staging/"
}
archive() { make "$@" >"$work/src/$1.tar"; }

# ---- the sources: all are made before the surroundings are looked at
archives=(absolute names devices twice dotdot dotdot_inside dotdot_prefix dotdot_pax dotdot_gnu dotdot_sparse nul link_out
  link_absolute file_and_directory below_file negative more_than_there_is too_large record_too_long record_overflow
  header_of_gigabytes headers_without_end sparse_old sparse_00 sparse_01 sparse_10 sparse_overlap sparse_beyond
  sparse_billion cut docker_json_depth docker_json_bytes)
for name in "${archives[@]}"; do archive "$name"; done
for name in through_link through_second_name through_replaced; do archive "$name" "$work/there"; done
make docker '[{"Config":"config.json","Layers":["../../../../there/passwd"]}]' '{"rootfs":{"diff_ids":["sha256:'"$(printf '%064d' 0)"'"]}}' >"$work/src/docker_out.tar"
make docker '[{"Config":"/etc/passwd","Layers":["x"]}]' >"$work/src/docker_config.tar"
make sparse_01 3298534883328 >"$work/src/terabytes.tar"
make ova "$(printf 'x%.0s' {1..600})" ../../there/passwd >"$work/src/out.ova"
make ova "$(printf 'x%.0s' {1..600})" "$work/there/passwd" >"$work/src/absolute.ova"
make ova "$(printf 'x%.0s' {1..600})" disk disk >"$work/src/twice.ova"
make ova '# Disk DescriptorFile
RW 63 FLAT "/etc/shadow" 0' disk >"$work/src/names.ova"
make zeros zeros "$mib" | zstd -q -1 >"$work/src/zeros.tar.zst"
make zeros blobs/sha256/zeros $((mib / 2)) | zstd -q -1 >"$work/src/blobs.tar.zst"
make same same $((mib / 4)) | zstd -q --long >"$work/src/same.tar.zst"
make empty_members 20000 | gzip -1 >"$work/src/members.tar.gz"
make zeros twice 64 | gzip -1 | gzip -9 >"$work/src/nested.tar.gz"
make zeros cut 64 | zstd -q | head -c 2000 >"$work/src/cut.tar.zst"
gzip -c "$work/src/sparse_old.tar" >"$work/src/sparse.tar.gz"

# A layout whose layer has other bytes than its name says, and one with a whiteout of "..".
layout() {
  local place=$1 layer=$2 as=${3:-} blobs hex
  blobs=$place/blobs/sha256
  mkdir -p "$blobs"
  blob() {
    hex=$(sha256sum <"$1" | cut -d' ' -f1)
    cp "$1" "$blobs/${2:-$hex}"
  }
  blob "$layer"
  if [ "$as" ]; then printf x >>"$blobs/$hex"; fi
  printf '{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$hex" >"$work/src/config"
  local manifest
  manifest='{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:'$hex'"}],"config":'
  blob "$work/src/config"
  printf '%s{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s"}}' "$manifest" "$hex" >"$work/src/manifest"
  blob "$work/src/manifest"
  printf '{"schemaVersion":2,"manifests":[{"digest":"sha256:%s"}]}' "$hex" >"$place/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$place/oci-layout"
}
layout "$work/src/good" "$work/src/twice.tar"
layout "$work/src/digest" "$work/src/twice.tar" damaged
layout "$work/src/outside" "$work/src/dotdot.tar"
layout "$work/src/holes" "$work/src/sparse_01.tar"
layout "$work/src/cutlayer" "$work/src/cut.tar"
# An index that says of itself that it is among its images: its blob has other bytes than the digest that it names.
layout "$work/src/loop" "$work/src/twice.tar"
zero=sha256:$(printf '%064d' 0)
printf '{"manifests":[{"digest":"%s"},{"digest":"%s"}]}' "$zero" "$zero" >"$work/src/loop/index.json"
cp "$work/src/loop/index.json" "$work/src/loop/blobs/sha256/${zero#*:}"
layout "$work/src/linked" "$work/src/twice.tar"
ln -sf "$work/there/passwd" "$work/src/linked/index.json"

# ---- disks
tree=$work/src/tree
mkdir -p "$tree/a/b" && echo file >"$tree/a/file" && echo other >"$tree/a/other"
ln -s /etc/passwd "$tree/absolute" && ln -s ../../../../../../etc/shadow "$tree/dots"
echo hidden >"$tree/a/Qz" && echo slash >"$tree/a/qXz-slash"
block=1024
disk() {  # NAME [debugfs command...]
  local image=$work/src/$1.raw command
  shift
  rm -f "$image"
  truncate -s 2M "$image"
  mkfs.ext4 -q -F -O ^metadata_csum,^has_journal -b "$block" -N 64 -d "$tree" "$image"
  for command in "$@"; do echo "$command"; done | debugfs -w -f - "$image" >/dev/null 2>&1
}
disk plain 'mknod' 'cd /a' 'mknod null c 1 3' 'mknod sda b 8 0' 'mknod pipe p'
disk loop 'ln /a /a/b/loop'
disk size 'sif /a/file size 0x7fffffffffffffff'
block=4096 disk holes 'sif /a/file size 0x80000000000'
disk deleted 'sif /a/file links_count 0'
disk inodes 'ssv inodes_count 4000000000' 'ssv inodes_per_group 4000000000'
disk blocks 'ssv blocks_count 4000000000'
disk shared 'sif /a/file block[1] 5' 'sif /a/other size 0x7ffffff0'
disk dotdot && make patch "$work/src/dotdot.raw" 'Qz\x00\x00' '..\x00\x00'
disk slash && make patch "$work/src/slash.raw" 'qXz-slash' 'q/z-slash'
disk nul && make patch "$work/src/nul.raw" 'qXz-slash' 'q\x00z-slash'
truncate -s 8T "$work/src/empty.raw" 2>/dev/null || rm -f "$work/src/empty.raw"
if command -v qemu-img >/dev/null; then
  cp "$work/src/plain.raw" "$work/src/base" && echo 'not in a hole' | dd of="$work/src/base" bs=1 seek=1900000 conv=notrunc 2>/dev/null
  for format in qcow2 vdi vhdx vpc vmdk; do
    qemu-img convert -f raw -O "$format" "$work/src/base" "$work/src/whole.$format"
    size=$(stat -c %s "$work/src/whole.$format")
    # Of a vhd the last bytes say what it is; those of a file that is cut inside them say nothing.
    for left in $((size / 2)) $((size - 70000)); do
      [ "$left" -gt 4096 ] || continue
      head -c "$left" "$work/src/whole.$format" >"$work/src/cut-$left.$format"
    done
  done
  qemu-img convert -f raw -O vmdk -o subformat=streamOptimized "$work/src/base" "$work/src/stream.vmdk"
  head -c -65536 "$work/src/stream.vmdk" >"$work/src/cut-stream.vmdk"
  qemu-img create -q -f qcow2 -u -b /etc/passwd -F raw "$work/src/backing.qcow2" 1M
  qemu-img create -q -f qcow2 -o data_file="$work/there/data,data_file_raw=on" "$work/src/data.qcow2" 1M
  for format in qcow2 vdi vhdx vpc vmdk; do cp "$work/src/whole.$format" "$work/src/lies.$format"; done
  make poke "$work/src/lies.qcow2" 36 00ffffff         # 16 million tables
  make poke "$work/src/lies.vdi" 384 ffffffffffffffff  # 4 billion blocks, all of them there
  make poke "$work/src/lies.vpc" 540 ffffffff          # 4 billion blocks
  make poke "$work/src/lies.vhdx" 196616 ffffffff      # 4 billion regions
  make poke "$work/src/lies.vmdk" 12 ffffffffffffff00  # a capacity of exabytes
  cp "$work/src/plain.raw" "$work/src/qcow2.raw"
  dd if="$work/src/backing.qcow2" of="$work/src/qcow2.raw" bs=512 count=2 conv=notrunc 2>/dev/null
fi
mkdir "$work/src/host" && truncate -s 8T "$work/src/host/sparse" 2>/dev/null || rm -f "$work/src/host/sparse"
ln -s "$work/there" "$work/src/host/link"
before=$(surroundings)

# ---- taken: as tar(1) unpacks it
for name in absolute names devices twice; do
  if [ "$name" = devices ] && [ "$(id -u)" != 0 ]; then continue; fi
  taken "$work/src/$name.tar" "$name"
  mkdir "$work/library.unpacked" && tar -C "$work/library.unpacked" -xf "$work/src/$name.tar" 2>/dev/null
  chmod 0755 "$work/library.unpacked" && touch -d @0 "$work/library.unpacked"  # as a top that does not come is made
  expect 0 "$mirage" -q import "$work/library.unpacked" "$name-unpacked"
  expect 0 "$mirage" diff "$name" "$name-unpacked"
  rm -rf "$work/library.unpacked"
done

# ---- refused, by the command itself
refused 'impossible name' "$work/src/dotdot.tar"
refused 'more than 4398046511104 bytes in holes' "$work/src/sparse_old.tar"
refused 'is damaged: its bytes have the digest' "$work/src/digest"
refused 'names other files' "$work/src/names.ova"
refused 'a directory with two names' "$work/src/loop.raw"

# ---- what the limit allows takes its time, and an interrupt ends it
refs=$(cat "$MIRAGE_LIBRARY/refs.log") SECONDS=0
expect 130 timeout --foreground --preserve-status -s INT -k 30 1 "$mirage" -q import "$work/src/terabytes.tar" hostile
[ "$SECONDS" -lt 20 ] || fail "$last: ended after $SECONDS s"
unchanged

# ---- bombs: what is new to the library is little, whatever they grow to
taken "$work/src/members.tar.gz" members
taken "$work/src/zeros.tar.zst" zeros
taken "$work/src/same.tar.zst" same
taken "$work/src/blobs.tar.zst" blobs
kib=$(du -sk "$MIRAGE_LIBRARY" | cut -f1)
[ "$kib" -lt 20000 ] || fail "the bombs took $kib KiB in the library"

# ---- disks and a container that are no harm
taken "$work/src/good" good
taken "$work/src/plain.raw" plain
expect 0 "$mirage" ls -l plain:/sda
out_has 'absolute -> /etc/passwd$'
out_has 'dots -> ../../../../../../etc/shadow$'
expect 0 "$mirage" ls -l plain:/sda/a
out_has '^c.* 1, *3 .*null$'
out_has '^b.* 8, *0 .*sda$'
expect_error 1 '.' "$mirage" cat plain:/sda/absolute/x

# ---- refused, many by one process
{
  for name in dotdot_inside dotdot_prefix dotdot_pax dotdot_gnu dotdot_sparse nul link_out; do
    echo "$name.tar impossible name"
  done
  echo 'link_absolute.tar does not come before it'
  for name in through_link through_second_name below_file; do echo "$name.tar no directory in the archive"; done
  for name in through_replaced file_and_directory; do echo "$name.tar once as a directory and once not"; done
  echo 'negative.tar negative size'
  for name in more_than_there_is cut; do echo "$name.tar ends too early"; done
  echo 'too_large.tar too large|negative size'
  for name in record_too_long record_overflow; do echo "$name.tar an extended header"; done
  for name in header_of_gigabytes headers_without_end; do echo "$name.tar too long"; done
  for name in sparse_00.tar sparse_01.tar sparse_10.tar sparse.tar.gz; do
    echo "$name more than 4398046511104 bytes in holes"
  done
  for name in sparse_overlap sparse_beyond; do echo "$name.tar a sparse member's map"; done
  echo 'sparse_billion.tar too many pieces'
  echo 'nested.tar.gz compressed more than once'
  echo 'cut.tar.zst damaged|ends too early'

  echo 'outside impossible name'
  echo 'holes bytes in holes'
  echo 'cutlayer ends too early'
  echo 'loop is damaged: its bytes have another digest'
  echo 'linked index.json'
  for name in docker_out docker_config; do echo "$name.tar outside of it"; done
  echo 'docker_json_depth.tar not the JSON of an image'
  echo 'docker_json_bytes.tar at most [0-9]* are read'

  for name in out absolute; do echo "$name.ova outside of it"; done
  echo 'twice.ova has the disk disk twice'

  echo 'size.raw an impossible size'
  echo 'holes.raw bytes in holes'
  echo 'deleted.raw a deleted file'
  echo 'shared.raw damaged'
  echo 'inodes.raw reader=direct damaged'
  echo 'blocks.raw reader=direct blocks of'
  for name in dotdot slash nul; do echo "$name.raw an impossible name"; done
  if [ -e "$work/src/empty.raw" ]; then echo 'empty.raw reader=direct no filesystem'; fi
  if [ -e "$work/src/host/sparse" ]; then echo 'host bytes in holes'; fi
  if command -v qemu-img >/dev/null; then
    for image in "$work"/src/cut-*; do echo "${image##*/} truncated|damaged"; done
    for format in qcow2 vdi vhdx vpc vmdk; do
      echo "lies.$format truncated|damaged"
      echo "whole.$format reader=direct takes raw ones"  # nothing is said against these
    done
    echo 'stream.vmdk reader=direct takes raw ones'
    echo 'backing.qcow2 has a backing file, /etc/passwd; if you trust it'
    echo 'data.qcow2 external data file'
    echo 'qcow2.raw has a backing file, /etc/passwd; if you trust it'
  fi
} | all_refused
if command -v qemu-img >/dev/null; then
  taken "$work/src/qcow2.raw" claims --format raw
  expect 0 "$mirage" diff plain claims
fi

# ---- nothing outside the library
after=$(surroundings)
if [ "$before" != "$after" ]; then
  diff <(echo "$before") <(echo "$after") | head -20
  fail "something outside the library changed"
fi
expect 0 "$mirage" fsck
expect_error 1 'no such branch' "$mirage" log hostile

# ---- on a disk with little room a bomb is taken, since it needs none
if [ "$(id -u)" = 0 ] && mkdir "$work/small" && mount -t tmpfs -o size=48m tmpfs "$work/small" 2>/dev/null; then
  mounts+=("$work/small")
  export MIRAGE_LIBRARY=$work/small/library
  expect 0 "$mirage" init
  for name in zeros blobs same; do taken "$work/src/$name.tar.zst" "$name"; done
  refused 'impossible name' "$work/src/dotdot.tar"
  expect 0 "$mirage" fsck
fi
echo "the largest import took $((peak >> 10)) MiB"
finish
