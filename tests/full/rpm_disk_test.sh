#!/bin/bash
# An rpm system, made by rpmbuild and `rpm --root` (no repository is needed): packages with epochs, with ~ and ^ in their
# versions, of several architectures. As disks of two versions, one of ext4, by both readers, and one of XFS; as a
# directory and as a container image. All give the same files, the same system and the same packages, those that rpm lists.
. "$(dirname "$0")/../cli/lib.sh"

[ "$(id -u)" = 0 ] || skip "installing packages into a tree needs root"
for program in rpmbuild rpm supermin guestfish mkfs.ext4 mkfs.xfs umoci setcap; do
  command -v "$program" >/dev/null || skip "$program is not installed"
done
expect 0 "$mirage" init
emulate_if_needed

# package NAME [EPOCH:]VERSION-RELEASE ARCH FILE...: builds it, of files below $work/files.
mkdir "$work/files" "$work/build"
package() {
  local name=$1 version=$2 arch=$3 epoch= file
  shift 3
  case $version in *:*) epoch=${version%%:*} version=${version#*:} ;; esac
  {
    printf 'Name: %s\nVersion: %s\nRelease: %s\n' "$name" "${version%-*}" "${version##*-}"
    [ -z "$epoch" ] || echo "Epoch: $epoch"
    [ "$arch" != noarch ] || echo 'BuildArch: noarch'
    printf 'Summary: a test\nLicense: none\nAutoReqProv: no\n%%description\nA test.\n%%install\n'
    printf 'mkdir -p %%{buildroot}\ncp -a %s/files/. %%{buildroot}\n%%files\n' "$work"
    for file in "$@"; do echo "$file"; done
  } >"$work/spec"
  rpmbuild --quiet -bb --target "$arch" --define "_topdir $work/build" --define "__os_install_post %{nil}" \
    --define 'debug_package %{nil}' --define '_build_id_links none' --define '_unpackaged_files_terminate_build 0' \
    "$work/spec" >"$work/rpm.log" 2>&1 || { cat "$work/rpm.log"; fail "rpmbuild $name"; }
}
# rpm_in TREE ARGUMENTS: the database as Fedora has it.
rpm_in() {
  local tree=$1
  shift
  rpm --root "$tree" --define '_db_backend sqlite' --define '_dbpath /usr/lib/sysimage/rpm' "$@"
}

files=$work/files
mkdir -p "$files"/{etc,usr/bin,usr/lib,usr/lib64,usr/share/doc,var/lib,home,root,boot}
ln -s usr/bin "$files/bin"
ln -s usr/lib64 "$files/lib64"
ln -s ../usr/lib/os-release "$files/etc/os-release"
ln -s ../../usr/lib/sysimage/rpm "$files/var/lib/rpm"
printf 'NAME="Fedora Linux"\nVERSION="39 (Server Edition)"\nID=fedora\nVERSION_ID=39\nPRETTY_NAME="Fedora Linux 39 (Server Edition)"\n' \
  >"$files/usr/lib/os-release"
echo 'Fedora release 39 (Thirty Nine)' | tee "$files/etc/fedora-release" >"$files/etc/redhat-release"
cp /bin/true "$files/usr/bin/bash"
cp /bin/true "$files/usr/bin/openssl"
cp /bin/true "$files/usr/bin/ping"
seq 1000 >"$files/usr/lib64/libssl.so.3.0.9"
ln -s libssl.so.3.0.9 "$files/usr/lib64/libssl.so.3"
seq 900 >"$files/usr/lib/libssl.so.3.0.9"
echo old >"$files/usr/lib/tool"
ln "$files/usr/lib/tool" "$files/usr/lib/tool-link"
package filesystem 3.18-6.fc39 x86_64 /bin /lib64 /home /root /boot /var/lib/rpm
package fedora-release 39-30 noarch /etc/os-release /usr/lib/os-release /etc/fedora-release /etc/redhat-release
package bash 5.2.15-5.fc39 x86_64 /usr/bin/bash
package openssl 1:3.0.9-2.fc39 x86_64 /usr/bin/openssl
package openssl-libs 1:3.0.9-2.fc39 x86_64 /usr/lib64/libssl.so.3.0.9 /usr/lib64/libssl.so.3
package openssl-libs 1:3.0.9-2.fc39 i686 /usr/lib/libssl.so.3.0.9
package iputils 20230101-1.fc39 x86_64 '%caps(cap_net_raw=ep) %attr(0755,root,root) /usr/bin/ping'
package tool '2.5^20230901git1a2b-1.fc39' noarch /usr/lib/tool /usr/lib/tool-link
package beta '1.0~rc1-1.fc39' noarch
rpms=$work/build/RPMS
rpm_in "$work/v1" -i --ignorearch "$rpms"/*/*.rpm || fail "rpm -i"
echo fedora-host >"$work/v1/etc/hostname"
echo '127.0.0.1 localhost' >"$work/v1/etc/hosts"
# The name of a disk that is neither's: it is the one and only filesystem, and the root.
echo '/dev/sda1 / auto defaults 0 1' >"$work/v1/etc/fstab"

# The second version: two packages upgraded, one downgraded to another release, one gone, one new.
cp -a "$work/v1" "$work/v2"
rm -r "$rpms"
echo new >"$files/usr/lib/tool"
package openssl 1:3.0.11-1.fc39 x86_64 /usr/bin/openssl
package beta 1.0-1.fc39 noarch
package extra 2-1 aarch64
rpm_in "$work/v2" -U --ignorearch "$rpms"/*/*.rpm || fail "rpm -U"
rpm_in "$work/v2" -e iputils || fail "rpm -e"

