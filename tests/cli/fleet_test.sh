#!/bin/bash
# What is done with many images: import --recipe, find --package, doctor.
. "$(dirname "$0")/lib.sh"
command -v mkfs.ext4 >/dev/null || skip "mkfs.ext4 is not installed"

expect 0 "$mirage" init
status() { printf 'Package: %s\nStatus: install ok installed\nVersion: %s\nArchitecture: all\n\n' "$@"; }
# system NAME PACKAGE VERSION...: a disk with enough of a Debian system for its packages to be known.
system() {
  local name=$1
  shift
  mkdir -p "$work/$name"/{etc,bin,var/lib/dpkg}
  echo '127.0.0.1 localhost' >"$work/$name/etc/hosts"
  printf 'ID=debian\nVERSION_ID=12\nPRETTY_NAME="Debian 12"\n' >"$work/$name/etc/os-release"
  status "$@" >"$work/$name/var/lib/dpkg/status"
  mkfs.ext4 -q -F -d "$work/$name" "$work/$name.raw" 16M
}
system old openssl 3.0.9-1 zlib 1:1.2
system new openssl 3.0.11-1~deb12u2 zlib 1:1.2
mkdir -p "$work/plain"; echo x >"$work/plain/file"
cat >"$work/recipe.yaml" <<END
defaults: {exclude: [/var/tmp/*]}
images:
  - {source: old.raw, version: web/v1, message: as delivered}
  - {source: missing.raw, version: gone/v1}
  - {source: new.raw, version: web/v2}
  - {source: old.raw, version: db/v1}
  - {source: plain, version: plain}
END

# One fails; the others are made, and made once.
expect 1 "$mirage" import --recipe "$work/recipe.yaml"
err_has '4 of 5 images: 4 imported, 0 without changes, 0 done before, 1 failed'
err_has 'gone/v1 \(line 4\): .*missing.raw: No such file'
expect 0 "$mirage" tag web
out_has 'v1'
out_has 'v2'
mv "$work/old.raw" "$work/missing.raw"  # what is done is not looked at again
expect 0 "$mirage" import --recipe "$work/recipe.yaml"
err_has '5 of 5 images: 1 imported, 1 without changes, 3 done before, 0 failed'
sed -i 's/new.raw/missing.raw/' "$work/recipe.yaml"
expect 1 "$mirage" import --recipe "$work/recipe.yaml"
err_has 'web/v2: the tag is taken, by a version of .*/new.raw'
echo 'images: [{source: a, versoin: b}]' >"$work/bad.yaml"
expect_error 1 'bad.yaml: line 1: unknown setting "versoin"' "$mirage" import --recipe "$work/bad.yaml"
expect_error 2 'stands alone' "$mirage" import --recipe "$work/bad.yaml" "$work/plain" plain
expect_error 2 'stands alone' "$mirage" import --recipe "$work/recipe.yaml" --layers
expect_error 2 'write import SOURCE' "$mirage" import "$work/plain"

expect 0 "$mirage" find --package 'openssl<3.0.11'
out_is $'db/v1 openssl 3.0.9-1 all\ngone/v1 openssl 3.0.9-1 all\nweb/v1 openssl 3.0.9-1 all'
err_has 'plain/v1: its packages are not known'
err_has '1 versions were not searched'
expect 0 "$mirage" find --package 'openssl<3.0.11' --heads web
out_is ''
expect 0 "$mirage" find --package 'openssl >= 3.0.11' web
out_is 'web/v2 openssl 3.0.11-1~deb12u2 all'
expect 0 "$mirage" --json find --package zlib db
out_has '"version":"db/v1".*"package":"zlib","package_version":"1:1.2","arch":"all"'
expect_error 2 'not a package' "$mirage" find --package 'openssl<'
expect_error 2 'say what to find' "$mirage" find
expect_error 1 'no branch nowhere' "$mirage" find --package zlib nowhere

"$mirage" doctor >"$work/out" 2>"$work/err"
[ $? -le 1 ] || fail "doctor: exit code"
out_has '^(ok|missing) +fuse: '
out_has '^(ok|note) +acceleration: '
out_has '^ok +library: .*: 4 branches'
out_has '^ok +reserve: '
out_has '^ok +disk reader: '
"$mirage" --json doctor | grep -q '"check":"libraries","state":"ok","text":".*librocksdb' || fail "doctor --json"
finish
