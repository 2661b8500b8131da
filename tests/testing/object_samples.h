// Entries and a manifest that use every member, for tests of encodings. Their bytes are FORMAT.md's examples in part:
// do not change what SampleEntries().front() and SmallManifest() give.
#pragma once

#include <string>
#include <vector>

#include "store/object.h"

namespace mirage::testing {

inline std::vector<Entry> SampleEntries() {
  Entry file;
  file.mode = 0644;
  file.uid = 1000;
  file.gid = 100;
  file.mtime_sec = 1'700'000'000;
  file.mtime_nsec = 123'456'789;
  file.size = 6;
  file.id = HashBytes("hello\n");
  Entry empty;
  empty.id = kEmptyContentId;
  Entry old = file;
  old.mtime_sec = -1;
  old.mode = 06755;
  old.xattrs = HashBytes("xattrs");
  Entry directory;
  directory.type = FileType::kDirectory;
  directory.mode = 01777;
  directory.size = 3;
  directory.id = HashBytes("tree");
  Entry link;
  link.type = FileType::kSymlink;
  link.mode = 0777;
  link.target = "../lib";
  link.size = link.target.size();
  link.xattrs = HashBytes("xattrs");
  Entry long_link;
  long_link.type = FileType::kSymlink;
  long_link.size = 300;
  long_link.id = HashBytes("target");
  Entry disk;
  disk.type = FileType::kBlockDevice;
  disk.rdev_major = 8;
  disk.rdev_minor = 0xfffff;
  Entry terminal;
  terminal.type = FileType::kCharDevice;
  terminal.rdev_major = 5;
  Entry fifo;
  fifo.type = FileType::kFifo;
  Entry socket;
  socket.type = FileType::kSocket;
  socket.xattrs = HashBytes("xattrs");
  return {file, empty, old, directory, link, long_link, disk, terminal, fifo, socket};
}

inline Manifest SmallManifest() {
  Manifest manifest;
  manifest.root.type = FileType::kDirectory;
  manifest.root.mode = 0755;
  manifest.root.id = HashBytes("tree");
  manifest.branch = "debian";
  manifest.author = "eva@host";
  manifest.time_sec = 1'700'000'000;
  manifest.message = "first";
  manifest.file_count = 1;
  manifest.total_bytes = 6;
  manifest.disks = {{.name = "sda", .role = "system", .size_bytes = 1 << 30, .sha256 = {}, .skeleton = {}}};
  return manifest;
}

inline Manifest SampleManifest() {
  Manifest manifest = SmallManifest();
  manifest.links = HashBytes("links");
  manifest.inspection = HashBytes("inspection");
  manifest.parents = {HashBytes("p2"), HashBytes("p1")};
  manifest.source = "disk.qcow2 \xff";
  manifest.time_nsec = 999'999'999;
  manifest.disks.push_back(
      {.name = "sdb", .role = "", .size_bytes = 0, .sha256 = HashBytes("d"), .skeleton = HashBytes("s")});
  manifest.mounts = {{"/", "ext4", "/dev/sda2"}, {"/boot", "vfat", "/dev/sda1"}};
  manifest.omissions = {"/run/socket: a tar holds no sockets", "/a", "/a"};
  return manifest;
}

}  // namespace mirage::testing
