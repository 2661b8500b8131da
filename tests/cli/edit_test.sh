#!/bin/bash
# Two edits of a branch at once, a look before the commit, detached edits, and `enter`.
. "$(dirname "$0")/lib.sh"

[ -c /dev/fuse ] || skip "no /dev/fuse"
[ "$(id -u)" = 0 ] || command -v fusermount3 >/dev/null || skip "no fusermount3"
one=$work/one two=$work/two
mkdir "$one" "$two"
mounts+=("$one" "$two")
id='[0-9a-f]{64}'

expect 0 "$mirage" init
make_source "$work/source"
expect 0 "$mirage" import "$work/source" debian

# a look at what would be committed: mounted, and not
expect 0 "$mirage" mount --edit debian "$one"
expect 0 "$mirage" diff debian "$one"
out_is ''
echo edited >"$one/etc/motd"
mkdir "$one/srv" && echo new >"$one/srv/file"
rm "$one/bin/link"
expect 1 "$mirage" diff debian "$one" -- /etc/motd /srv /bin/link
out_is $'D /bin/link\nM /etc/motd\nA /srv\nA /srv/file'
expect_error 2 'not of an edit mount' "$mirage" diff -p debian "$one"
expect_error 2 'no edit mount there' "$mirage" diff debian "$two"
expect 0 "$mirage" overlay list
overlay=$(cut -d' ' -f1 "$work/out")
expect 0 "$mirage" overlay diff "$overlay"
out_has '^M /etc/motd$'
expect 0 "$mirage" overlay diff "$overlay" --stat
out_has '^M /etc/motd  6 -> 7 bytes$'
expect 0 ls "$MIRAGE_LIBRARY/overlays/$overlay/views"
out_is ''

# two at once: what does not touch is merged
expect 0 "$mirage" mount --edit debian "$two"
echo other >"$two/other"
expect 0 "$mirage" umount "$one" -m first
out_has "^debian/v2 $id\$"
expect 0 "$mirage" umount "$two" -m second
out_has "^debian/v3 $id\$"
expect 0 "$mirage" cat debian/v3:/etc/motd debian/v3:/other
out_is $'edited\nother'
expect 0 "$mirage" log debian
out_has second

# what does is kept, with the conflicts listed, and the first is as it was
expect 0 "$mirage" mount --edit debian "$one"
expect 0 "$mirage" mount --edit debian "$two"
echo mine >"$one/other"
echo yours >"$two/other"
expect 0 "$mirage" umount "$one"
expect_error 1 'debian moved since debian/v3.*/other: both changed its content.*--to NEWBRANCH.*--favor' "$mirage" umount "$two"
expect 0 "$mirage" cat debian:/other
out_is mine
expect 0 "$mirage" overlay list
out_has '^[0-9a-f]+ debian/v3 conflict '
out_has '^  conflict /other: both changed its content$'
overlay=$(head -1 "$work/out" | cut -d' ' -f1)
expect_error 1 'both changed its content' "$mirage" overlay commit "$overlay"
expect 0 "$mirage" overlay commit "$overlay" --favor overlay
out_has "^debian/v5 $id\$"
expect 0 "$mirage" cat debian/v4:/other debian/v5:/other
out_is $'mine\nyours'

# A plain umount says nothing to who asked; what could not be committed is in the list.
expect 0 "$mirage" mount --edit debian "$one"
expect 0 "$mirage" mount --edit debian "$two"
echo mine again >"$one/other"
echo yours again >"$two/other"
expect 0 "$mirage" umount "$one"
expect 0 umount "$two"
for ((i = 0; i < 100; i++)); do
  expect 0 "$mirage" overlay list
  grep -q ' mounted ' "$work/out" || break
  sleep 0.1
done
out_has '^[0-9a-f]+ debian/v5 conflict .* commit: branch debian moved since debian/v5'
out_has '^  conflict /other: both changed its content$'
overlay=$(head -1 "$work/out" | cut -d' ' -f1)
expect 0 "$mirage" cat debian/v6:/other
out_is 'mine again'
expect 0 "$mirage" overlay commit "$overlay" --to other
out_has "^other/v1 $id\$"
expect 0 "$mirage" cat other:/other
out_is 'yours again'

