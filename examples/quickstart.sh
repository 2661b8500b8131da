#!/bin/bash
# The whole of Mirage on one screen, for root on Debian 12: installs what is missing, builds, makes two real Debian disks
# (or takes yours: IMAGE=/path/to/disk examples/quickstart.sh), imports them, reads and compares every version under one
# mount point, and edits a branch. Works in /var/tmp/mirage-quickstart, or in the directory given as DIRECTORY=; what a
# run leaves there makes the next one quick. `rm -r` that directory to begin again.
set -euo pipefail

source=$(cd "$(dirname "$0")/.." && pwd)
work=${DIRECTORY:-/var/tmp/mirage-quickstart}
image=${IMAGE:-}
[ -z "$image" ] || image=$(realpath "$image")
export MIRAGE_LIBRARY=$work/library NO_COLOR=1

say() { printf '\n# %s\n' "$*"; }
# Shows a command and runs it.
run() {
  local word line='$'
  for word in "$@"; do case $word in *' '*) line+=" \"$word\"" ;; *) line+=" $word" ;; esac; done
  echo "$line"
  "$@"
}
fail() { echo "quickstart: $*" >&2; exit 1; }

mounted() { mountpoint -q "$1" 2>/dev/null || [[ $(stat "$1" 2>&1) == *"not connected"* ]]; }
leave() {
  local mount
  for mount in "$work/edit" "$work/mnt"; do
    if mounted "$mount"; then
      mirage umount --discard "$mount" >/dev/null 2>&1 || fusermount3 -u "$mount" 2>/dev/null ||
        umount -l "$mount" || true
    fi
  done
}

[ "$(id -u)" -eq 0 ] || fail "run it as root: it installs packages, makes disks and mounts"
started=$SECONDS
echo "# Setting up: packages, a Release build, two disks (minutes the first time, seconds later)"
"$source/tests/setup.sh"
[ -e /dev/fuse ] || fail "/dev/fuse is missing: load the module (modprobe fuse), or pass the device to the container"
cmake -S "$source" -B "$source/build" >/dev/null
cmake --build "$source/build" -j "$(nproc)" >/dev/null
PATH=$source/build/bin:$PATH
mkdir -p "$work/mnt" "$work/edit" 2>/dev/null || { leave; mkdir -p "$work/mnt" "$work/edit"; }
trap leave EXIT
trap 'exit 130' INT TERM
leave
if [ -n "$image" ]; then
  branch=image
else
  branch=debian
  "$source/examples/make_disks.sh" "$work"
fi
echo "# ready after $((SECONDS - started)) s; everything is in $work"
cd "$work"

say "1. Import: a disk becomes a version, branch/tag. A library keeps each content once."
[ -f library/FORMAT ] || run mirage init library
if [ -n "$image" ]; then
  run mirage import "$image" $branch -m "a disk of mine"
else
  for tag in v1 v2; do
    if mirage show $branch/$tag >/dev/null 2>&1; then
      echo "($branch/$tag is in the library since the last run)"
    else
      run mirage import debian-$tag.img $branch/$tag -m "Debian 12, disk $tag"
    fi
  done
fi

say "2. Mount: every version of every image is a directory, there at once."
run mirage mount mnt
run ls mnt/$branch
first=$(find mnt/$branch -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort -V | head -n 1)
etc=etc
[ -d "mnt/$branch/$first/etc" ] || etc=
ls "mnt/$branch/$first/$etc" >ls.out
printf '$ ls mnt/%s/%s/%s\n' $branch "$first" "$etc"
head -n 12 ls.out | paste -sd ' '
echo "... $(wc -l <ls.out) names"
printf "$ grep -r '^root:' mnt/%s/%s/%s\n" $branch "$first" "$etc"
grep -rs '^root:' "mnt/$branch/$first/$etc" | head -n 3 || true

if [ -z "$image" ]; then
  say "3. Compare: plain diff, whose cost is the change, for equal files have equal inode numbers; or mirage diff."
  printf '$ diff -rq --no-dereference mnt/debian/v1 mnt/debian/v2\n'
  diff -rq --no-dereference mnt/debian/v1 mnt/debian/v2 >diff.out || [ $? -eq 1 ]
  head -n 6 diff.out
  echo "... $(wc -l <diff.out) lines"
  printf '$ mirage diff debian/v1 debian/v2 -- /etc\n'
  mirage diff debian/v1 debian/v2 -- /etc >diff.out || [ $? -eq 1 ]
  head -n 8 diff.out
fi

say "4. Edit: a branch mounted for writing; unmounting commits what changed."
run mirage mount --edit $branch edit
printf "$ echo 'edited on %s' >> edit/%s\n" "$(date -u +%FT%TZ)" "${etc:+$etc/}motd"
echo "edited on $(date -u +%FT%TZ)" >>"edit/${etc:+$etc/}motd"
run mkdir -p edit/srv/example
run mirage umount edit -m "a note in motd" | tee umount.out
tag=$(sed -n "s|^$branch/\([^ ]*\) .*|\1|p" umount.out)

say "5. The new version is in the log, and under the mount that was there all along."
printf '$ mirage log %s\n' $branch
mirage log $branch >log.out
head -n 14 log.out
for _ in 1 2 3 4 5 6 7 8 9 10; do  # branch directories are looked at afresh every second
  [ "$(readlink mnt/$branch/latest)" = "$tag" ] && break
  sleep 0.3
done
run readlink mnt/$branch/latest
run tail -n 1 "mnt/$branch/latest/${etc:+$etc/}motd"
run mirage umount mnt

say "Done in $((SECONDS - started)) s. Next: README.md, mirage --help, export MIRAGE_LIBRARY=$work/library"
