#!/bin/bash
# gc beside mounts: what a user stands in stays readable when its name is gone; an edit mount does not hold packs back.
. "$(dirname "$0")/lib.sh"
[ -e /dev/fuse ] || skip "no /dev/fuse"

expect 0 "$mirage" init
make_source "$work/source"
mkdir "$work/mnt" "$work/edit"
for i in 1 2 3; do
  head -c 300000 /dev/urandom >"$work/source/noise"
  cp "$work/source/noise" "$work/noise.$i"
  expect 0 "$mirage" -q import "$work/source" debian
done
mounts+=("$work/mnt" "$work/edit")
expect 0 "$mirage" mount "$work/mnt"
expect 0 "$mirage" mount --edit debian "$work/edit"

# A process stands in v1 and has looked at nothing in it.
mkfifo "$work/go" "$work/seen"
(
  cd "$work/mnt/debian/v1" || exit 1
  echo standing >"$work/seen"
  read -r <"$work/go"
  cmp noise "$work/noise.1" && cat etc/motd && echo whole
  echo read >"$work/seen"
  read -r <"$work/go"
) >"$work/told" 2>&1 &
stander=$!
read -r <"$work/seen"
expect 0 "$mirage" tag -d debian/v1
expect 0 "$mirage" gc
out_has '^removed: 0 objects, 0 chunks'
out_lacks 'left for the next gc'
echo >"$work/go"
read -r <"$work/seen"
grep -qx whole "$work/told" || fail "v1 could not be read: $(cat "$work/told")"
[ ! -e "$work/mnt/debian/v1" ] || fail "v1 is still listed"

# Nobody is in it any more: the next collection takes it, and waits for neither mount.
echo >"$work/go"
wait $stander
for attempt in $(seq 50); do  # the kernel forgets in its own time
  ls "$MIRAGE_LIBRARY"/locks/sessions/*-l* >/dev/null 2>&1 || break
  echo 2 >/proc/sys/vm/drop_caches 2>/dev/null
  sleep 0.1
done
expect 0 "$mirage" gc --compact
out_has '^removed: [1-9][0-9]* objects, [1-9][0-9]* chunks'
out_lacks 'left for the next gc'

# What the edit lies on is kept, and the other version reads on.
echo edited >"$work/edit/etc/motd"
cmp "$work/edit/noise" "$work/noise.3" || fail "the edit's base was hit"
cmp "$work/mnt/debian/v2/noise" "$work/noise.2" || fail "v2 was hit"
expect 0 "$mirage" tag -d debian/v2
expect 0 "$mirage" gc --compact
cmp "$work/edit/noise" "$work/noise.3" || fail "the edit's base was hit by a compaction"
expect 0 "$mirage" umount "$work/edit"
out_has '^debian/v4 '
expect 0 "$mirage" umount "$work/mnt"
expect 0 "$mirage" fsck
expect 0 "$mirage" cat debian:/etc/motd
out_is edited
finish
