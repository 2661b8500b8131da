// Import: a disk image, a directory, a tar archive or a container image becomes the next version of a branch, or nothing
// at all. Publish is the last step: an import that fails or is interrupted leaves the library as it was; of an import
// with `layers` the layers stay that were done.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "indexer/name_memory.h"
#include "store/library.h"

namespace mirage {

struct ImportOptions {
  std::string source;   // a host path; "-": an archive from standard input
  std::vector<std::string> more_disks;  // further disks of the same machine, in order
  std::string branch;
  std::string tag;      // empty: the next vN
  std::string message;
  std::string parent;   // a revision; empty: the branch's head, if there is one
  std::string format;   // "" detect | raw | qcow2 | tar | oci | docker | directory
  std::string reader = "auto";  // of a disk: auto | guestfs | direct (IMPORT.md)
  bool paranoid = false;      // read every file, also those that have not changed by all that the source says of them
  std::string image, platform;  // of a container archive: which image, OS/ARCH[/VARIANT] (container_image.h)
  bool layers = false;          // of a container image: a version for each layer, the tag for the last
  std::vector<std::string> keys;  // to encrypted disks (guest_keys.h)
  bool skip_unreadable = false;   // of a disk: a filesystem that cannot be read is left out, and recorded
  uint64_t name_bytes = kNameMemoryBytes;  // what names of archives, and those of hard links, may take (name_memory.h)
  bool allow_empty = false;   // a version even if nothing changed
  bool progress_bar = false;  // stderr is a terminal that may be drawn on; otherwise plain lines, if `say` is given
  std::vector<std::string> exclude;  // patterns beside the policy's (exclusion.h): "/var/cache/*"
  std::function<void(std::string_view)> say;      // one line for the user, without newline; empty: quiet
  const std::atomic<bool>* interrupted = nullptr;  // set from a signal handler: the import stops with EINTR
};

// What the manifest names as the version's source, but for which image of a container archive: " (NAME)" behind it.
std::string SourceName(const ImportOptions& options);

struct ImportReport {
  std::vector<Published> layers;  // of an import with `layers`: the versions made, the last among them
  bool changed = false;   // false: the parent holds the same tree and links, and no version was made
  Published version;      // the new version, or the parent when nothing changed
  uint64_t files = 0;     // entries below the root
  uint64_t bytes = 0;     // sum of the regular files' sizes
  uint64_t unchanged_files = 0;  // files that were not read again, because they had not changed (IMPORT.md)
  uint64_t known_files = 0;      // files that were read and known again by their fingerprint
  uint64_t new_bytes = 0; // what the version adds to the library
  uint64_t restored_bytes = 0;  // without a version: what the library had lost of the one that says the same
  double seconds = 0;
  double appliance_seconds = 0;  // of these until libguestfs was up; 0 for a directory
  double inspection_seconds = 0; // and of these to find and mount what is on the disk
  std::vector<std::string> omissions;
  std::vector<Disk> disks;
  ObjectId tree;          // of the root directory
};

// EINVAL: a bad name, pattern or format, or a source that holds no files. ENOENT, EACCES: of the source. A branch that
// another moved meanwhile is followed: the version's parent is the head it finds. EAGAIN: that was not possible (the branch was
// deleted, or made although --parent was given for it, or others were first again and again). EBUSY: the wait for the library's lock
// was in vain; the message names who holds it. EEXIST: the tag is taken. EINTR: interrupted. ENOSPC and EIO: of the library or the source.
Result<ImportReport> Import(Library& library, const ImportOptions& options);

}  // namespace mirage
