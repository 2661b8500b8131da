#!/bin/bash
# A version with 1 % of its files changed adds about that to the library, whole: packs, index, log and all.
. "$(dirname "$0")/lib.sh"

files=1000 changed=10 bytes=8192
expect 0 "$mirage" init
mkdir "$work/source"
for ((i = 0; i < files; ++i)); do
  directory=$work/source/$((i / 50))
  [ -d "$directory" ] || mkdir "$directory"
  head -c $bytes /dev/urandom >"$directory/$i"
done
size() { find "$MIRAGE_LIBRARY" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }'; }
new_bytes() { sed -n 's/.*"new_bytes":\([0-9]*\).*/\1/p' "$work/out"; }

expect 0 "$mirage" --json import "$work/source" disk
first=$(new_bytes)
[ "$first" -gt $((files * bytes)) ] || fail "$files files of $bytes random bytes, but $first bytes new"
before=$(size)
for ((i = 0; i < files; i += files / changed)); do head -c $bytes /dev/urandom >"$work/source/$((i / 50))/$i"; done
expect 0 "$mirage" --json import "$work/source" disk
second=$(new_bytes)
grown=$(($(size) - before))
# The changed bytes, and at most as much again for the directories on their way and the library's own books.
least=$((changed * bytes))
[ "$second" -ge $least ] || fail "$changed changed files of $bytes bytes, but $second bytes new"
[ "$second" -le $((2 * least)) ] || fail "1 % changed: $second bytes new, where $least changed"
[ "$grown" -le $((2 * least + 16384)) ] || fail "1 % changed: the library grew by $grown bytes, where $least changed"
echo "first $first bytes, second $second, library grown by $grown"

finish
