#!/bin/bash
# Every verb that needs no mount: what it prints and how it exits.
. "$(dirname "$0")/lib.sh"

id='[0-9a-f]{64}'
# `cut`: the id of "BRANCH/TAG ID".
id_of() { cut -d' ' -f2 "$work/out"; }

expect 0 "$mirage" init
err_has 'empty library'
expect 0 "$mirage" log
out_is ''
expect 0 "$mirage" fsck

# import
make_source "$work/source"
expect 0 "$mirage" import "$work/source" debian -m $'first\nmore'
out_has "^debian/v1 $id\$"
err_has ' files, .* new to the library'
v1=$(id_of)
expect 0 "$mirage" import "$work/source" debian
out_is 'no changes'
expect 0 "$mirage" -q import "$work/source" debian
[ ! -s "$work/err" ] || fail "-q, but talk"
expect 0 "$mirage" --json import "$work/source" debian
out_has '"changed":false'
expect 0 "$mirage" import --allow-empty "$work/source" debian/same
out_has "^debian/same $id\$"
echo more >>"$work/source/etc/motd"
printf 'a\nB\nc\nd\n' >"$work/source/etc/list"
chmod 0700 "$work/source/empty"
rm "$work/source/bin/link"
echo new >"$work/source/etc/new"
rm "$work/source/bin/pipe" && echo file >"$work/source/bin/pipe"
expect 0 "$mirage" --json import "$work/source" debian -m second
out_has '"version":"debian/v2"'
out_has '"changed":true'
expect 0 "$mirage" import "$work/source" other --parent debian/v1
out_has "^other/v1 $id\$"

# log
expect 0 "$mirage" log debian
out_has "^version $v1 \\(debian/v1\\)\$"
out_has '^    more$'
[ "$(grep -c '^version ' "$work/out")" = 3 ] || fail "log: not three versions"
expect 0 "$mirage" log debian -- /etc/motd
[ "$(grep -c '^version ' "$work/out")" = 2 ] || fail "log -- PATH: not two versions"
expect 0 "$mirage" log debian:/etc/motd
[ "$(grep -c '^version ' "$work/out")" = 2 ] || fail "log V:PATH: not two versions"
expect 0 "$mirage" log debian -- /conf
[ "$(grep -c '^version ' "$work/out")" = 1 ] || fail "log -- PATH: not one version"
expect 0 "$mirage" log debian/v1..debian --oneline
[ "$(wc -l <"$work/out")" = 2 ] || fail "log A..B: not two versions"
out_lacks "${v1:0:12}"
expect 0 "$mirage" log --graph
out_has '\* [0-9a-f]{12} \(debian, debian/v2\) second$'
out_has '^\|/$'
expect 0 "$mirage" log --json -n 1
[ "$(wc -l <"$work/out")" = 1 ] || fail "log -n 1: not one line"
out_has '"time":"[0-9]{4}-[0-9-]{5}T[0-9:]{8}\.[0-9]{9}Z"'

# show
expect 0 "$mirage" show debian/v1
out_has "^version: $v1\$"
out_has '^tag: debian/v1$'
out_has '^author: .+@.+$'
out_has '^message: first$'
out_has "^tree: $id\$"
out_has '^files: 10$'
expect 0 "$mirage" show "@${v1:0:10}"
out_has "^version: $v1\$"
expect 0 "$mirage" show debian~2
out_has "^version: $v1\$"
expect 0 "$mirage" show --json debian/v1..debian
[ "$(wc -l <"$work/out")" = 2 ] || fail "show A..B: not two versions"
out_has '"disks":\[\]'

# ls
expect 0 "$mirage" ls debian:/etc
out_is $'list\nmotd\nnew'
expect 0 "$mirage" ls debian:/conf/
out_is $'list\nmotd\nnew'
expect 0 "$mirage" ls debian:/conf
out_is $'list\nmotd\nnew'
expect 0 "$mirage" ls -l debian:/conf
out_has ' /conf -> /etc$'
expect 0 "$mirage" ls -l debian/v1:/bin
out_has '^-rwsr-xr-x +2 .* list$'
out_has '^prw'
out_has '^lrwxrwxrwx .* link -> \.\./etc/motd$'
expect 0 "$mirage" ls -lR debian/v1
out_has ' 2020-01-02T03:04:05\.123456789Z /etc/motd$'
expect 0 "$mirage" ls -R0 debian/v1
[ "$(tr -dc '\0' <"$work/out" | wc -c)" = 10 ] || fail "ls -0: not ten records"
expect 0 "$mirage" ls debian
LC_ALL=C grep -q $'^bad\xffname$' "$work/out" || fail "ls: a name's bytes were changed in a pipe"
expect 0 "$mirage" ls --json debian
out_has '"path":"/bad\\\\xffname","path_base64":"L2JhZP9uYW1l"'
if command -v script >/dev/null; then
  expect 0 script -qec "'$mirage' ls debian" /dev/null
  out_has 'bad\\xffname'
