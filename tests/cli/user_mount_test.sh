#!/bin/bash
# A mount of a user who is not root: who sees what, and the ways it ends without mirage.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || skip "not root, and so nobody else"
command -v setpriv >/dev/null || skip "no setpriv"
[ -c /dev/fuse ] || skip "no /dev/fuse"
command -v fusermount3 >/dev/null || skip "no fusermount3"
umask 022
chmod 0755 "$work"
mkdir "$work/bin" && cp "$MIRAGE_BIN/mirage" "$MIRAGE_BIN/mirfs" "$work/bin/"
mirage=$work/bin/mirage
user=1 other=2  # daemon, bin: fusermount3 wants them to have names
as() { setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"; }
# daemon_of MOUNTPOINT: its process.
daemon_of() { as $user "$mirage" --json mounts | grep -F "\"$1\"" | sed 's/.*"pid":\([0-9]*\).*/\1/'; }
# ends PROCESS: unmounted, and the daemon gone.
ends() {
  for _ in $(seq 100); do
    [ -e "/proc/$1" ] || break
    sleep 0.05
  done
  [ ! -e "/proc/$1" ] || fail "after $last: the daemon goes on"
  ! grep -qF " $mnt " /proc/self/mountinfo || fail "after $last: still mounted"
}

install -d -o $user -g $user "$work/home"
export MIRAGE_LIBRARY=$work/home/library
mnt=$work/home/mnt
mounts+=("$mnt")
expect 0 as $user mkdir "$mnt"
mkdir "$work/source"
echo secret >"$work/source/closed" && chmod 0000 "$work/source/closed"
mkdir "$work/source/locked" && echo deep >"$work/source/locked/file" && chmod 0000 "$work/source/locked"
echo open >"$work/source/open"
tar -C "$work/source" -cf "$work/source.tar" .
expect 0 as $user "$mirage" init
expect 0 as $user "$mirage" import "$work/source.tar" debian

# Its user reads all of it; nobody else gets in, root neither.
expect 0 as $user "$mirage" mount "$mnt"
daemon=$(daemon_of "$mnt")
[ "$(stat -c %u "/proc/$daemon")" = $user ] || fail "the daemon is another user's"
[ "$(as $user stat -c %a "$mnt/debian/v1/closed")" = 0 ] || fail "the mode is not shown"
expect 0 as $user cat "$mnt/debian/v1/closed" "$mnt/debian/v1/locked/file"
out_is $'secret\ndeep'
for who in $other 0; do
  expect 1 as $who cat "$mnt/debian/v1/open"
  err_has 'Permission denied'
done
expect_error 1 'Permission denied' as $other "$mirage" mounts
expect 1 as $other fusermount3 -u "$mnt"
expect 0 as $user cat "$mnt/debian/v1/open"
expect 0 as $user fusermount3 -u "$mnt"
ends "$daemon"

# SIGTERM, in use too: then it ends with its last user.
expect 0 as $user "$mirage" mount "$mnt"
daemon=$(daemon_of "$mnt")
expect 0 as $user kill -TERM "$daemon"
ends "$daemon"
expect 0 as $user "$mirage" mount -o version=debian/v1 "$mnt"
daemon=$(daemon_of "$mnt")
setpriv --reuid $user --regid $user --clear-groups sh -c "exec sleep 60 <'$mnt/open'" &
sleeper=$!
until [ "$(cat "/proc/$sleeper/comm" 2>/dev/null || echo sleep)" = sleep ]; do sleep 0.05; done
expect 1 as $user fusermount3 -u "$mnt"
err_has 'busy'
expect 0 as $user kill -TERM "$daemon"
for _ in $(seq 100); do
  grep -qF " $mnt " /proc/self/mountinfo || break
  sleep 0.05
done
! grep -qF " $mnt " /proc/self/mountinfo || fail "still mounted after SIGTERM"
[ -e "/proc/$daemon" ] || fail "the daemon left its user alone"
kill "$sleeper"
{ wait "$sleeper"; } 2>/dev/null
ends "$daemon"

# allow_other is the administrator's to give; an edit ends the same ways and is committed.
grep -qs '^user_allow_other' /etc/fuse.conf ||
  expect_error 1 'allow_other' as $user "$mirage" mount -o allow_other "$mnt"
expect 0 as $user "$mirage" mount --edit debian -m 'by fusermount3' "$mnt"
daemon=$(daemon_of "$mnt")
as $user sh -c "echo more >>'$mnt/closed'" || fail "its user cannot write what has mode 0000"
expect 1 as 0 cat "$mnt/open"
expect 0 as $user fusermount3 -u "$mnt"
ends "$daemon"
expect 0 as $user "$mirage" cat debian/v2:/closed
out_is $'secret\nmore'
expect 0 as $user "$mirage" fsck

finish
