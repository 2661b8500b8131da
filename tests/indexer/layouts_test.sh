#!/bin/bash
# Layouts of disks through the appliance, several in one launch: filesystems and partition tables on the disks of one
# machine; LVM, MD and LUKS; what cannot be read; an OVA; the formats of one disk.
. "$(dirname "$0")/../cli/lib.sh"

[ "$(id -u)" = 0 ] || skip "mounting and making devices needs root"
for program in supermin qemu-img sfdisk mkfs.vfat mcopy mkfs.xfs mkfs.btrfs mkntfs mksquashfs xorriso cryptsetup guestfish; do
  command -v "$program" >/dev/null || skip "$program is not installed"
done
guestfs=(import --reader guestfs)
expect 0 "$mirage" init
# The appliance starts, told to emulate or left to find out, and that takes no more than the emulation does.
for settings in "" force_tcg; do
  LIBGUESTFS_BACKEND_SETTINGS=$settings expect 0 "$mirage" doctor --launch
  out_has '^ok +launch: the appliance is up after [0-9]{1,2}\.[0-9] s$'
done
out_lacks '^note +launch:'
emulate_if_needed

# A tree that every filesystem can hold, and its files' digests by name.
tree=$work/tree
mkdir -p "$tree/dir/sub"
seq 20000 >"$tree/numbers"
echo small >"$tree/dir/small"
printf 'name' >"$tree/dir/sub/"$'Gr\xc3\xbc\xc3\x9fe'
digests() { (cd "$1" && find . -type f -exec sha256sum {} + | LC_ALL=C sort); }
digests "$tree" >"$work/wanted"
# same VERSION DIRECTORY: it holds the tree there.
same() {
  local name
  while read -r digest name; do
    expect 0 "$mirage" stat "$1:$2/${name#./}"
    out_has "$digest"
  done <"$work/wanted"
}

# One machine of eight disks, with a filesystem each: no table, MBR with a logical partition, GPT.
truncate -s 320M "$work/xfs" && mkfs.xfs -q "$work/xfs"
truncate -s 120M "$work/btrfs" && mkfs.btrfs -q --rootdir "$tree" "$work/btrfs" >/dev/null
truncate -s 40M "$work/fat" && mkfs.vfat -F 32 "$work/fat" >/dev/null && LC_ALL=C.UTF-8 mcopy -s -i "$work/fat" "$tree"/* ::
truncate -s 40M "$work/ntfs" && mkntfs -q -F "$work/ntfs"
xorriso -as mkisofs -quiet -R -J -o "$work/iso" "$tree" 2>/dev/null
mksquashfs "$tree" "$work/squash" -quiet -no-progress -all-root >/dev/null
truncate -s 64M "$work/mbr" && printf '2048,8M,83\n,,5\n,16M,83\n' | sfdisk -q "$work/mbr"
truncate -s 64M "$work/gpt" && printf 'label:gpt\n2048,32M\n' | sfdisk -q "$work/gpt"
logical=$(sfdisk -d "$work/mbr" | awk '/type=83/ {gsub(",", ""); print $4}' | tail -1)
mkfs.ext4 -q -d "$tree" -E offset=$((logical * 512)) "$work/mbr" 12M
mkfs.ext4 -q -d "$tree" -E offset=1048576 "$work/gpt" 30M
mnt=$work/mnt && mkdir "$mnt" && mounts+=("$mnt")
for kind in xfs ntfs; do
  mount -o loop "$work/$kind" "$mnt" 2>/dev/null || mount -t ntfs-3g -o loop "$work/$kind" "$mnt" || { echo "no $kind here"; continue; }
  cp -r "$tree"/. "$mnt"
  umount "$mnt"
done

add=()
for kind in xfs btrfs fat ntfs iso squash mbr gpt; do add+=(-a "$work/$kind"); done
expect 0 "$mirage" "${guestfs[@]}" "${add[@]}" machine/v1
expect 0 "$mirage" show machine
out_has '^disk: not kept \(sda, data, 335544320 bytes\)$'
out_has '^disk: not kept \(sdh, data, '
out_has '^source: .*/xfs, .*/btrfs, .*/gpt$'
out_has '^mount: /sdg5 ext4 /dev/sdg5$'
out_has '^omitted: .*ntfs.*DOS attributes'
for place in sda sdb sdc sdd sde sdf sdg5 sdh1; do same machine "/$place"; done
# The fixed options of FAT, whatever the appliance would do.
expect 0 "$mirage" ls -l machine:/sdc
out_has '^drwxr-xr-x .* 0 +0 .*dir'
out_has '^-rwxr-xr-x .* 0 +0 .*numbers'

