#!/bin/bash
# mount, umount and overlay, from the command line.
. "$(dirname "$0")/lib.sh"

[ -c /dev/fuse ] || skip "no /dev/fuse"
[ "$(id -u)" = 0 ] || command -v fusermount3 >/dev/null || skip "no fusermount3"
mnt=$work/mnt
mkdir "$mnt"
mounts+=("$mnt")
id='[0-9a-f]{64}'

expect 0 "$mirage" init
make_source "$work/source"
expect 0 "$mirage" import "$work/source" debian
echo more >>"$work/source/etc/motd"
expect 0 "$mirage" import "$work/source" debian

# every version
expect 0 "$mirage" mount "$mnt"
expect 0 ls "$mnt/debian"
out_is $'latest\nv1\nv2'
expect 0 cat "$mnt/debian/v1/etc/motd" "$mnt/debian/latest/etc/motd"
out_is $'hello\nhello\nmore'
expect 0 diff -r --no-dereference "$mnt/debian/v2/etc" "$work/source/etc"
expect_error 1 'busy' "$mirage" mount "$mnt"
expect_error 2 'read-only mount' "$mirage" umount "$mnt" -m message
expect 0 "$mirage" mounts
out_has "^.+ pid [0-9]+ since 2[0-9TZ:.-]+ [0-9.]+ MiB, [0-9]+ requests, [0-9]+ inodes, cache .* on $mnt\$"
out_has ' all versions on '
expect 0 "$mirage" --json mounts
out_has '"shows":"all versions".*"cache_hits":[0-9]+'
out_has '"hand_overs":[0-9]+'
(cd "$mnt/debian/v1" && exec sleep 60) &
sleeper=$!
until [ "$(cat "/proc/$sleeper/comm")" = sleep ]; do sleep 0.05; done
expect_error 1 'busy.*sleep' "$mirage" umount "$mnt"
mountpoint -q "$mnt" || fail "a busy mount is gone"
kill "$sleeper"
{ wait "$sleeper"; } 2>/dev/null
expect 0 "$mirage" umount "$mnt"
mountpoint -q "$mnt" && fail "still mounted"
expect 0 "$mirage" mounts
out_is ''

# one branch, edited
expect 0 "$mirage" mount --edit debian "$mnt"
expect 0 "$mirage" mounts
out_has " edit of debian on $mnt\$"
echo edited >"$mnt/etc/motd"
mkdir "$mnt/srv" && echo new >"$mnt/srv/file"
rm "$mnt/bin/link"
expect 0 "$mirage" overlay list
out_has "^[0-9a-z-]+ debian/v2 mounted .* $mnt\$"
expect 0 "$mirage" umount "$mnt" -m 'by hand'
out_has "^debian/v3 $id\$"
mountpoint -q "$mnt" && fail "still mounted"
expect 0 "$mirage" overlay list
out_is ''
expect 1 "$mirage" diff debian/v2 debian/v3 -- /etc/motd /srv/file /bin/link
out_is $'D /bin/link\nM /etc/motd\nA /srv/file'
expect 0 "$mirage" show debian
out_has '^message: by hand$'
expect 0 "$mirage" fsck

# nothing changed; thrown away; a tag of one's own
expect 0 "$mirage" mount --edit debian "$mnt"
expect 0 cat "$mnt/etc/motd"
expect 0 "$mirage" umount "$mnt"
out_is 'no changes'
expect 0 "$mirage" mount --edit debian "$mnt"
echo lost >"$mnt/lost"
# The library is busy, but nothing is asked of it.
expect 0 flock "$MIRAGE_LIBRARY/locks/publish" "$mirage" umount "$mnt" --discard
out_is ''
expect_error 1 '/lost' "$mirage" cat debian:/lost
expect 0 "$mirage" mount --edit debian -m 'from mount' --tag gold "$mnt"
echo kept >"$mnt/kept"
expect 0 "$mirage" --json umount "$mnt"
out_has '"version":"debian/gold"'
expect 0 "$mirage" overlay list
out_is ''

