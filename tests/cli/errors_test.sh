#!/bin/bash
# Bad input, as far as it needs no appliance: one line that says what to do, the documented exit code, nothing changed.
. "$(dirname "$0")/lib.sh"

# usage: 2, and 8 for fsck
expect_error 2 'unknown verb' "$mirage" frobnicate
expect_error 2 'no verb' "$mirage"
expect_error 2 'unknown option' "$mirage" --bogus log
expect_error 2 'needs a directory' "$mirage" -L
expect_error 2 '^mirage: log: .*--bogus' "$mirage" log --bogus
expect_error 2 '^mirage: import: ' "$mirage" import
expect_error 2 '^mirage: cat: ' "$mirage" cat
expect_error 2 '^mirage: mount: ' "$mirage" mount -m message "$work"
expect_error 2 '^mirage: diff: ' "$mirage" diff debian
expect_error 2 '^mirage: overlay: ' "$mirage" overlay frobnicate
expect_error 2 '^mirage: overlay: ' "$mirage" overlay resume 1234
expect_error 2 '^mirage: umount: ' "$mirage" umount --discard -m message "$work"
expect_error 8 '^mirage: fsck: ' "$mirage" fsck --bogus

# no library, something else in its place
expect_error 1 "no library there; make one with .mirage init" "$mirage" log
expect_error 2 'no library there' "$mirage" diff a b
expect_error 8 'no library there' "$mirage" fsck
expect_error 1 'no library there' "$mirage" -L "$work/nowhere" import "$work" debian
mkdir "$work/full" && touch "$work/full/file"
expect_error 1 'not empty' "$mirage" init "$work/full"
expect_error 1 '^mirage: init ' "$mirage" init /proc/nowhere
expect 0 "$mirage" init
expect_error 1 'library already' "$mirage" init

make_source "$work/source"
expect 0 "$mirage" import "$work/source" debian/one
before=$(cat "$MIRAGE_LIBRARY/refs.log")

# sources
expect_error 1 'nowhere.*No such file' "$mirage" import "$work/nowhere" debian
: >"$work/empty.img"
expect_error 1 'empty\.img.*empty' "$mirage" import "$work/empty.img" debian
expect_error 1 'format' "$mirage" import --format frob "$work/source" debian
expect_error 1 '^mirage: import ' "$mirage" import /dev/null debian
mkfifo "$work/fifo"
expect_error 1 '^mirage: import ' timeout 20 "$mirage" import "$work/fifo" debian

# names
for name in .x -x a..b 'a b' "$(printf '%0129d' 0)" $'a\nb' ''; do
  if [ "$name" = -x ]; then continue; fi  # an option
  expect_error 1 '^mirage: import ' "$mirage" import "$work/source" "$name"
  expect_error 1 '^mirage: branch ' "$mirage" branch "${name:-.}" debian
done
expect_error 1 'latest' "$mirage" import "$work/source" debian/latest
expect_error 1 '^mirage: tag ' "$mirage" tag debian a/b/c
expect_error 1 'latest' "$mirage" tag debian latest

# refs
echo change >"$work/source/new"
expect_error 1 'debian/one.*taken' "$mirage" import "$work/source" debian/one
expect_error 1 'nope' "$mirage" import "$work/source" debian --parent nope
expect_error 1 'nope: no such branch' "$mirage" show nope
expect_error 1 'no such tag' "$mirage" show debian/nope
expect_error 1 '^mirage: show ' "$mirage" show debian~5
expect_error 1 '^mirage: show ' "$mirage" show @ffffffffffff
expect_error 2 'stat' "$mirage" show debian:/etc
expect_error 1 '^mirage: log ' "$mirage" log nope..debian
expect_error 2 '^mirage: diff ' "$mirage" diff debian nope
expect_error 2 'in either version' "$mirage" diff debian debian -- /nowhere
expect_error 1 'taken' "$mirage" tag debian one
expect_error 1 "last tag of the branch's head" "$mirage" tag -d debian/one
expect_error 1 'no such tag' "$mirage" tag -d debian/nope
expect_error 1 'no such branch' "$mirage" tag nope
expect_error 1 'no such branch' "$mirage" branch nope
expect_error 1 'with-tags' "$mirage" branch -d debian
expect_error 1 'no such branch' "$mirage" branch -d nope
expect_error 1 'already' "$mirage" branch debian debian
expect_error 1 'no such overlay' "$mirage" overlay commit 1234
expect_error 1 'no such overlay' "$mirage" overlay discard 1234

