// Metadata of a tree in the appliance, asked for in bulk by directory, before a byte of a file is read: the facts by
// which the next import knows a file again; what need not be read, because it is in the version before; sparse files;
// and what tar(1) does not tell.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "indexer/appliance.h"
#include "indexer/image_source.h"
#include "indexer/path_spool.h"

struct guestfs_statns;

namespace mirage {

// Patterns for tar's --exclude, each of one name, within what one message to the appliance holds. When there are too
// many, those go that save the fewest bytes: what they name is read once more.
class TarExcludes {
 public:
  explicit TarExcludes(size_t limit_bytes) : limit_bytes_(limit_bytes) {}
  // `name` from the top of the tree. False: it cannot be said in a line (libguestfs hands patterns over in a file).
  bool Add(std::string_view name, uint64_t saved_bytes);
  bool AddAllBelow(std::string_view directory, uint64_t saved_bytes);
  void AddPattern(std::string pattern);  // as it is; always kept
  const std::vector<std::string>& patterns();

 private:
  bool Keep(std::string pattern, uint64_t saved_bytes);
  const size_t limit_bytes_;
  size_t bytes_ = 0;
  std::vector<std::string> always_, all_;
  std::multimap<uint64_t, std::string> by_savings_;
};

// A file that is mostly holes, which come as zeros through tar.
struct SparseFile {
  std::string name;  // from the top of the tree
  Entry entry;
  XattrSet xattrs;
  uint64_t size = 0, holes = 0;
};

class TreeScan {
 public:
  struct Options {
    std::string directory, prefix;  // of the appliance; of the version
    const std::map<int64_t, uint32_t>* filesystems =
        nullptr;  // st_dev -> index of the sink's, where ctime is relied on
  };
  TreeScan(Appliance& appliance, ImportSink& sink, Options options, TarExcludes& excludes)
      : appliance_(appliance), sink_(sink), options_(std::move(options)), excludes_(excludes) {}

  // `names`: all below the top. What is added here goes to `handled`: of the stream it must not be taken again. EIO.
  Status Run(PathSpool& names, const std::function<void(const std::string& name)>& handled);
  const std::vector<SparseFile>& sparse() const { return sparse_; }  // to be read; they are excluded already

 private:
  struct Child {        // a directory in a directory
    bool same = false;  // itself
    bool whole = true;  // all in it
    bool empty = true;
    uint64_t bytes = 0;
  };
  struct Frame {
    std::string path;
    std::vector<std::string> pending;  // names, not yet asked about
    bool whole = true;
    std::vector<std::pair<std::string, uint64_t>> same;  // names to leave out, if the directory as a whole is not
    std::map<std::string, Child> directories;
    uint64_t bytes = 0;
  };
  Status Flush(Frame& frame);
  Status Ask(Frame& frame, size_t begin, size_t end);
  Status Leave();
  Result<bool> Take(Frame& frame, const std::string& name,
                    const struct guestfs_statns& st);  // true: it is left out of the stream
  Status TakeOthers(Frame& frame);
  std::string VersionPath(const std::string& name) const;
  std::string GuestPath(const std::string& directory) const;

  Appliance& appliance_;
  ImportSink& sink_;
  const Options options_;
  TarExcludes& excludes_;
  std::function<void(const std::string&)> handled_;
  std::vector<Frame> stack_;
  struct Other {  // tar does not bring it, or must not: attributes are still to be asked for
    std::string name;
    Entry entry;
    uint64_t size, holes;
  };
  std::vector<Other> others_;  // of the frame that is being asked about
  struct First {
    std::string path;  // in the version
    bool added;        // by this scan, so that the others are too
  };
  std::map<std::pair<int64_t, int64_t>, First> firsts_;  // of inodes with several names, by device and number
  std::vector<SparseFile> sparse_;
};

}  // namespace mirage