fi

# cat, stat
expect 0 "$mirage" cat debian/v1:/bin/link debian:etc/new
out_is $'hello\nnew'
expect 0 "$mirage" stat debian/v1:/etc/motd
out_has '^mtime: 2020-01-02T03:04:05\.123456789Z$'
out_has '^sha256: 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03$'
expect 0 "$mirage" stat debian/v1:/bin/list debian/v1:/bin/link
out_has '^links: 2$'
out_has '^linked: /etc/list$'
out_has '^target: \.\./etc/motd$'
expect 0 "$mirage" stat --json debian/v1:/bin/list
out_has '"mode":"4755".*"links":2'

# diff
expect 0 "$mirage" diff debian/v1 debian/same
out_is ''
expect 1 "$mirage" diff debian/v1 debian/v2 -- /etc /bin /empty
out_has '^A /etc/new$'
out_has '^D /bin/link$'
out_has '^M /etc/list$'
out_has '^T /bin/pipe$'
out_has '^m /empty$'
expect 1 "$mirage" diff debian/v1..debian/v2 -- /etc/motd
out_is 'M /etc/motd'
expect 1 "$mirage" diff debian/v1:/etc/motd debian/v2:/etc/motd
out_is 'M /etc/motd'
expect 0 "$mirage" diff debian/v1:/bin debian/v1:/bin
expect 1 "$mirage" diff --stat debian/v1 debian
out_has '^M /etc/motd  6 -> 11 bytes$'
out_has '^[0-9]+ paths, 2 added|^[0-9]+ paths, 1 added'
expect 1 "$mirage" diff -0 debian/v1 debian -- etc/motd
printf 'M /etc/motd\0' | cmp -s - "$work/out" || fail "diff -0: not one record"
expect 1 "$mirage" diff --json debian/v1 debian -- etc/motd
out_has '^\{"change":"M","path":"/etc/motd","before":\{.*"after":'
expect 1 "$mirage" diff -p debian/v1 debian -- /etc /empty
out_has '^mode 0[0-7]+ -> 0700$'
mkdir -p "$work/patched/etc" "$work/patched/bin"
printf 'a\nb\nc\n' >"$work/patched/etc/list"
echo hello >"$work/patched/etc/motd"
if command -v patch >/dev/null; then
  patch -s -p1 -d "$work/patched" <"$work/out" || fail "diff -p: patch does not take it"
  diff -r "$work/patched/etc" "$work/source/etc" || fail "diff -p: does not give the newer files"
fi

# branch, tag
expect 0 "$mirage" branch
out_has "^debian $id\$"
expect 0 "$mirage" branch test debian/v1
out_is "test/v1 $v1"
expect 0 "$mirage" branch --json test
out_has '"latest":"v1","tags":1'
expect 0 "$mirage" tag test gold
out_is "test/gold $v1"
expect 0 "$mirage" tag test
out_is "test/v1 $v1"$'\n'"test/gold $v1"
expect 0 "$mirage" tag debian/v2 other/from-debian
expect 0 "$mirage" tag debian/v1 same -f
out_is "debian/same $v1"
expect 0 "$mirage" tag -d debian/same
expect 0 "$mirage" branch -d test --with-tags
expect 0 "$mirage" branch test debian
out_has '^test/v2 '  # a vN is never given twice

# fsck, stats, and reading what others have to read
expect 0 "$mirage" fsck
err_has 'clean$'
expect 0 "$mirage" fsck --json
out_has '"damaged":0'
expect 0 "$mirage" stats
out_has '^versions: 4$'
out_has '^branch debian: '
expect 0 "$mirage" stats --json
out_has '"ratio":'
expect 0 "$mirage" stats debian
out_has '^branch debian: deleting it frees '
out_has '^version debian/v1: deleting it frees '
expect 0 "$mirage" stats debian/v1
out_has '^version debian/v1: deleting it frees .* shares '
expect 0 "$mirage" gc
out_has '^freed: '
expect 0 "$mirage" overlay list
out_is ''

# Damage is found, named, and gives 4.
pack=$(find "$MIRAGE_LIBRARY/packs" -name '*.pack' | sort | head -1)
printf X | dd of="$pack" bs=1 seek=200 conv=notrunc status=none
expect 4 "$mirage" fsck
out_has '^damage: '

# help, for all
expect 0 "$mirage" --help
for verb in init import log show ls cat stat diff branch tag mount umount overlay gc fsck stats; do
  out_has "^  $verb "
done
for verb in init import log show ls cat stat diff branch tag mount umount overlay gc fsck stats; do
  expect 0 "$mirage" $verb --help
  out_has "^Usage: mirage $verb"
done
# A reader that goes away is no disaster: the pipe's signal, as for cat.
expect 0 "$mirage" --version

finish