# paths
expect_error 1 '/nowhere' "$mirage" ls debian:/nowhere
expect_error 1 '/nowhere' "$mirage" cat debian:/nowhere
expect_error 1 'is a directory' "$mirage" cat debian:/etc
expect_error 1 'fifo' "$mirage" cat debian:/bin/pipe
expect_error 1 'not a directory' "$mirage" stat debian:/etc/motd/x

# mount points
expect_error 1 'no such directory' "$mirage" mount "$work/nowhere"
expect_error 1 'not a directory' "$mirage" mount "$work/empty.img"
expect_error 1 'busy' "$mirage" mount /proc
mkdir "$work/mnt"
expect_error 1 'nope: no such branch' "$mirage" mount --edit nope "$work/mnt"
expect_error 1 'taken' "$mirage" mount --edit debian --tag one "$work/mnt"
expect_error 1 '^mirage: umount ' "$mirage" umount "$work/mnt"
expect_error 1 '^mirage: umount ' "$mirage" umount /proc
expect_error 1 '^mirage: umount ' "$mirage" umount "$work/nowhere"

# output that does not arrive is an error
if [ -c /dev/full ]; then
  code=0
  "$mirage" ls debian >/dev/full 2>"$work/err" || code=$?
  [ "$code" = 1 ] || fail "ls >/dev/full: exit $code"
  err_has 'No space left'
fi

# no permission
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
  chmod 0755 "$work"
  mkdir "$work/bin" && cp "$mirage" "$work/bin/"
  nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
  expect_error 1 'Permission denied' nobody "$work/bin/mirage" log
  expect_error 8 'Permission denied' nobody "$work/bin/mirage" fsck
  install -d -o 65534 -g 65534 "$work/theirs"
  expect 0 nobody "$work/bin/mirage" -L "$work/theirs/library" init
  echo secret >"$work/secret" && chmod 0600 "$work/secret"
  expect_error 1 'secret.*Permission denied' \
    nobody "$work/bin/mirage" -L "$work/theirs/library" import "$work/secret" debian
  mkdir -m 0755 "$work/locked" && echo x >"$work/locked/file" && chmod 0600 "$work/locked/file"
  expect_error 1 'Permission denied' nobody "$work/bin/mirage" -L "$work/theirs/library" import "$work/locked" debian
  expect 0 nobody "$work/bin/mirage" -L "$work/theirs/library" log
  out_is ''
fi

# nothing of all this left a trace
[ "$(cat "$MIRAGE_LIBRARY/refs.log")" = "$before" ] || fail "refs.log changed"
[ -z "$(ls -A "$MIRAGE_LIBRARY/staging")" ] || fail "something is left in staging/"
expect 0 "$mirage" fsck

# a library of a newer format, a damaged FORMAT, a policy that is no YAML
cp -a "$MIRAGE_LIBRARY" "$work/newer"
body=$(sed -e 's/^version: 1$/version: 2/' -e '/^checksum: /d' "$MIRAGE_LIBRARY/FORMAT")
{ echo "$body"; echo "checksum: $(echo "$body" | sha256sum | cut -d' ' -f1)"; } >"$work/newer/FORMAT"
expect_error 1 'newer' "$mirage" -L "$work/newer" log
expect_error 8 'newer' "$mirage" -L "$work/newer" fsck
sed -i 's/^uuid: ./uuid: z/' "$work/newer/FORMAT"
expect_error 1 'damaged' "$mirage" -L "$work/newer" log
cp "$MIRAGE_LIBRARY/FORMAT" "$work/newer/FORMAT"
printf 'compression_level: [\n' >"$work/newer/mirage.yaml"
expect_error 1 'mirage\.yaml' "$mirage" -L "$work/newer" log

finish
