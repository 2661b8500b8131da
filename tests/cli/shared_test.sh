#!/bin/bash
# init --shared: two users of one group use one library in turn, whatever their umask; nobody else gets in.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || skip "not root, and so nobody else"
command -v setpriv >/dev/null || skip "no setpriv"
umask 022
chmod 0755 "$work"
mkdir "$work/bin" && cp "$MIRAGE_BIN/mirage" "$MIRAGE_BIN/mirfs" "$work/bin/"
mirage=$work/bin/mirage
group=61000 first=1 second=2 outsider=3  # daemon, bin, sys: fusermount3 wants them to have names
as() (
  umask 077
  exec setpriv --reuid "$1" --regid "$1" --groups "$group" "${@:2}"
)
as_outsider() { setpriv --reuid $outsider --regid $outsider --clear-groups "$@"; }
# All that is in a library, sockets too.
check_shared() {
  local wrong
  wrong=$(find "${1:-$MIRAGE_LIBRARY}" \( -type d ! -perm 2770 -o ! -type d ! -perm 0660 -o ! -group $group \) \
    -printf '%M %g %P; ')
  [ -z "$wrong" ] || fail "after $last: $wrong"
}

expect_error 2 'neither a number nor a group' "$mirage" init --shared=no-such-group
expect_error 2 'neither a number nor a group' "$mirage" init --shared=12x
expect_error 1 'not in it' as $first "$mirage" init --shared=$outsider "$work/none"
[ ! -e "$work/none" ] || fail "something is left of an init that failed"

# As root, in a directory that is to be made, and what lies above it too.
export MIRAGE_LIBRARY=$work/above/library
expect 0 "$mirage" init --shared=$group
err_has "shared with group $group"
check_shared "$work/above"

make_source "$work/source"
head -c 300000 /dev/urandom >"$work/source/noise"
expect 0 as $first "$mirage" -q import "$work/source" debian
check_shared
echo more >>"$work/source/etc/motd"
head -c 300000 /dev/urandom >"$work/source/noise"
expect 0 as $second "$mirage" -q import "$work/source" debian
check_shared
expect 0 as $second "$mirage" tag debian/v1 golden
expect 0 as $second "$mirage" --json log debian
expect 0 as $second "$mirage" cat debian/golden:/etc/motd
out_is hello
head -c 300000 /dev/urandom >"$work/source/noise"
expect 0 as $first "$mirage" -q import "$work/source" debian
expect 0 as $second "$mirage" gc debian --keep-last 1
check_shared
expect 0 as $second "$mirage" fsck
check_shared
expect 0 as $first "$mirage" gc --compact
expect 0 as $first "$mirage" -q import "$work/source" other
expect 0 as $second "$mirage" branch -d other --with-tags
expect 0 as $first "$mirage" gc
expect 0 as $first "$mirage" fsck
check_shared
# Root's umask neither.
expect 0 "$mirage" -q import "$work/source" root
expect 0 as $first "$mirage" -q import "$work/source" root
check_shared

# Nobody else.
for verb in log gc fsck; do
  code=1
  [ $verb = fsck ] && code=8
  expect_error $code 'Permission denied' as_outsider "$mirage" $verb
done
expect_error 1 'above/library: Permission denied' as_outsider "$mirage" import "$work/source" debian

# In an empty directory of one's own, and by a group's name.
install -d -o $first -g $first "$work/own"
expect 0 as $first "$mirage" init --shared=$group "$work/own"
check_shared "$work/own"
expect 0 as $second "$mirage" -L "$work/own" -q import "$work/source" debian
expect 0 as $first "$mirage" -L "$work/own" gc
check_shared "$work/own"
expect 0 "$mirage" init --shared=root "$work/named"
[ "$(stat -c '%a %G' "$work/named/packs")" = '2770 root' ] || fail "$last: $(stat -c '%a %G' "$work/named/packs")"

# A private library is one in a group's directory too.
install -d -m 2770 -o $first -g $group "$work/team"
expect 0 as $first "$mirage" init "$work/team/deep/private"
expect 0 as $first "$mirage" -L "$work/team/deep/private" -q import "$work/source" debian
wrong=$(find "$work/team/deep" \( -type d ! -perm 0700 -o ! -type d -perm /0077 \) -printf '%M %P; ')
[ -z "$wrong" ] || fail "not private: $wrong"

# Mounts, and edits that one begins and another ends.
if [ -c /dev/fuse ] && command -v fusermount3 >/dev/null; then
  for user in $first $second; do
    install -d -o $user -g $user "$work/mnt$user"
    mounts+=("$work/mnt$user")
    expect 0 as $user "$mirage" mount "$work/mnt$user"
    expect 0 as $user cat "$work/mnt$user/debian/latest/etc/motd"
    out_is $'hello\nmore'
  done
  check_shared
  expect 0 as $second "$mirage" mounts
  out_has "on $work/mnt$first\$"
  out_has "on $work/mnt$second\$"
  expect_error 1 'Permission denied' as_outsider "$mirage" mount "$work/mnt$second"
  for user in $first $second; do expect 0 as $user "$mirage" umount "$work/mnt$user"; done

  expect 0 as $first "$mirage" mount --edit debian "$work/mnt$first"
  as $first sh -c "echo edited >'$work/mnt$first/etc/motd'"
  check_shared
  overlay=$(as $second "$mirage" overlay list | sed 's/ .*//')
  expect 0 as $second "$mirage" overlay diff "$overlay"
  out_is 'M /etc/motd'
  expect 0 as $second "$mirage" gc
  check_shared
  expect 0 as $first "$mirage" umount "$work/mnt$first"
  out_has '^debian/v4 '

  expect 0 as $first "$mirage" mount --edit debian --detach "$work/mnt$first"
  as $first sh -c "echo again >'$work/mnt$first/etc/motd'"
  expect 0 as $first "$mirage" umount "$work/mnt$first"
  overlay=$(sed -n 's/^overlay //p' "$work/out")
  expect 0 as $second "$mirage" overlay resume "$overlay" "$work/mnt$second"
  as $second sh -c "echo and again >>'$work/mnt$second/etc/motd'; echo new >'$work/mnt$second/etc/new'"
  check_shared
  expect 0 as $second "$mirage" umount "$work/mnt$second" --commit
  out_has '^debian/v5 '
  expect 0 as $first "$mirage" cat debian/v5:/etc/motd debian/v5:/etc/new
  out_is $'again\nand again\nnew'
  expect 0 as $first "$mirage" gc
  expect 0 as $first "$mirage" fsck
  check_shared
else
  echo "no mounts: no /dev/fuse or no fusermount3"
fi

finish