rpm_in "$work/v1" -qa --qf '%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE} %{ARCH}\n' | sort >"$work/listed"
# mke2fs -d takes times to the second.
find "$work/v1" "$work/v2" -exec touch -h -d '2023-09-01 12:00:00Z' {} +
# ext4_disk TREE DISK
ext4_disk() {
  truncate -s 96M "$2"
  printf 'label:gpt\nstart=2048\n' | sfdisk -q "$2"
  mkfs.ext4 -q -F -d "$1" -E offset=1048576 "$2" 94M
}
ext4_disk "$work/v1" "$work/one.img"
ext4_disk "$work/v2" "$work/two.img"
tar -C "$work/v1" --xattrs --xattrs-include='*' --acls --numeric-owner -cf "$work/v1.tar" .
truncate -s 400M "$work/xfs.img"
printf 'label:gpt\nstart=2048\n' | sfdisk -q "$work/xfs.img"
guestfish <<END || fail "guestfish cannot make the XFS"
add $work/xfs.img format:raw
run
mkfs xfs /dev/sda1
mount /dev/sda1 /
tar-in $work/v1.tar / xattrs:true acls:true
umount-all
END

json() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p" "$2"; }
import() {  # import NAME ARGUMENTS...: and its tree's id in $NAME
  local name=$1
  shift
  expect 0 "$mirage" --json import "$@"
  printf -v "$name" '%s' "$(json tree "$work/out")"
}
import direct --reader direct "$work/one.img" fedora/v1
import guest --reader guestfs "$work/one.img" guest/v1
[ "$direct" = "$guest" ] || fail "the readers' trees differ: $direct and $guest"
facts() { "$mirage" show "$1" | grep -vE '^(version|tags?|parent|time|author|source|branch|id|disk|manifest|files|$)|v1$|^message'; }
facts fedora >"$work/wanted"
facts guest >"$work/got"
diff "$work/wanted" "$work/got" || fail "show differs between the readers"
expect 0 "$mirage" show fedora
out_has '^system: Fedora Linux 39 \(Server Edition\)'
out_has '^distribution: fedora 39$'
out_has '^hostname: fedora-host$'
out_has '^arch: x86_64$'

# What rpm itself lists.
for version in fedora guest; do
  expect 0 "$mirage" packages $version
  sort "$work/out" | diff "$work/listed" - || fail "packages of $version are not what rpm lists"
done
expect 0 "$mirage" packages fedora
out_has '^openssl 1:3\.0\.9-2\.fc39 x86_64$'
out_has '^openssl-libs 1:3\.0\.9-2\.fc39 i686$'
out_has '^openssl-libs 1:3\.0\.9-2\.fc39 x86_64$'
out_has '^tool 2\.5\^20230901git1a2b-1\.fc39 noarch$'

# The same from XFS, from the directory, and from a container image of it.
import xfs "$work/xfs.img" xfs/v1
err_has 'through the appliance'
import tree "$work/v1" tree/v1
umoci init --layout "$work/oci" && umoci new --image "$work/oci:v1" && umoci insert --image "$work/oci:v1" "$work/v1" / ||
  fail "umoci"
import container "$work/oci" container/v1
[ "$xfs" = "$tree" ] || { "$mirage" diff tree xfs; fail "the trees of XFS and of the directory differ"; }
expect 1 "$mirage" diff tree fedora
out_is $'m /\nA /lost+found'  # the root directory is mke2fs's own
for version in xfs tree container; do
  expect 0 "$mirage" diff --packages fedora $version
  expect 0 "$mirage" show $version
  out_has '^system: Fedora Linux 39 \(Server Edition\)'
  out_has '^distribution: fedora 39$'
  out_has '^hostname: fedora-host$'
  out_has '^arch: x86_64$'
done

# The second version: what has changed, in rpm's order.
import second --reader direct "$work/two.img" fedora/v2
import guest_second --reader guestfs "$work/two.img" guest/v2
[ "$second" = "$guest_second" ] || fail "the readers' trees differ in the second version"
expect 0 "$mirage" diff --packages fedora guest
expect 1 "$mirage" diff --packages fedora/v1 fedora/v2
out_is "M beta:noarch 1.0~rc1-1.fc39 -> 1.0-1.fc39
A extra:aarch64 2-1
D iputils:x86_64 20230101-1.fc39
M openssl:x86_64 1:3.0.9-2.fc39 -> 1:3.0.11-1.fc39"
expect 0 "$mirage" find --package 'openssl<3.0.11' fedora guest
out_is $'fedora/v1 openssl 1:3.0.9-2.fc39 x86_64\nguest/v1 openssl 1:3.0.9-2.fc39 x86_64'
expect 0 "$mirage" find --package 'openssl<3.0.11' --heads fedora
out_is ''
expect 0 "$mirage" find --package 'openssl>=1:3.0.11' fedora
out_is 'fedora/v2 openssl 1:3.0.11-1.fc39 x86_64'
expect 0 "$mirage" find --package 'openssl<0:3.0.11' fedora  # with an epoch, epochs count
out_is ''
expect 0 "$mirage" find --package 'beta<1.0' fedora
out_is 'fedora/v1 beta 1.0~rc1-1.fc39 noarch'
expect 0 "$mirage" find --package 'tool>2.5' guest
out_is $'guest/v1 tool 2.5^20230901git1a2b-1.fc39 noarch\nguest/v2 tool 2.5^20230901git1a2b-1.fc39 noarch'
expect 0 "$mirage" find --package 'tool<2.5.1' guest
out_has 'guest/v1 tool'
expect 0 "$mirage" fsck
finish