# an author of one's own: at the mount, at the umount, at neither
expect 0 "$mirage" mount --edit debian --author 'Eva <eva@host>, by day' "$mnt"
echo 1 >"$mnt/author"
expect 0 "$mirage" umount "$mnt"
expect 0 "$mirage" show debian
out_has '^author: Eva <eva@host>, by day$'
expect 0 "$mirage" mount --edit debian --author Eva "$mnt"
echo 2 >"$mnt/author"
expect 0 "$mirage" umount "$mnt" --author Adam
expect 0 "$mirage" show debian
out_has '^author: Adam$'
expect 0 "$mirage" mount --edit debian "$mnt"
echo 3 >"$mnt/author"
expect 0 "$mirage" umount "$mnt"
expect 0 "$mirage" show debian
out_has "^author: $(id -un)@"
expect_error 2 'go with --edit' "$mirage" mount --author Eva "$mnt"
expect 0 "$mirage" mount "$mnt"
expect_error 2 'read-only mount' "$mirage" umount "$mnt" --author Eva
expect 0 "$mirage" umount "$mnt"

# what the library leaves out is said
cp "$MIRAGE_LIBRARY/mirage.yaml" "$work/mirage.yaml"
echo 'exclude: ["/var/cache/*", /etc/motd]' >>"$MIRAGE_LIBRARY/mirage.yaml"
expect 0 "$mirage" mount --edit debian --tag platinum "$mnt"
mkdir -p "$mnt/var/cache" && touch "$mnt"/var/cache/{1..21}
expect 0 "$mirage" umount "$mnt"
out_has "^debian/platinum $id\$"
err_has '^not committed, excluded by mirage.yaml: 21 paths$'
err_has '^  /var/cache/1$'
[ "$(grep -c '^  /var/cache/' "$work/err")" = 20 ] || fail "not as many as are said"
expect_error 1 '/var/cache/1' "$mirage" cat debian:/var/cache/1
expect 0 "$mirage" mount --edit debian "$mnt"
echo more >>"$mnt/etc/motd"
expect 0 "$mirage" --json umount "$mnt"
out_is '{"changed":false,"excluded":1,"excluded_paths":[{"path":"/etc/motd"}]}'
expect 0 "$mirage" mount --edit debian --detach "$mnt"
touch "$mnt/var/cache/later" "$mnt/later"
expect 0 "$mirage" umount "$mnt"
overlay=$(cut -d' ' -f2 "$work/out")
expect_error 2 'go with commit' "$mirage" overlay discard "$overlay" --author Eva
expect 0 "$mirage" --json overlay commit "$overlay" --author Eva --tag gold2
err_has '^  /var/cache/later$'
out_has '"excluded":1,"excluded_paths":\[\{"path":"/var/cache/later"\}\]'
expect 0 "$mirage" show debian
out_has '^author: Eva$'
mv "$work/mirage.yaml" "$MIRAGE_LIBRARY/mirage.yaml"

# killed: nothing that was synced is lost, nothing is committed unasked
kill_daemon() {
  local process
  for process in /proc/[0-9]*; do
    [ "$(readlink "$process/exe")" = "$(readlink -f "$MIRAGE_BIN/mirfs")" ] || continue
    tr '\0' '\n' <"$process/cmdline" | grep -qxF -- "$mnt" || continue
    kill -KILL "${process#/proc/}"
    while readlink "$process/exe" >/dev/null; do sleep 0.05; done
  done
}
expect 0 "$mirage" mount --edit debian "$mnt"
echo survives >"$mnt/survivor"
sync "$mnt/survivor"
kill_daemon
expect 0 "$mirage" mounts
out_is ''
expect_error 1 'daemon is dead.*overlay commit' "$mirage" umount "$mnt"
expect 0 "$mirage" overlay list
out_has '^[0-9a-z-]+ debian/gold2 active '
overlay=$(cut -d' ' -f1 "$work/out")
expect 0 "$mirage" overlay resume "$overlay" "$mnt"
expect 0 cat "$mnt/survivor"
out_is survives
kill_daemon
umount -l "$mnt"
expect 0 "$mirage" overlay commit "${overlay:0:6}" --to rescued -m rescued
out_has "^rescued/v1 $id\$"
expect 0 "$mirage" cat rescued:/survivor
out_is survives
expect 0 "$mirage" overlay list
out_is ''
expect 0 "$mirage" mount --edit debian "$mnt"
echo gone >"$mnt/gone"
sync "$mnt/gone"
kill_daemon
umount -l "$mnt"
expect 0 "$mirage" overlay list
expect 0 "$mirage" overlay discard "$(cut -d' ' -f1 "$work/out")"
expect 0 "$mirage" overlay list
out_is ''
expect 0 "$mirage" fsck

finish
