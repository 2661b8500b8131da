#!/bin/bash
# An edit on a full disk: write, fsync or close says so, names too; the overlay is sound, goes on when there is room again,
# and is committed.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || skip "only root can mount a small filesystem"
[ -c /dev/fuse ] || skip "no /dev/fuse"
disk=$work/disk mnt=$work/mnt
mkdir "$disk" "$mnt"
mount -t tmpfs -o size=48m tmpfs "$disk" || skip "no tmpfs"
mounts+=("$mnt" "$disk")
export MIRAGE_LIBRARY=$disk/library
expect 0 "$mirage" init
make_source "$work/source"
expect 0 "$mirage" import "$work/source" debian
expect 0 "$mirage" mount --edit debian "$mnt"

echo before >"$mnt/before"
for i in $(seq 300); do echo $i >"$mnt/small-$i"; done
expect 1 dd if=/dev/zero of="$mnt/big" bs=1M count=100 conv=fsync
err_has 'No space left on device'
# Names need room in the log as well; whatever does not fit must say so.
full=0
for i in $(seq 3000); do mkdir "$mnt/directory-$i" 2>/dev/null || { full=$i; break; }; done
[ "$full" = 0 ] || expect 1 mkdir "$mnt/directory-$full"
made=$(ls -d "$mnt"/directory-* | wc -l)
expect 0 cat "$mnt/before"
out_is before

# Removals work on the full disk, many of them.
expect 0 rm "$mnt"/small-*
expect 0 rm "$mnt/big"
sync -f "$mnt" 2>/dev/null  # the kernel tells the old error once more
for _ in $(seq 200); do echo after >"$mnt/after" 2>/dev/null && sync "$mnt/after" 2>/dev/null && break; sleep 0.1; done
expect 0 cat "$mnt/before" "$mnt/after"
out_is $'before\nafter'
expect 0 mkdir "$mnt/at-last"
expect 0 "$mirage" umount "$mnt"
out_has '^debian/v2 '
expect 0 "$mirage" cat debian:/before debian:/after
out_is $'before\nafter'
expect_error 1 '/big' "$mirage" cat debian:/big
expect 0 "$mirage" ls debian:/
[ "$(grep -c '^directory-' "$work/out")" = "$made" ] || fail "directories are missing"
expect 0 "$mirage" overlay list
out_is ''
expect 0 "$mirage" fsck

finish
