#!/bin/bash
# A machine goes down with three edits mounted, one from fstab, one as a service, one by an administrator who still works in it; nobody
# unmounts. A real systemd does it, in a container (systemd-nspawn) of a Debian made for it. Each edit is a version afterwards.
. "$(dirname "$0")/../cli/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root"
[ -e /dev/fuse ] || skip "no /dev/fuse"
for program in systemd-nspawn debootstrap; do command -v $program >/dev/null || skip "$program is not installed"; done
rm -rf "$work"
work=$(mktemp -d /var/tmp/mirage-systemd.XXXXXX)  # not in memory
tree=$work/tree MIRAGE_LIBRARY=$work/tree/var/lib/mirage
debootstrap --variant=minbase --include=systemd-sysv,fuse3 bookworm "$tree" >"$work/debootstrap.log" 2>&1 ||
  { tail -5 "$work/debootstrap.log" >&2; skip "no Debian could be made"; }

# The programs, with the libraries they need.
install "$MIRAGE_BIN/mirage" "$MIRAGE_BIN/mirfs" "$tree/usr/bin"
ln -s /usr/bin/mirfs "$tree/sbin/mount.mirfs"
ldd "$MIRAGE_BIN/mirage" "$MIRAGE_BIN/mirfs" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
  while read -r file; do
    [ -e "$tree$file" ] || [ -e "$tree/usr$file" ] || install "$file" "$tree/usr/local/lib"
  done
chroot "$tree" /sbin/ldconfig

mkdir "$work/base"
echo base >"$work/base/file"
expect 0 "$mirage" init
for branch in one two three; do
  expect 0 "$mirage" import "$work/base" $branch
  mkdir -p "$tree/srv/$branch"
done

echo "/var/lib/mirage /srv/one mirfs edit=one 0 0" >"$tree/etc/fstab"
sed -e 's/^ExecStart=.*/ExecStart=\/usr\/bin\/mirfs \/var\/lib\/mirage \/srv\/two -f -o edit=two/' -e 's/\/mnt\/mirage/\/srv\/two/' \
  "$MIRAGE_SOURCE/examples/mirfs.service" >"$tree/etc/systemd/system/mirfs-two.service"
grep -q 'edit=two' "$tree/etc/systemd/system/mirfs-two.service" || fail "examples/mirfs.service is not what it was"
cat >"$tree/etc/systemd/system/administrator.service" <<'END'
[Unit]
RequiresMountsFor=/srv/one
Requires=mirfs-two.service
After=mirfs-two.service local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/mirage mount /srv/three --edit three
ExecStart=/bin/sh -c 'for branch in one two three; do echo "work on $branch" >/srv/$branch/proof || exit 1; done; cd /srv/three && sleep infinity &'
ExecStart=/bin/touch /done
ExecStart=/bin/systemctl --no-block halt

[Install]
WantedBy=multi-user.target
END
# What the sanitizers want to know, where there are some.
mkdir -p "$tree/etc/systemd/system.conf.d"
printf '[Manager]\nDefaultEnvironment="ASAN_OPTIONS=%s" "UBSAN_OPTIONS=%s"\n' "${ASAN_OPTIONS:-}" "${UBSAN_OPTIONS:-}" \
  >"$tree/etc/systemd/system.conf.d/environment.conf"
for unit in administrator mirfs-two; do
  mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
  ln -s /etc/systemd/system/$unit.service "$tree/etc/systemd/system/multi-user.target.wants/"
done

timeout 300 systemd-nspawn --quiet --register=no --keep-unit --directory="$tree" --bind=/dev/fuse --console=read-only --boot \
  >"$work/console" 2>&1 </dev/null || true
[ -e "$tree/done" ] || { tail -40 "$work/console"; fail "the container did not come so far"; }
for branch in one two three; do
  expect 0 "$mirage" cat $branch:proof
  out_is "work on $branch"
  expect 0 "$mirage" --json log $branch
  [ "$(wc -l <"$work/out")" -eq 2 ] || fail "$branch: not two versions"
done
expect 0 "$mirage" --json overlay list
out_is ''
expect 0 "$mirage" -q fsck
finish
