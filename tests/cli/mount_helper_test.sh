#!/bin/bash
# mount -t mirfs and /etc/fstab, through mount(8) and its helper. The helper's place is /sbin, which belongs to the
# machine: in a mount namespace of its own the test lays a directory over it.
. "$(dirname "$0")/lib.sh"

[ -c /dev/fuse ] || skip "no /dev/fuse"
[ "$(id -u)" = 0 ] || skip "only root mounts through mount(8)"
mnt=$work/mnt
mkdir "$mnt" "$work/helper"
ln -s "$MIRAGE_BIN/mirfs" "$work/helper/mount.mirfs"
unshare -m mount -t overlay overlay -o "lowerdir=$work/helper:/usr/sbin" /usr/sbin 2>/dev/null || skip "no overlay"
expect 0 "$mirage" init
make_source "$work/source"
expect 0 "$mirage" import "$work/source" debian

# Runs a script where mount(8) finds the helper; what it mounts goes with the namespace.
with_helper() {
  unshare -m bash -ec "mount -t overlay overlay -o lowerdir='$work/helper:/usr/sbin' /usr/sbin; $1"
}
expect 0 with_helper "mount -t mirfs '$MIRAGE_LIBRARY' '$mnt' -o branch=debian,cache=8M
  ls '$mnt'; findmnt -n -o FSTYPE,SOURCE '$mnt'; umount '$mnt'; mountpoint -q '$mnt' || echo gone"
out_is $'latest\nv1\nfuse.mirfs '"$MIRAGE_LIBRARY"$'\ngone'

# fstab, as `mount -a` reads it at boot
echo "$MIRAGE_LIBRARY $mnt mirfs ro,allow_other,version=debian/v1,_netdev,nofail 0 0" >"$work/fstab"
expect 0 with_helper "mount -T '$work/fstab' -a; cat '$mnt/etc/motd'; mount -T '$work/fstab' -a; umount '$mnt'"
out_is hello
expect 0 with_helper "mount -f -t mirfs '$MIRAGE_LIBRARY' '$mnt'; mountpoint -q '$mnt' || echo nothing"
out_is nothing

# what goes wrong is said in one line
expect 1 with_helper "mount -t mirfs '$work/none' '$mnt' || exit 1"
err_has '^mirfs: .*no library there'
expect 1 with_helper "mount -t mirfs '$MIRAGE_LIBRARY' '$mnt' -o sparkling || exit 1"
err_has '^mirfs: .*sparkling'

finish