# detached: no version until told
expect 0 "$mirage" mount --edit debian --detach -m later "$one"
echo detached >"$one/detached"
expect 0 "$mirage" umount "$one"
out_has '^overlay [0-9a-f]+$'
overlay=$(cut -d' ' -f2 "$work/out")
expect 0 "$mirage" mount --edit debian "$two"
expect 0 "$mirage" umount "$two"
out_is 'no changes'
expect 0 "$mirage" overlay diff "$overlay"
out_has '^A /detached$'
expect 0 "$mirage" overlay resume "$overlay" "$one"
expect 0 umount "$one"
expect 0 "$mirage" overlay commit "$overlay"
out_has "^debian/v7 $id\$"
expect 0 "$mirage" show debian
out_has '^message: later$'
expect 0 "$mirage" mount --edit debian --detach "$one"
echo told >"$one/detached"
expect 0 "$mirage" umount --commit "$one"
out_has "^debian/v8 $id\$"
expect 0 "$mirage" overlay list
out_is ''

# enter: a root of its own, thrown away unless told
if [ "$(id -u)" = 0 ] && unshare -pm --fork true 2>/dev/null; then
  root=$work/root
  mkdir -p "$root"/{bin,proc,dev,etc}
  for program in sh cat sleep; do
    cp "$(readlink -f "$(command -v $program)")" "$root/bin/$program"
    for library in $(ldd "$root/bin/$program" | grep -o '/[^ )]*'); do
      mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"
    done
  done
  expect 0 "$mirage" import "$root" small
  # A program left running ends with it.
  expect 7 "$mirage" enter small -- /bin/sh -c 'echo $$ >/etc/pid; cat /etc/pid; echo >/dev/null; sleep 100 & cat /proc/1/comm; exit 7'
  out_has '^mirage$'
  expect_error 1 '/etc/pid' "$mirage" cat small:/etc/pid
  cp "$MIRAGE_LIBRARY/mirage.yaml" "$work/mirage.yaml"
  echo 'exclude: [/etc/cache]' >>"$MIRAGE_LIBRARY/mirage.yaml"
  expect 0 "$mirage" enter small --commit -m inside --tag t --author Eva -- /bin/sh -c 'echo made >/etc/made; echo x >/etc/cache'
  out_has "^small/t $id\$"
  err_has '^not committed, excluded by mirage.yaml: 1 path$'
  err_has '^  /etc/cache$'
  mv "$work/mirage.yaml" "$MIRAGE_LIBRARY/mirage.yaml"
  expect 0 "$mirage" show small
  out_has '^author: Eva$'
  expect_error 2 'go with --commit' "$mirage" enter small --author Eva
  expect 0 "$mirage" cat small:/etc/made
  out_is made
  expect_error 1 'ended with 3; nothing is committed.*overlay commit' "$mirage" enter small --commit -- /bin/sh -c 'echo x >/etc/x; exit 3'
  expect 0 "$mirage" overlay list
  out_has ' small/t active '
  expect 0 "$mirage" overlay discard "$(cut -d' ' -f1 "$work/out")"
  grep -q mirage-enter /proc/self/mountinfo && fail "a mount is left"

  # The host's name servers, wherever the image lets its resolv.conf lead; none of it is committed.
  cat /etc/resolv.conf >"$work/name-servers"
  expect 0 "$mirage" enter small --commit -- /bin/sh -c 'cat /etc/resolv.conf'
  [ "$(head -n -1 "$work/out")" = "$(cat "$work/name-servers")" ] || fail "other name servers: $(cat "$work/out")"
  out_has '^no changes$'
  mkdir "$root/run" && ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
  expect 0 "$mirage" import "$root" small
  expect 0 "$mirage" enter small -- /bin/sh -c 'cat /etc/resolv.conf'
  cmp -s "$work/out" "$work/name-servers" || fail "other name servers: $(cat "$work/out")"
  # A link that leads out of the image leads nowhere.
  ln -sfn "$work/outside" "$root/etc/resolv.conf"
  expect 0 "$mirage" import "$root" small
  expect 0 "$mirage" enter small -- /bin/sh -c 'echo done'
  [ ! -e "$work/outside" ] || fail "made a file on the host"
fi
expect 0 "$mirage" overlay list
out_is ''
expect 0 "$mirage" fsck

finish
