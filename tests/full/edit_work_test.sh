#!/bin/bash
# Real work in an edit of a real Debian: packages with a service and with alternatives installed by apt-get inside (where they
# can be downloaded), git, SQLite with a write-ahead log, make -j2, rsync -aHAX and tar in and out. What was seen is in the version.
# $MIRAGE_TEST_DISKS: where make_disks.sh keeps the disks (default: where the quickstart keeps its own).
set -euo pipefail

disks=${MIRAGE_TEST_DISKS:-/var/tmp/mirage-quickstart}
compare=$MIRAGE_BIN/compare_trees
PATH=$MIRAGE_BIN:$PATH
fail() { echo "FAILED: $*" >&2; exit 1; }
skip() {
  echo "SKIPPED: $*" >&2
  [ "${MIRAGE_REQUIRE_ALL:-0}" = 1 ] && exit 1
  exit 77
}
[ "$(id -u)" -eq 0 ] || skip "needs root"
[ -e /dev/fuse ] || skip "no /dev/fuse"
for program in apt-ftparchive git sqlite3 rsync make gcc perl; do command -v $program >/dev/null || skip "no $program"; done
[ -d "$disks/v1/usr" ] || "$MIRAGE_SOURCE/examples/make_disks.sh" "$disks" || skip "no Debian could be made"

work=$(mktemp -d /var/tmp/mirage-full.XXXXXX)
edit=$work/edit
leave() {
  local status=$?
  for mount in "$edit" "$work/mnt"; do
    mirage umount "$mount" >/dev/null 2>&1 || umount -l "$mount" 2>/dev/null || true
  done
  rm -rf "$work"
  exit $status
}
trap leave EXIT
trap 'exit 130' INT TERM
mkdir "$edit" "$work/mnt"
export MIRAGE_LIBRARY=$work/library
mirage init
mirage import "$disks/v1" debian

echo "packages"
mkdir "$work/debs"
if (cd "$work/debs" && apt-get -q download cron cron-daemon-common sensible-utils nano libncursesw6 && apt-ftparchive packages . >Packages) >"$work/apt.log" 2>&1; then
  mirage mount --edit debian -o allow_other,system "$edit"
  cp -r "$work/debs" "$edit/srv/debs"  # a repository of its own: apt-get resolves, fetches and configures, whatever the network
  mirage umount "$edit" -m debs
  mirage enter debian --commit -m packages --tag packages -- \
    /bin/sh -c 'export DEBIAN_FRONTEND=noninteractive && rm -rf /etc/apt/sources.list.d && echo "deb [trusted=yes] file:/srv/debs ./" >/etc/apt/sources.list &&
      apt-get update && apt-get -y --no-install-recommends install cron nano' >"$work/apt.log" 2>&1 ||
    { cat "$work/apt.log"; fail "apt-get"; }
  mirage cat debian:/var/lib/dpkg/status >"$work/status"
  for package in cron nano; do
    grep -A2 "^Package: $package\$" "$work/status" | grep -q '^Status: install ok installed' || fail "$package is not installed"
  done
  mirage ls debian:/etc/alternatives | grep -qx editor || fail "no alternative was made"
  mirage ls debian:/etc/init.d | grep -qx cron || fail "no service was installed"
  mirage enter debian -- /bin/sh -c 'dpkg --audit && dpkg --verify cron nano && nano --version' >/dev/null || fail "dpkg finds fault"
else
  [ "${MIRAGE_REQUIRE_ALL:-0}" != 1 ] || fail "apt-get download: $(tail -1 "$work/apt.log")"
  echo "  left out: $(tail -1 "$work/apt.log")"
fi

mirage mount --edit debian -o allow_other,system "$edit"
cd "$edit"

echo "git"
git init -q "$work/origin"
cp -a /usr/include/linux "$work/origin/linux"
git -C "$work/origin" add -A
git -C "$work/origin" -c user.name=n -c user.email=e commit -qm one
git clone -q "$work/origin" srv/clone
git -C srv/clone fsck --full --strict
git -C srv/clone gc -q
[ -z "$(git -C srv/clone status --porcelain)" ] || fail "git sees changes"

echo "SQLite"
[ "$(sqlite3 srv/data.db 'pragma journal_mode=wal; create table t(a integer primary key, b text);')" = wal ] || fail "no WAL"
write() {
  { echo '.timeout 20000'
    for _ in $(seq 40); do echo 'insert into t(b) select hex(randomblob(100)) from generate_series(1, 50);'; done
  } | sqlite3 srv/data.db
}
write & write & wait
[ "$(sqlite3 srv/data.db 'pragma integrity_check; select count(*) from t;' | tr '\n' ' ')" = "ok 4000 " ] || fail "the database is not whole"

echo "make"
mkdir srv/build
for i in $(seq 40); do echo "int f$i(void) { return $i; }" >srv/build/f$i.c; done
{ seq -f 'int f%g(void);' 40; echo 'int main(void) { return ('; seq -f 'f%g() +' 40; echo '0) != 820; }'; } >srv/build/main.c
printf 'program: $(patsubst %%.c,%%.o,$(wildcard *.c))\n\t$(CC) -o $@ $^\n' >srv/build/Makefile
make -s -j2 -C srv/build
srv/build/program || fail "the program is wrong"
make -s -j2 -C srv/build | grep -q . && fail "make works twice"

echo "rsync"
# Times to the nanosecond: by default rsync leaves a directory it has just made with a time of the right second.
copy() { rsync -aHAX --modify-window=-1 "$@"; }
copy usr/share srv/copy
[ -z "$(copy -ni --delete usr/share srv/copy)" ] || fail "rsync sees differences within the mount"
copy "$disks/v1/usr/lib" srv/lib
[ -z "$(copy -ni --delete "$disks/v1/usr/lib" srv/lib)" ] || fail "rsync sees differences from outside"

echo "tar"
mkdir srv/tar "$work/tar"
tar --xattrs --acls -cf - -C "$disks/v1" etc usr/bin | tar --xattrs --acls -xpf - -C srv/tar
"$compare" "$disks/v1/etc" srv/tar/etc || fail "tar in"
tar --xattrs --acls -cf - -C srv/tar . | tar --xattrs --acls -xpf - -C "$work/tar"
"$compare" srv/tar "$work/tar" || fail "tar out"

echo "the version is what was seen"
cd /
copy "$edit/" "$work/seen/"
mirage umount "$edit" -m work --tag work
mirage mount "$work/mnt"
"$compare" "$work/seen" "$work/mnt/debian/work" || fail "the version differs from the mount"
mirage umount "$work/mnt"
mirage fsck
echo passed
