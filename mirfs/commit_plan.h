// What a commit has to write: the directories of an overlay that differ from its base, and in them the names that do.
// Made by one walk that descends only where the overlay holds a change; file contents are handed to a transaction on the way,
// in tree order. Build turns the plan into trees when the contents are known.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mirfs/overlay.h"
#include "store/library.h"
#include "store/tree_reader.h"
#include "store/tree_writer.h"

namespace mirage {

class CommitPlan {
 public:
  // All must outlive it. `transaction` takes the contents and the trees.
  CommitPlan(Library& library, const Overlay& overlay, Transaction& transaction);
  ~CommitPlan();

  // The root, links, file_count and total_bytes of the new version; all else is as in `base`.
  Result<Manifest> Build(const Manifest& base);
  // Paths whose changes mirage.yaml keeps from being committed; valid after Build.
  const std::vector<std::string>& excluded() const { return excluded_; }

 private:
  struct Directory;
  struct Item {
    std::string name;
    bool removed = false;
    uint64_t inode = 0;                    // of what is not a directory
    std::unique_ptr<Directory> directory = nullptr;
  };
  struct Directory {
    Entry entry;                           // without id and size
    ObjectId base;                         // zero: nothing below
    uint64_t base_subdirectories = 0;
    std::vector<Item> items;               // sorted by name
  };
  // Base paths at or below which something changed.
  struct Changes {
    std::map<std::string, Changes, std::less<>> below;
  };
  // What a file's bytes became.
  struct FileContent {
    ObjectId id;
    uint64_t size = 0;
    struct timespec mtime {};
  };
  struct Totals {
    int64_t files = 0, bytes = 0;
  };

  Status Load(const Manifest& base);
  const Changes* ChangesAt(std::string_view path) const;
  // `record` may be null (then only `lower` says what it is).
  Result<std::unique_ptr<Directory>> PlanDirectory(uint64_t inode, const InodeRecord* record, const Entry* lower,
                                                   const std::string& origin, const Changes* changes,
                                                   const std::string& path);
  Result<Item> PlanItem(const std::string& name, uint64_t inode, const InodeRecord& record, const std::string& path);
  Status PlanContent(uint64_t inode, const InodeRecord& record);
  void KeepLinks(const std::string& origin, const std::string& path, const std::set<std::string, std::less<>>& handled);
  bool IsExcluded(const std::string& path) const;
  Status Count(const Entry& entry, int sign);              // an entry and what is below it, as the base has it
  Result<Entry> BuildDirectory(const Directory& directory);
  Result<Entry> EntryOf(uint64_t inode, const InodeRecord& record);
  Result<ObjectId> XattrsOf(const InodeRecord& record);

  Library& library_;
  const Overlay& overlay_;
  Transaction& transaction_;
  const TreeReader trees_;
  std::unordered_map<uint64_t, InodeRecord> records_;
  std::unordered_map<std::string, uint64_t> by_origin_;
  std::map<std::string, std::string> base_links_;          // path -> first path of its group
  Changes changes_;
  std::unordered_map<uint64_t, std::shared_ptr<FileContent>> contents_;  // shared with the transaction's threads
  std::map<std::string, std::vector<std::string>> links_;  // inode -> its paths in the new version
  std::unordered_map<ObjectId, Totals, ObjectIdHash> counted_;
  Totals totals_;
  std::vector<std::string> excluded_;
};

}  // namespace mirage
