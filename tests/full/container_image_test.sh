#!/bin/bash
# A real Debian tree (examples/make_disks.sh) as a container image of several layers, made by buildah, which is what podman
# builds with, and one layer more by umoci: whiteouts, an opaque directory, hard links, attributes, a configuration. As
# an OCI layout and as a docker-archive it is, entry by entry, what umoci unpacks and what buildah mounts. By layers: a
# version for each, of which the next build of the image makes only the new ones.
# $MIRAGE_TEST_DISKS: as in debian_disk_test.sh.
. "$(dirname "$0")/../cli/lib.sh"

disks=${MIRAGE_TEST_DISKS:-/var/tmp/mirage-quickstart}
[ "$(id -u)" = 0 ] || skip "unpacking an image needs root"
for program in buildah umoci setfattr; do
  command -v "$program" >/dev/null || skip "$program is not installed"
done
"$MIRAGE_SOURCE/examples/make_disks.sh" "$disks" || skip "no Debian tree could be made"
rm -rf "$work"
work=$(mktemp -d /var/tmp/mirage-container.XXXXXX)  # not in memory
export MIRAGE_LIBRARY=$work/library
expect 0 "$mirage" init

export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot  # no privileges but root's
# build_in STORAGE ARGUMENTS...: buildah with images of its own there.
build_in() {
  local storage=$1
  shift
  buildah --root "$work/$storage/images" --runroot "$work/$storage/run" "$@" >"$work/buildah.log" 2>&1 ||
    { cat "$work/buildah.log"; fail "buildah $1"; return 1; }
}
mkdir "$work/context" "$work/context/new"
setfattr -n user.note -v kept "$disks/v1/etc/issue"
tar -C "$disks/v1" --xattrs --xattrs-include='*' --numeric-owner -cf "$work/context/root.tar" .
setfattr -x user.note "$disks/v1/etc/issue"
seq 1000 >"$work/context/new/numbers"
cat >"$work/context/Containerfile" <<'END'
FROM scratch
ADD root.tar /
RUN rm -r /usr/share/doc /usr/share/man && mkdir -p /srv/app/deep && echo one >/srv/app/one && \
    ln /srv/app/one /srv/app/deep/link && mkfifo /srv/fifo && chmod 4755 /srv/app/one && chown 12345:54321 /srv/fifo
RUN rm -rf /srv/app && mkdir /srv/app && echo three >/srv/app/three && rm /etc/issue.net && chmod 0700 /root && \
    mv /usr/bin/perl /usr/bin/perl-moved && ln -s perl-moved /usr/bin/perl && rmdir /mnt && echo file >/mnt
ENV A=b
COPY new /opt/
ENTRYPOINT ["/bin/sh"]
END
build_in made bud --layers -t app:v1 "$work/context" && build_in made push app:v1 "oci:$work/oci:v1" &&
  build_in made push app:v1 "docker-archive:$work/docker.tar:app:v1" || finish
mkdir -p "$work/opaque/sub"
echo only >"$work/opaque/sub/file"
umoci insert --image "$work/oci:v1" --tag v2 --opaque "$work/opaque" /usr/share/perl5 || fail "umoci insert"

for tag in v1 v2; do
  expect 0 umoci unpack --image "$work/oci:$tag" "$work/$tag"
  expect 0 "$mirage" import "$work/$tag/rootfs" "unpacked-$tag"
  expect 0 "$mirage" import --image "$tag" "$work/oci" "oci-$tag"
  expect 0 "$mirage" diff "unpacked-$tag" "oci-$tag"
  rm -rf "${work:?}/$tag"
done
expect 0 "$mirage" ls -R oci-v2:/usr/share/perl5
out_is $'/usr/share/perl5/sub\n/usr/share/perl5/sub/file'
expect 0 "$mirage" cat oci-v1:/mnt
out_is file
expect 0 "$mirage" import "$work/docker.tar" docker
expect 0 "$mirage" diff oci-v1 docker
build_in other from --name it "docker-archive:$work/docker.tar" &&
  build_in other mount it && mounted=$(tail -1 "$work/buildah.log")
expect 0 "$mirage" import "$mounted" mounted
expect 1 "$mirage" diff mounted docker
out_is 'm /'  # the top directory is buildah's own
build_in other umount it
expect 0 "$mirage" show docker
out_has '^distribution: debian 12'
out_has '^arch: x86_64$'
[ "$("$mirage" packages docker | wc -l)" -gt 50 ] || fail "few packages"
expect 0 "$mirage" diff --packages oci-v1 docker

# By layers.
expect 0 "$mirage" import --image v1 --layers "$work/oci" layers
[ "$(wc -l <"$work/out")" = 4 ] || fail "$(wc -l <"$work/out") versions of 4 layers"
expect 0 "$mirage" diff oci-v1 layers
expect 0 "$mirage" cat layers/v2:/srv/app/deep/link
out_is one
expect 0 "$mirage" cat layers/v2:/etc/issue.net
expect 1 "$mirage" cat layers/v3:/etc/issue.net
[ "$("$mirage" packages layers/v2 | wc -l)" -gt 50 ] || fail "few packages in a layer that brings none"
expect 0 "$mirage" import --layers "$work/docker.tar" layers
out_is 'no changes'
expect 0 "$mirage" import --image v2 --layers "$work/oci" layers/opaque
[ "$(wc -l <"$work/out")" = 1 ] || fail "more than the new layer was made"
out_has '^layers/opaque '
expect 0 "$mirage" diff oci-v2 layers

# The next build: the lower layers are buildah's old ones, the last is another.
seq 2000 >"$work/context/new/numbers"
build_in made bud --layers -t app:v3 "$work/context" && build_in made push app:v3 "docker-archive:$work/next.tar:app:v3"
expect 0 "$mirage" import --layers "$work/next.tar" layers
[ "$(wc -l <"$work/out")" = 1 ] || fail "more than the new layer was made"
expect 0 "$mirage" import "$work/next.tar" next
expect 0 "$mirage" diff next layers
expect 0 "$mirage" diff layers~2:/usr layers:/usr
expect 0 "$mirage" fsck
finish
