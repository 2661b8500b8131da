#!/bin/bash
# A full disk: the import fails and says so, the library is whole and goes on when there is room again.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || skip "needs root, to mount a small tmpfs"
mkdir "$work/small"
mount -t tmpfs -o size=24m tmpfs "$work/small" 2>/dev/null || skip "may not mount a tmpfs"
mounts+=("$work/small")
export MIRAGE_LIBRARY=$work/small/library

expect 0 "$mirage" init
make_source "$work/source"
expect 0 "$mirage" import "$work/source" debian
before=$(cat "$MIRAGE_LIBRARY/refs.log")
head -c 60000000 /dev/urandom >"$work/source/big"
expect_error 1 'No space left on device' "$mirage" -q import "$work/source" debian
[ "$(cat "$MIRAGE_LIBRARY/refs.log")" = "$before" ] || fail "refs.log changed"
[ -z "$(ls -A "$MIRAGE_LIBRARY/staging")" ] || fail "something is left in staging/"
expect 0 "$mirage" fsck
expect 0 "$mirage" cat debian:/etc/motd
out_is hello
head -c 100000 /dev/urandom >"$work/source/big"
expect 0 "$mirage" import "$work/source" debian
out_has '^debian/v2 '
expect 0 "$mirage" fsck

finish
