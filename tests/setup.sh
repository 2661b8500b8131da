#!/bin/sh
# Installs, with apt, whatever of Mirage's needs this Debian 12 lacks: to build it, to run it and to test it. Asks
# nothing, with a terminal or without; does nothing, quickly, when all is there. Only then may it run without root.
# `setup.sh bench` also installs the programs that the benchmarks compare with, `setup.sh fuzz` what
# tests/fuzz/run.sh needs, `setup.sh full` what the full tier of the tests does.
set -eu

architecture=$(dpkg --print-architecture)
case $architecture in
  amd64) qemu="qemu-system-x86" ;;
  arm64) qemu="qemu-system-arm" ;;
  *) echo "setup: no libguestfs appliance is known to work on $architecture" >&2; exit 1 ;;
esac

build="build-essential cmake ninja-build pkg-config libssl-dev libzstd-dev libxxhash-dev librocksdb-dev libyaml-cpp-dev
  libfmt-dev libexpected-dev nlohmann-json3-dev libcli11-dev libgit2-dev libarchive-dev libfuse3-dev libguestfs-dev
  libext2fs-dev libblkid-dev libseccomp-dev libsqlite3-dev"
run="fuse3 qemu-utils $qemu libguestfs-xfs ntfs-3g"
tests="libgtest-dev debootstrap e2fsprogs fdisk attr acl libcap2-bin cryptsetup-bin zstd git sqlite3 rsync rpm
  umoci dosfstools mtools xfsprogs btrfs-progs squashfs-tools xorriso mdadm lvm2 guestfish"
more=""
case ${1:-} in
  "") ;;
  bench) more="restic borgbackup casync bup squashfs-tools squashfuse erofs-utils fuse-overlayfs guestfish" ;;
  full) more="apt-utils buildah systemd-container" ;;
  fuzz) more="clang-16 libclang-rt-16-dev" ;;
  *) echo "usage: setup.sh [bench | full | fuzz]" >&2; exit 2 ;;
esac
# libguestfs boots its appliance with the host's kernel, whose modules it needs too. A container has none.
kernel=$(for image in /boot/vmlinuz-*; do
  if [ -r "$image" ] && [ -d "/lib/modules/${image#/boot/vmlinuz-}" ]; then echo "$image"; fi
done)
[ -n "$kernel" ] || run="$run linux-image-cloud-$architecture"

missing=
for package in $build $run $tests $more; do
  case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
    installed) ;;
    *) missing="$missing $package" ;;
  esac
done
[ -n "$missing" ] || exit 0

echo "setup: installing$missing" >&2
if [ "$(id -u)" -ne 0 ]; then
  echo "setup: that needs root: run this script as root once, or: apt-get install$missing" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update </dev/null >&2
# shellcheck disable=SC2086  # a list of words
apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold install --no-install-recommends \
  $missing </dev/null >&2
