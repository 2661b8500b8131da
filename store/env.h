// The only road from the store to the disk: files, directories, syncs, locks. Faults are injected here
// (tests/testing/fault_env.h); RocksDB is handed the same road (rocksdb_env.h). Paths are host paths; errors name them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/result.h"

namespace mirage {

enum class OpenMode {
  kRead,      // must exist
  kCreate,    // must not exist (EEXIST); read and write, 0600 or as ShareLikeItsDirectory says
  kReadWrite, // must exist
  kOpenOrCreate,
};

// One open file. Reads and writes at disjoint offsets may run on several threads at once.
class File {
 public:
  virtual ~File() = default;
  // Reads up to `size` bytes at `offset` into `out` (resized); short only at end of file.
  virtual Status ReadAt(uint64_t offset, size_t size, std::string* out) const = 0;
  virtual Status WriteAt(uint64_t offset, std::string_view bytes) = 0;  // all or an error
  virtual Status Truncate(uint64_t size) = 0;
  virtual Status Sync() = 0;  // fdatasync: the data and the size survive a power cut
  // A hint: these bytes are final, and a Sync will come. The kernel may begin with them.
  virtual void WillSync(uint64_t /*offset*/, uint64_t /*size*/) {}
  virtual Result<uint64_t> Size() const = 0;
  virtual int descriptor() const = 0;  // for flock and mmap; -1 where there is none
};

struct FileInfo {
  bool is_directory = false;
  uint64_t size_bytes = 0;
};

class Env {
 public:
  virtual ~Env() = default;
  virtual Result<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) = 0;
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  virtual Status Link(const std::string& from, const std::string& to) = 0;  // a hard link; EEXIST is an error
  virtual Status Unlink(const std::string& path) = 0;
  // EEXIST is an error. `mode`, or as ShareLikeItsDirectory says.
  virtual Status MakeDirectory(const std::string& path, unsigned mode) = 0;
  virtual Status RemoveDirectory(const std::string& path) = 0;                // must be empty
  virtual Status SyncDirectory(const std::string& path) = 0;                  // names in it survive a power cut
  virtual Result<std::vector<std::string>> List(const std::string& path) = 0; // names, sorted, without . and ..
  virtual Result<FileInfo> Stat(const std::string& path) = 0;                 // follows no final symlink; ENOENT

  static Env& Default();  // the real disk
};

// Who may use a library is told by its directories alone. One that its group may write in and that hands its group on
// (2770: `mirage init --shared`) shares what is made in it: files are 0660 and directories 2770 again, whatever the
// umask. In any other this changes nothing. For what was just made at `path` by another road than Env's; `descriptor`:
// it, if it is open. What another member made, who has a mode of his own for it, is left.
Status ShareLikeItsDirectory(const std::string& path, int descriptor = -1);

// Whole small files. WriteFileAtomically: temporary name, write, sync, rename, sync of the directory.
Result<std::string> ReadWholeFile(Env& env, const std::string& path, uint64_t limit_bytes);
Status WriteFileAtomically(Env& env, const std::string& path, std::string_view bytes);
// Removes a directory and what is below it, following no symlink. A missing one is not an error.
Status RemoveTree(Env& env, const std::string& path);

}  // namespace mirage
