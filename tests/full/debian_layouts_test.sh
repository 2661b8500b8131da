#!/bin/bash
# A real Debian (examples/make_disks.sh) laid out in two more ways, through the appliance: XFS on LVM with a /boot of its
# own, and a btrfs with subvolumes that fstab mounts by `subvol=` and by `subvolid=`, with snapshots of the root beside it. Each
# is the tree that the guest would see, with the boundaries of its mounts in the version.
# $MIRAGE_TEST_DISKS: as in debian_disk_test.sh.
. "$(dirname "$0")/../cli/lib.sh"

disks=${MIRAGE_TEST_DISKS:-/var/tmp/mirage-quickstart}
[ "$(id -u)" = 0 ] || skip "making a Debian tree needs root"
for program in supermin guestfish mkfs.xfs mkfs.btrfs; do
  command -v "$program" >/dev/null || skip "$program is not installed"
done
"$MIRAGE_SOURCE/examples/make_disks.sh" "$disks" || skip "no Debian tree could be made"
rm -rf "$work"
work=$(mktemp -d /var/tmp/mirage-layouts.XXXXXX)  # not in memory
export MIRAGE_LIBRARY=$work/library
expect 0 "$mirage" init
emulate_if_needed

uuid=5b9dd4b0-6f4e-4d6c-9d3e-2f0d1c3a7e22
tree=$work/tree
cp -a "$disks/v1" "$tree"
rm -rf "$tree"/usr/share/{doc,locale,man} "$tree"/var/cache/*  # half of the time, and none of the kinds
mkdir -p "$tree/home/user" "$tree/var/log/app" "$tree/boot/grub"
echo kernel >"$tree/boot/vmlinuz"
echo menu >"$tree/boot/grub/grub.cfg"
echo mine >"$tree/home/user/file"
echo line >"$tree/var/log/app/log"
ln "$tree/usr/bin/perl" "$tree/usr/bin/perl-link"
setfattr -n user.note -v kept "$tree/home/user/file"
find "$tree" -exec touch -h -d '2023-09-01 12:00:00Z' {} +
expect 0 "$mirage" import "$tree" tree/v1

# pack OPTIONS...: a tar of the tree.
pack() { tar -C "$tree" --xattrs --xattrs-include='*' --acls --numeric-owner "$@" .; }
pack -cf "$work/root.tar"
tar -C "$tree/boot" -cf "$work/boot.tar" .
tar -C "$tree/home" --xattrs --xattrs-include='*' -cf "$work/home.tar" .
tar -C "$tree/var/log" -cf "$work/log.tar" .
pack --exclude=./boot/* --exclude=./home/* --exclude=./var/log/* -cf "$work/rest.tar"

# What differs from the plain tree: fstab, what the mounts bring, and the directories that were written to.
printf '/dev/vg/root / xfs defaults 0 1\n/dev/sda1 /boot ext4 defaults 0 2\n/dev/vg/swap none swap sw 0 0\n' >"$work/fstab.lvm"
cat >"$work/fstab.btrfs" <<END
UUID=$uuid / btrfs defaults,noatime,subvol=@ 0 1
UUID=$uuid /home btrfs subvol=/@home,compress=zstd 0 2
UUID=$uuid /var/log btrfs rw,subvolid=258 0 2
UUID=$uuid /.snapshots btrfs subvol=@snapshots 0 0
/dev/sda1 /boot ext4 defaults 0 2
END
truncate -s 1500M "$work/lvm.img" "$work/btrfs.img"
guestfish <<END || fail "guestfish cannot make the disks"
add $work/lvm.img format:raw
add $work/btrfs.img format:raw
run
part-init /dev/sda gpt
part-add /dev/sda p 2048 206847
part-add /dev/sda p 206848 3000000
mkfs ext4 /dev/sda1
pvcreate /dev/sda2
vgcreate vg /dev/sda2
lvcreate root vg 1200
lvcreate swap vg 16
mkswap /dev/vg/swap
mkfs xfs /dev/vg/root
mount /dev/vg/root /
tar-in $work/rest.tar / xattrs:true acls:true
mount /dev/sda1 /boot
tar-in $work/boot.tar /boot
umount /boot
mkdir-p /home
tar-in $work/home.tar /home xattrs:true
tar-in $work/log.tar /var/log
upload $work/fstab.lvm /etc/fstab
umount-all
part-init /dev/sdb gpt
part-add /dev/sdb p 2048 206847
part-add /dev/sdb p 206848 3000000
mkfs ext4 /dev/sdb1
mkfs btrfs /dev/sdb2
set-uuid /dev/sdb2 $uuid
mount /dev/sdb2 /
btrfs-subvolume-create /@
btrfs-subvolume-create /@home
btrfs-subvolume-create /@log
btrfs-subvolume-create /@snapshots
btrfs-subvolume-create /@old
write /outside "of no subvolume"
write /@old/lost "of one that nobody mounts"
tar-in $work/rest.tar /@ xattrs:true acls:true
tar-in $work/home.tar /@home xattrs:true
tar-in $work/log.tar /@log
upload $work/fstab.btrfs /@/etc/fstab
mkdir /@/.snapshots
btrfs-subvolume-create /@/srv/nested
write /@/srv/nested/inside "in a subvolume that needs no mount"
btrfs-subvolume-snapshot /@ /@snapshots/1 ro:true
mount /dev/sdb1 /@/boot
tar-in $work/boot.tar /@/boot
umount-all
END
rm "$work"/*.tar

# changed A B: the lines of their diff, but for the directories and files that the layout itself has written.
changed() { "$mirage" diff "$1" "$2" >"$work/out" 2>"$work/err" && fail "$1 and $2 do not differ"; sort -o "$work/out" "$work/out"; }
expect 0 "$mirage" import "$work/lvm.img" lvm/v1
err_has 'through the appliance \(.*LVM2_member'
changed tree lvm
out_is "A /boot/lost+found
M /etc/fstab"
expect 0 "$mirage" diff --packages tree lvm
expect 0 "$mirage" show lvm
out_has '^mount: / xfs /dev/vg/root$'
out_has '^mount: /boot ext4 /dev/sda1$'
out_has '^distribution: debian 12'
out_has '^arch: x86_64$'
out_lacks '^omitted'

expect 0 "$mirage" import "$work/btrfs.img" btrfs/v1
expect 0 "$mirage" show btrfs
out_has '^mount: / btrfs btrfsvol:/dev/sda2/@$'
out_has '^mount: /home btrfs btrfsvol:/dev/sda2/@home$'
out_has '^mount: /var/log btrfs btrfsvol:/dev/sda2/@log$'
out_has '^mount: /.snapshots btrfs btrfsvol:/dev/sda2/@snapshots$'
out_has '^mount: /boot ext4 /dev/sda1$'
out_has '^omitted: /dev/sda2 \(btrfs\): of its subvolumes, .*not read: the top level, @old$'
[ "$(grep -c ^omitted "$work/out")" = 1 ] || fail "more is omitted than the top level and @old"
changed tree btrfs
grep -v '^A /\.snapshots/1/' "$work/out" >"$work/rest"
diff - "$work/rest" <<END || fail "the btrfs is not the tree"
A /.snapshots
A /.snapshots/1
A /boot/lost+found
A /srv/nested
A /srv/nested/inside
M /etc/fstab
m /
m /srv
END
# A snapshot has the files of its moment, without what other subvolumes hold.
expect 0 "$mirage" diff btrfs:/usr btrfs:/.snapshots/1/usr
expect 0 "$mirage" ls btrfs:/.snapshots/1/home
out_is ''
expect 0 "$mirage" diff --packages tree btrfs
expect 0 "$mirage" import --exclude '/.snapshots/*' "$work/btrfs.img" again --parent btrfs
err_has 'not read again'
expect 1 "$mirage" diff btrfs again
out_lacks '^[^D]|^D /\.snapshots$'
expect 0 "$mirage" fsck
finish