# MD, LVM on LUKS on LVM's side, and a LUKS partition that nobody has the key to; made in an appliance.
for disk in md1 md2 vault other; do truncate -s 64M "$work/$disk"; done
guestfish --keys-from-stdin <<END || fail "guestfish cannot make the disks"
add $work/md1 format:raw
add $work/md2 format:raw
add $work/vault format:raw
add $work/other format:raw
run
md-create r1 "/dev/sda /dev/sdb" level:raid1
mkfs ext4 /dev/md127
luks-format /dev/sdc 0
secret
cryptsetup-open /dev/sdc c
secret
vgcreate vg /dev/mapper/c
lvcreate root vg 20
lvcreate boot vg 8
mkfs ext4 /dev/vg/root
mkfs ext4 /dev/vg/boot
mount /dev/vg/root /
mkdir /boot
mkdir /etc
mkdir /bin
write /etc/fstab "/dev/vg/root / ext4 defaults 0 1\n/dev/vg/boot /boot ext4 defaults 0 2\n"
write /etc/hosts "127.0.0.1 localhost\n"
write /etc/os-release "ID=debian\nVERSION_ID=12\nPRETTY_NAME=Vault\n"
mount /dev/vg/boot /boot
write /boot/kernel "vmlinuz"
umount-all
mount /dev/md127 /
write /raid "on two disks"
umount-all
luks-format /dev/sdd 0
nobody
END
disks=(-a "$work/md1" -a "$work/md2" -a "$work/vault" -a "$work/other")
expect 1 "$mirage" "${guestfs[@]}" "${disks[@]}" --key /dev/sdc:key:secret vault
err_has 'encrypted; try --key; --skip-unreadable leaves it out'
printf 'secret\n' >"$work/key"
expect 0 "$mirage" "${guestfs[@]}" "${disks[@]}" --key "/dev/sdc:file:$work/key" --skip-unreadable vault
err_has 'its files lie in clear in the library'
err_has '^omitted: unreadable: /dev/sdd'
expect 0 "$mirage" cat vault:/boot/kernel
out_is vmlinuz
err_has '^warning: vault is incomplete: unreadable: /dev/sdd \(crypto_LUKS\)'
for report in show ls stat; do
  expect 0 "$mirage" "$report" vault
  err_has '^warning: vault.* is incomplete'
done
expect 1 "$mirage" diff vault machine
err_has '^warning: vault is incomplete'
expect 0 "$mirage" show vault
out_has '^mount: /boot ext4 /dev/vg/boot$'
out_has '^omitted: .*md127.* is not mounted by'
expect 1 "$mirage" "${guestfs[@]}" -a "$work/vault" --key all:key:wrong vault
err_has 'no --key opens /dev/sda'

# The formats of one disk, all as one machine: each gives the same directory.
formats=()
for format in raw qcow2 vmdk vdi vpc vhdx; do
  qemu-img convert -f raw -O "$format" "$work/gpt" "$work/disk.$format"
  formats+=(-a "$work/disk.$format")
done
qemu-img convert -f raw -O vmdk -o subformat=streamOptimized "$work/gpt" "$work/disk.stream"
formats+=(-a "$work/disk.stream")
expect 0 "$mirage" "${guestfs[@]}" "${formats[@]}" formats
for letter in b c d e f g; do
  expect 0 "$mirage" diff "formats:/sda1" "formats:/sd${letter}1"
done

# An OVA: its disks in the order of the descriptor's disks.
cp "$work/disk.stream" "$work/b.vmdk"
qemu-img convert -f raw -O vmdk -o subformat=streamOptimized "$work/fat" "$work/a.vmdk"
cat >"$work/m.ovf" <<END
<?xml version="1.0"?><Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>
<File ovf:href="a.vmdk" ovf:id="f1"/><File ovf:id='f2' ovf:href='b.vmdk'/></References>
<DiskSection><Disk ovf:fileRef="f2" ovf:diskId="d1"/><!-- <Disk ovf:fileRef="x"/> --><Disk ovf:fileRef="f1"/></DiskSection></Envelope>
END
tar -C "$work" --format=ustar -cf "$work/machine.ova" m.ovf a.vmdk b.vmdk
qemu-img create -q -f qcow2 -b "$work/gpt" -F raw "$work/over.qcow2"
expect 0 "$mirage" import "$work/machine.ova" ova
same ova /sda1
same ova /sdb
expect 0 "$mirage" import --format qcow2 "$work/over.qcow2" over
expect 0 "$mirage" diff over:/sda1 ova:/sda1
finish
