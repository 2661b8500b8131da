#!/bin/bash
# import: archives from a file and from standard input; which reader is taken, and what is said of it.
. "$(dirname "$0")/lib.sh"

expect 0 "$mirage" init
make_source "$work/source"
expect 0 "$mirage" import "$work/source" directory
tar -C "$work/source" --format=pax -czf "$work/archive" .
expect 0 "$mirage" import "$work/archive" file
expect 0 "$mirage" diff directory file
expect 0 bash -c '"$1" import - stream <"$2"' - "$mirage" "$work/archive"
expect 0 "$mirage" diff directory stream
expect 0 bash -c 'gunzip -c "$2" | "$1" import --format tar - stream' - "$mirage" "$work/archive"
out_is 'no changes'
expect_error 1 'standard input is read as a tar archive' "$mirage" import --format raw - stream
expect_error 1 'ends too early' bash -c 'gunzip -c "$2" | head -c 3000 | "$1" import - cut' - "$mirage" "$work/archive"
# Options that may be repeated take one word each, wherever they stand.
expect 0 "$mirage" import --exclude '/etc/*' --exclude /empty "$work/source" fewer
expect 0 "$mirage" ls fewer:/
out_lacks '^empty$'
expect 0 "$mirage" ls fewer:/etc
out_is ''
expect_error 1 'one/none' "$mirage" import -a "$work/one/none" -a "$work/source" several/v1
expect_error 2 'write import SOURCE' "$mirage" import -a "$work/source" "$work/source" several
expect_error 1 'reader fast is not known' "$mirage" import --reader fast "$work/source" directory

# A container image: two layers, known as such from a directory and an archive.
if command -v umoci >/dev/null; then
  layout=$work/layout
  umoci init --layout "$layout" && umoci new --image "$layout:app" >/dev/null
  for layer in one two; do
    mkdir -p "$work/$layer" && echo "$layer" >"$work/$layer/$layer"
    umoci insert --rootless --image "$layout:app" "$work/$layer" "/opt" >/dev/null 2>&1
  done
  expect 0 "$mirage" import --layers "$layout" app/ready
  out_has '^app/v1 [0-9a-f]{64}$'
  out_has '^app/ready [0-9a-f]{64}$'
  expect 0 "$mirage" ls app:/opt
  out_is $'one\ntwo'
  expect 0 "$mirage" ls app/v1:/opt
  out_is one
  tar -C "$layout" -czf "$work/app.tgz" .
  expect 0 "$mirage" import "$work/app.tgz" app
  out_is 'no changes'
  expect 0 bash -c '"$1" import --format oci - app <"$2"' - "$mirage" "$work/app.tgz"
  out_is 'no changes'
  expect_error 1 'no image for linux/none' "$mirage" import --platform linux/none "$layout" app
  expect_error 1 'it is no container image' "$mirage" import --layers "$work/source" directory
fi

if command -v mkfs.ext4 >/dev/null; then
  truncate -s 16M "$work/disk"
  mkfs.ext4 -q -F -d "$work/source" "$work/disk"
  expect 0 "$mirage" import "$work/disk" disk
  err_has 'reading the disk directly, without the appliance'
  expect 0 "$mirage" cat disk:/sda/etc/motd
  out_is hello
  expect_error 1 'packages are not known: no system was found' "$mirage" packages disk

  # Enough of a Debian system for its packages to be known.
  mkdir -p "$work/system"/{etc,bin,var/lib/dpkg}
  echo '127.0.0.1 localhost' >"$work/system/etc/hosts"
  printf 'ID=debian\nVERSION_ID=12\nPRETTY_NAME="Debian 12"\n' >"$work/system/etc/os-release"
  status() { printf 'Package: %s\nStatus: install ok installed\nVersion: %s\nArchitecture: all\n\n' "$@"; }
  status adduser 3.134 openssl 3.0.9-1 zlib 1:1.2 >"$work/system/var/lib/dpkg/status"
  mkfs.ext4 -q -F -d "$work/system" "$work/disk" 16M
  expect 0 "$mirage" import "$work/disk" system
  expect 0 "$mirage" show system
  out_has '^system: Debian 12$'
  out_has '^distribution: debian 12$'
  expect 0 "$mirage" packages system
  out_is $'adduser 3.134 all\nopenssl 3.0.9-1 all\nzlib 1:1.2 all'
  status adduser 3.134 openssl 3.0.11-1 sudo 1.9 >"$work/system/var/lib/dpkg/status"
  mkfs.ext4 -q -F -d "$work/system" "$work/disk" 16M
  expect 0 "$mirage" import "$work/disk" system
  expect 1 "$mirage" diff --packages system~1 system
  out_is $'M openssl:all 3.0.9-1 -> 3.0.11-1\nA sudo:all 1.9\nD zlib:all 1:1.2'
  expect 1 "$mirage" --json diff --packages system~1 system
  out_has '"change":"M","package":"openssl","arch":"all","before":"3.0.9-1","after":"3.0.11-1"'
  expect 0 "$mirage" diff --packages system system
  out_is ''
  expect_error 2 'packages are not known' "$mirage" diff --packages disk system
  expect_error 2 'whole versions' "$mirage" diff --packages system~1 system -- /etc

  truncate -s 8M "$work/disk"
  expect_error 1 'blocks of .*; --reader guestfs reads it through the appliance' \
    "$mirage" import --reader direct "$work/disk" disk
fi
finish
