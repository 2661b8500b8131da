#!/bin/bash
# fsck --repair as an operator meets it: the database lost, a pack damaged, the same files imported again.
. "$(dirname "$0")/lib.sh"

make_source "$work/source"
head -c 300000 /dev/urandom >"$work/source/bin/noise"
expect 0 "$mirage" init
expect 0 "$mirage" import "$work/source" web -m first
echo changed >"$work/source/etc/motd"
expect 0 "$mirage" import "$work/source" web
expect 0 "$mirage" log web
log=$(cat "$work/out")
expect 0 "$mirage" fsck --repair
out_is ''
[ ! -e "$MIRAGE_LIBRARY/quarantine" ] || fail "a sound library was changed"

rm -rf "$MIRAGE_LIBRARY/db"
expect_error 1 'fsck' "$mirage" log web
expect 4 "$mirage" fsck
out_has '^damage: db: '
expect 1 "$mirage" fsck --repair
out_has '^repair: db: made anew'
err_has 'repaired$'
expect 0 "$mirage" fsck
expect 0 "$mirage" log web
out_is "$log"
expect 0 "$mirage" import "$work/source" web --allow-empty
out_has '^web/v3 '

pack=$(find "$MIRAGE_LIBRARY/packs" -name '*.pack' -size +100k | head -1)
printf XYZ | dd of="$pack" bs=1 seek=5000 conv=notrunc status=none
expect_error 1 'fsck|checksum' "$mirage" cat web/v1:/bin/noise
expect 4 "$mirage" fsck
out_has '^damage: .*\(web/v1:/bin/noise\)$'
expect 4 "$mirage" fsck --repair
out_has '^left: .*\(web/v1:/bin/noise\)$'
out_has '^repair: packs/.* moved to quarantine/'
[ -e "$MIRAGE_LIBRARY/quarantine/${pack##*/}" ] || fail "the damaged pack is not in quarantine/"
expect 4 "$mirage" fsck --json
out_has '"damage":.*"path":"/bin/noise"'

echo hello >"$work/source/etc/motd"  # the old one: small files share a block, and it went with it
expect 0 "$mirage" import "$work/source" again
expect 0 "$mirage" fsck
expect 0 "$mirage" cat web/v1:/bin/noise
cmp -s "$work/out" "$work/source/bin/noise" || fail "the healed file differs"

# the branch's own next import heals too, though not a file of its source has changed
sleep 4
expect 0 "$mirage" import "$work/source" again --allow-empty
expect 0 "$mirage" import "$work/source" again --allow-empty
err_has 'unchanged, not read again'
for pack in $(find "$MIRAGE_LIBRARY/packs" -name '*.pack' -size +100k); do
  printf XYZ | dd of="$pack" bs=1 seek=5000 conv=notrunc status=none
done
expect 4 "$mirage" fsck --repair
out_has '^left: .*/bin/noise\)$'
expect 0 "$mirage" log again
log=$(cat "$work/out")
expect 0 "$mirage" import "$work/source" again
out_is 'no changes'
err_has 'had lost .* and has it again'
expect 0 "$mirage" log again
out_is "$log"
expect 0 "$mirage" cat again:/bin/noise
cmp -s "$work/out" "$work/source/bin/noise" || fail "the branch's own import did not heal it"

expect 0 "$mirage" fsck
expect 0 "$mirage" import "$work/source" again
out_is 'no changes'

# directories that are lost come back like contents do
expect 0 "$mirage" import "$work/source" base
before=$(ls "$MIRAGE_LIBRARY/packs")
mkdir -p "$work/tree/sub" && echo deep >"$work/tree/sub/file"
expect 0 "$mirage" import "$work/tree" lower
lower=$(ls "$MIRAGE_LIBRARY/packs" | grep -vxF "$before")
echo top >"$work/tree/top"
expect 0 "$mirage" import "$work/tree" upper
expect 0 "$mirage" branch -d --with-tags lower
for pack in $lower; do mv "$MIRAGE_LIBRARY/packs/$pack" "$work/"; done
rm -rf "$MIRAGE_LIBRARY/db"
expect 4 "$mirage" fsck --repair
out_has '^left: .*\(upper/v1:/sub\)$'
expect 0 "$mirage" --json import "$work/tree" upper
out_has '"changed":false'
out_has '"restored_bytes":[1-9]'
expect 0 "$mirage" cat upper/v1:/sub/file
out_is deep
expect 0 "$mirage" fsck

# an edit whose record is spoiled
mkdir -p "$MIRAGE_LIBRARY/overlays/0badcafe"
echo '{' >"$MIRAGE_LIBRARY/overlays/0badcafe/overlay.json"
expect 4 "$mirage" fsck
out_has '^damage: .*0badcafe'

finish
