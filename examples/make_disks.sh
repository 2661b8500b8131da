#!/bin/bash
# make_disks.sh DIRECTORY: makes two small, real Debian 12 disks there, debian-v1.img and debian-v2.img: raw images with
# an MBR and one ext4 root partition, filled by debootstrap. On the second one packages were added and files changed,
# removed, chmod-ed and renamed. Needs root and a Debian mirror (the one apt uses, or MIRROR=URL). What is already there
# is kept; a run that was cut off is taken up again. No loop device and no mount is used.
set -euo pipefail

directory=${1:?usage: make_disks.sh DIRECTORY}
packages="less nano"
image_mib=768
start_mib=1  # of the partition
uuid=5b9dd4b0-6f4e-4d6c-9d3e-2f0d1c3a7e11

fail() { echo "make_disks: $*" >&2; exit 1; }

# The first http mirror that apt takes bookworm from.
apt_mirror() {
  {
    cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '
      function flush() { if (uri != "" && suite) print uri; uri = ""; suite = 0 }
      /^URIs:/ { uri = $2 } /^Suites:/ { for (i = 2; i <= NF; i++) if ($i == "bookworm") suite = 1 }
      /^[ \t]*$/ || /^Types:/ { flush() } END { flush() }' || true
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
      sed 's/\[[^]]*\]//' | awk '$1 == "deb" && $3 == "bookworm" { print $2 }' || true
  } | awk '/^https?:/ && !seen { print; seen = 1 }'
}

write_disk() {  # write_disk TREE IMAGE
  rm -f "$2.partial"
  truncate -s ${image_mib}M "$2.partial"
  printf 'label: dos\nlabel-id: 0x6d697261\nstart=%dMiB, type=83, bootable\n' $start_mib | sfdisk -q "$2.partial"
  mkfs.ext4 -q -F -L root -U $uuid -E offset=$((start_mib << 20)) -d "$1" "$2.partial" \
    $(((image_mib - start_mib) * 1024))k
  mv "$2.partial" "$2"
}

mkdir -p "$directory"
cd "$directory"
if [ -f debian-v1.img ] && [ -f debian-v2.img ]; then exit 0; fi
[ "$(id -u)" -eq 0 ] || fail "making a disk with debootstrap needs root"

if [ ! -d v1 ]; then
  mirror=${MIRROR:-$(apt_mirror)}
  mirror=${mirror:-http://deb.debian.org/debian}
  echo "debootstrap bookworm from $mirror (a few minutes)"
  rm -rf v1.partial
  if ! debootstrap --variant=minbase bookworm "$PWD/v1.partial" "$mirror" >debootstrap.log 2>&1; then
    tail -n 3 debootstrap.log >&2
    fail "debootstrap failed with mirror $mirror (log: $PWD/debootstrap.log); give another by MIRROR=URL"
  fi
  echo "UUID=$uuid / ext4 errors=remount-ro 0 1" >v1.partial/etc/fstab
  echo mirage-example >v1.partial/etc/hostname
  mv v1.partial v1
fi

if [ ! -d v2 ]; then
  rm -rf v2.partial
  cp -a v1 v2.partial
  echo "the second version: installing $packages"
  # shellcheck disable=SC2086  # a list of words
  chroot v2.partial env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q -y install --no-install-recommends \
    $packages </dev/null >apt.log 2>&1 || { tail -n 3 apt.log >&2; fail "apt-get in the chroot failed ($PWD/apt.log)"; }
  sed -i 's/^UMASK.*/UMASK 027/' v2.partial/etc/login.defs     # changed
  echo "Welcome to the second version." >>v2.partial/etc/motd
  rm -r v2.partial/etc/issue.net v2.partial/usr/share/doc/gpgv  # removed
  chmod u-s v2.partial/usr/bin/chsh                             # another mode, the same content
  mv v2.partial/etc/debconf.conf v2.partial/etc/debconf.conf.dist
  mv v2.partial v2
fi

for tree in v1 v2; do  # what a downloaded package leaves is no part of the example
  rm -rf $tree/var/lib/apt/lists/* $tree/var/cache/apt/*.bin $tree/var/cache/apt/archives/*.deb $tree/etc/resolv.conf
  [ -f debian-$tree.img ] || write_disk $tree debian-$tree.img
done
