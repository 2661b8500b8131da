#!/bin/bash
# A Debian disk, with all that a filesystem can hold added to it, is imported through libguestfs and directly, to one
# tree and one list of packages, and mounted: it equals
# the same disk loop-mounted, in everything compare_trees compares. Its files imported from that loop mount as a directory
# give the same tree. Imported again: no changes. The second disk adds about what differs.
# $MIRAGE_TEST_DISKS: where make_disks.sh keeps the disks (default: where the quickstart keeps its own).
set -euo pipefail

disks=${MIRAGE_TEST_DISKS:-/var/tmp/mirage-quickstart}
compare=$MIRAGE_BIN/compare_trees
PATH=$MIRAGE_BIN:$PATH
fail() { echo "FAILED: $*" >&2; exit 1; }
skip() {
  echo "SKIPPED: $*" >&2
  [ "${MIRAGE_REQUIRE_ALL:-0}" = 1 ] && exit 1
  exit 77
}
[ "$(id -u)" -eq 0 ] || skip "needs root"
[ -e /dev/fuse ] || skip "no /dev/fuse"
"$MIRAGE_SOURCE/examples/make_disks.sh" "$disks" || skip "no Debian disk could be made"

work=$(mktemp -d /var/tmp/mirage-full.XXXXXX)
loop=
leave() {
  local status=$?
  mirage umount "$work/mnt" >/dev/null 2>&1 || true
  umount -l "$work/mnt" 2>/dev/null || true
  umount "$work/ext4" 2>/dev/null || true
  [ -z "$loop" ] || losetup -d "$loop"
  rm -rf "$work"
  exit $status
}
trap leave EXIT
trap 'exit 130' INT TERM
mkdir "$work/ext4" "$work/mnt"
export MIRAGE_LIBRARY=$work/library

attach() {  # attach IMAGE MOUNT-OPTIONS: its first partition at $work/ext4
  loop=$(losetup -f --show -o $((1 << 20)) "$1") || skip "no loop device"
  mount -t ext4 -o "$2" "$loop" "$work/ext4"
}
detach() { umount "$work/ext4"; losetup -d "$loop"; loop=; }
json() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p" "$2"; }  # json FIELD FILE: a plain value
expect_equal() { [ "$2" = "$3" ] || fail "$1: '$2' is not '$3'"; }

cp --sparse=always "$disks/debian-v1.img" "$work/disk.img"
attach "$work/disk.img" rw
odd=$work/ext4/srv/odd
mkdir -p "$odd/empty" "$odd/deep/er"
echo content >"$odd/first"
ln "$odd/first" "$odd/deep/second"
ln "$odd/first" "$work/ext4/root/third"
ln -s /no/such/target "$odd/dangling"
ln -s "$(printf 'x%.0s' $(seq 3000))" "$odd/long-target"
mkfifo "$odd/fifo"
mknod "$odd/character" c 5 1
mknod "$odd/block" b 259 1048575
ln "$odd/fifo" "$odd/fifo-link"
(cd "$odd" && perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) && bind(S, sockaddr_un("socket")) or die $!')
: >"$odd/empty-file"
truncate -s 300M "$odd/sparse"
printf data | dd of="$odd/sparse" bs=1 seek=123456789 conv=notrunc status=none
head -c 20000000 /dev/urandom >"$odd/large"
printf bytes >"$odd/$(printf 'latin-\351')"
printf newline >"$odd/$(printf 'two\nlines')"
printf name >"$odd/$(printf 'n%.0s' $(seq 255))"
printf space >"$odd/ a name, with \\ and \"quotes\" "
setfattr -n user.note -v "a value" "$odd/first"
setfattr -n user.binary -v 0x00ff00 "$odd/deep"
setfattr -n trusted.overlay.opaque -v y "$odd/empty"
setfattr -n security.selinux -v system_u:object_r:etc_t:s0 "$odd/empty-file"
cp /bin/true "$odd/capable"
setcap cap_net_raw+ep "$odd/capable"
setfacl -m u:1234:rwx,g:5678:r "$odd/first"
setfacl -d -m u:1234:rx "$odd/deep"
chown 100000:4294967294 "$odd/large"
chmod 7777 "$odd/empty"
chmod 0000 "$odd/empty-file"
touch -h -d '2001-02-03 04:05:06.123456789 UTC' "$odd/dangling" "$odd/fifo" "$odd/first"
touch -d '1960-01-02 03:04:05.987654321 UTC' "$odd/large"
touch -d '2040-05-06 07:08:09.000000001 UTC' "$odd/deep"
for i in $(seq 2000); do echo "$i" >"$odd/empty/file-$i"; done
detach

mirage init "$work/library"
echo "import of the disk through the appliance"
mirage --json import --reader guestfs "$work/disk.img" disk/v1 >"$work/disk.json"
echo "import of the disk directly"
mirage --json import --reader direct "$work/disk.img" direct/v1 >"$work/direct.json"
expect_equal "tree id by either reader" "$(json tree "$work/disk.json")" "$(json tree "$work/direct.json")"
mirage diff --packages disk/v1 direct/v1 || fail "packages by either reader differ"
[ "$(mirage packages disk/v1 | wc -l)" -gt 50 ] || fail "few packages: $(mirage packages disk/v1 | wc -l)"
expect_equal "system by either reader" "$(mirage show disk/v1 | grep -E '^(system|packages|mount|disk):')" \
  "$(mirage show direct/v1 | grep -E '^(system|packages|mount|disk):')"
attach "$work/disk.img" ro,noload
echo "import of its loop mount"
mirage --json import "$work/ext4" tree/v1 >"$work/tree.json"
mirage diff disk/v1 tree/v1 >"$work/diff.out" || { head -20 "$work/diff.out"; fail "disk and directory differ"; }
expect_equal "tree id of the disk and of its files" "$(json tree "$work/disk.json")" "$(json tree "$work/tree.json")"

echo "mount, and comparison with the loop mount"
mirage mount "$work/mnt"
"$compare" "$work/ext4" "$work/mnt/disk/v1" || fail "the mounted version is not the disk"
mirage umount "$work/mnt"
detach

echo "import again"
expect_equal "second import of the same disk" "$(mirage import "$work/disk.img" disk 2>/dev/null)" "no changes"

echo "a small change adds a small version"
attach "$work/disk.img" rw
head -c 1000000 /dev/urandom >"$odd/added"
detach
mirage --json import "$work/disk.img" disk >"$work/second.json"
expect_equal "tag of the second version" "$(json tag "$work/second.json")" v2
added=$(json new_bytes "$work/second.json")
if [ "$added" -lt 1000000 ] || [ "$added" -gt 1500000 ]; then fail "1,000,000 new bytes added $added to the library"; fi

mirage fsck || fail "fsck"
echo "passed"
