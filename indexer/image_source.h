// Where a version's files come from. A source pushes what it finds into a sink, in the order that suits it: ids never
// depend on the order of arrival. It knows nothing of trees, packs and refs.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/object.h"
#include "store/result.h"
#include "store/source_facts.h"

namespace mirage {

// A filesystem whose kernel stamps every change of a file with its clock (ctime), so that a file that has kept its inode
// number, size and times has kept its bytes.
struct SourceFilesystem {
  std::string identity;  // by which it is known again
  int64_t made_sec = INT64_MIN;  // what has a ctime up to here was put there by whoever made the filesystem
  // When reading began, by the filesystem's own clock. Nothing: it is at rest, and its newest ctime stands for that.
  std::optional<int64_t> clock_sec;
};

// Of a filesystem on a disk; `subvolume`: of btrfs, whose subvolumes count their inodes each for itself.
inline std::string FilesystemIdentity(const std::string& uuid, const std::string& subvolume = {}) {
  return subvolume.empty() ? "uuid " + uuid : "uuid " + uuid + " " + subvolume;
}

// A content of the library, by what it is known again with.
struct LikelyContent {
  ObjectId content;
  uint64_t size = 0;
  FingerprintKey key;
  Fingerprint fingerprint;
};

// What one import takes in. Not thread-safe: a source calls it from one thread at a time. After an error the source
// stops and returns that error. Paths have no leading slash; "" is the root directory.
class ImportSink {
 public:
  virtual ~ImportSink() = default;

  // Whether the path, or a directory above it, is left out on the user's wish. A source asks in order to save work;
  // what it gives nevertheless is dropped.
  virtual bool Excluded(std::string_view path) const = 0;

  // Anything but a regular file. In `entry` id, xattrs, size and target are left empty; a symlink's target comes in
  // `target`, whatever its length. A path that comes twice counts once: the last one holds.
  virtual Status Add(std::string path, Entry entry, const XattrSet& xattrs, std::string target) = 0;
  // A regular file and its bytes: whole, or in pieces between BeginFile and EndFile with no other call but AppendFile,
  // AppendHole and CountHole. Its size is the number of bytes given. A hole may have any length. E2BIG: more than one
  // import may have of them, all files together.
  virtual Status AddFile(std::string path, Entry entry, const XattrSet& xattrs, std::string bytes) = 0;
  virtual Status BeginFile(std::string path, Entry entry, const XattrSet& xattrs) = 0;
  virtual Status AppendFile(std::string_view bytes) = 0;
  virtual Status AppendHole(uint64_t length) = 0;
  virtual Status EndFile() = 0;
  // Zeros that cost the source no bytes of its own but come as such: they count as a hole. E2BIG.
  virtual Status CountHole(uint64_t /*length*/) { return {}; }
  // Another name of what was added before under `first`: the same entry, and one hard-link group with it.
  virtual Status AddLink(std::string path, std::string first) = 0;

  // ---- What has not changed since the last import need not be read again. A source that cannot tell leaves these alone.
  // The index for FileFacts; nothing: facts are of no use to this sink.
  virtual std::optional<uint32_t> AddFilesystem(SourceFilesystem) { return std::nullopt; }
  // Notes the facts of a path, which the source then adds in one way or another. True: the path is in a version that the
  // library has with the same facts, attributes and size, and may be added by AddUnchanged. `entry` as for Add.
  virtual bool Unchanged(const std::string& /*path*/, const Entry& /*entry*/, uint64_t /*size*/, const FileFacts&) {
    return false;
  }
  // Right behind Unchanged for the same path: everything is taken from that version, but for `xattrs` where they are given
  // (and of a directory what is in it).
  virtual Status AddUnchanged(std::string /*path*/, const XattrSet* /*xattrs*/) { return Fail(ENOSYS, "not kept"); }

  // The content that a regular file probably has, to judge by its size, and of a large file by its mtime too; the library
  // has it. A source that can read a large file twice takes the fingerprint of its bytes first. If it is that one the file
  // is given by AddLikely, and its bytes are not.
  virtual std::optional<LikelyContent> Likely(const std::string& /*path*/, const Entry& /*entry*/, uint64_t /*size*/) {
    return std::nullopt;
  }
  // A regular file whose bytes have the fingerprint of what Likely named.
  virtual Status AddLikely(std::string /*path*/, Entry /*entry*/, const XattrSet& /*xattrs*/, const LikelyContent&) {
    return Fail(ENOSYS, "not kept");
  }

  // An entry as a version of this library has it, with its content and attributes, but of a directory not what is in it.
  // The caller keeps that version from being collected.
  virtual Status AddStored(std::string path, Entry entry) = 0;

  // What is to be expected in all, for the progress bar; 0: unknown.
  virtual void Expect(uint64_t bytes) = 0;
  // What the source is doing before the first entry comes: "starting the appliance".
  virtual void Stage(std::string_view what) = 0;
  // A sentence for the manifest, which is also shown at the end: what the source had and the version has not.
  virtual void Omit(std::string sentence) = 0;
  // A line for the user.
  virtual void Say(std::string_view line) = 0;
};

// What a source knows about the whole. Filled in by Read.
struct SourceDescription {
  std::vector<Disk> disks;
  std::vector<Mount> mounts;   // sorted by path
  std::string inspection;      // canonical JSON; empty: it is made of the files that came, where they tell of a system
  std::string os, arch;        // what the source says of such a system; empty: nothing
  std::string container;       // what a container image says of how it is run: a JSON object; empty: none
  std::string layers;          // and the chain of its layers (layer_history.h)
  double appliance_seconds = 0, inspection_seconds = 0;  // of a disk that is read through the appliance
};

class ImageSource {
 public:
  virtual ~ImageSource() = default;
  // Pushes everything, each entry's parent directory included. May be called once. EINTR when interrupted.
  virtual Result<SourceDescription> Read(ImportSink& sink) = 0;
};

// Files of at most this size are handed over whole, and cost one copy; larger ones are streamed.
constexpr uint64_t kWholeFileBytes = 4 << 20;

}  // namespace mirage
