// A file tree in memory, with POSIX's answers to operations on it: what a BranchFs and the version it commits are compared
// with. Hard links are one ModelNode under several names. Paths are "a/b", the root is "".
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mirfs/branch_fs.h"
#include "store/library.h"

namespace mirage::testing {

struct ModelNode {
  FileType type = FileType::kRegular;
  uint16_t mode = 0644;
  std::string bytes;  // content, or symlink target
  XattrSet xattrs;
  std::map<std::string, std::shared_ptr<ModelNode>> children;
};
using ModelPtr = std::shared_ptr<ModelNode>;

class ModelTree {
 public:
  ModelTree();
  ModelNode& root() const { return *root_; }
  ModelPtr Find(const std::string& path) const;  // null: none
  // 0 or an errno value.
  int Make(const std::string& path, FileType type, uint16_t mode, const std::string& target = "");
  int Write(const std::string& path, uint64_t offset, const std::string& bytes);
  int Truncate(const std::string& path, uint64_t size);
  int Punch(const std::string& path, uint64_t offset, uint64_t length);
  int Chmod(const std::string& path, uint16_t mode);
  int SetXattr(const std::string& path, const std::string& name, const std::string& value);
  int RemoveXattr(const std::string& path, const std::string& name);
  int Link(const std::string& from, const std::string& to);
  int Unlink(const std::string& path);
  int RemoveDirectory(const std::string& path);
  int Rename(const std::string& from, const std::string& to, unsigned flags = 0);
  std::vector<std::string> Paths() const;  // all but the root, in canonical order
  std::vector<std::vector<std::string>> LinkGroups() const;

  Result<Published> Publish(const std::shared_ptr<Library>& library, const std::string& branch) const;
  // One line for each difference; empty: equal.
  std::string DifferenceFrom(const std::shared_ptr<Library>& library, const ObjectId& manifest) const;

 private:
  int FindParent(const std::string& path, ModelPtr* parent, std::string* name) const;
  ModelPtr root_;
};

// The same operations on a BranchFs; every lookup is forgotten at once, so that nothing lives in memory alone.
class PathFs {
 public:
  explicit PathFs(BranchFs& fs) : fs_(fs) {}
  int Make(const std::string& path, FileType type, uint16_t mode, const std::string& target = "");
  int Write(const std::string& path, uint64_t offset, const std::string& bytes);
  int Truncate(const std::string& path, uint64_t size);
  int Punch(const std::string& path, uint64_t offset, uint64_t length);
  int Chmod(const std::string& path, uint16_t mode);
  int SetXattr(const std::string& path, const std::string& name, const std::string& value);
  int RemoveXattr(const std::string& path, const std::string& name);
  int Link(const std::string& from, const std::string& to);
  int Unlink(const std::string& path);
  int RemoveDirectory(const std::string& path);
  int Rename(const std::string& from, const std::string& to, unsigned flags = 0);
  int Sync(const std::string& path);
  Result<struct stat> Stat(const std::string& path);
  Result<std::string> Read(const std::string& path);
  Result<std::vector<std::string>> List(const std::string& path, bool plus = true);
  std::string DifferenceFrom(const ModelTree& model);

  // A path's node with one lookup, which this gives back.
  class Found {
   public:
    Found(BranchFs& fs, std::vector<NodeId> looked_up) : fs_(&fs), nodes_(std::move(looked_up)) {}
    Found(Found&& other) noexcept : fs_(other.fs_), nodes_(std::exchange(other.nodes_, {})) {}
    Found& operator=(Found&&) = delete;
    ~Found() {
      for (const NodeId node : nodes_) fs_->Forget(node, 1);
    }
    NodeId id() const { return nodes_.empty() ? kRootNode : nodes_.back(); }
    void Add(NodeId node) { nodes_.push_back(node); }

   private:
    BranchFs* fs_;
    std::vector<NodeId> nodes_;
  };
  Result<Found> Walk(const std::string& path);
  Result<Found> WalkParent(const std::string& path, std::string* name);

 private:
  void DifferenceBelow(const ModelNode& model, const std::string& path, std::map<const ModelNode*, ino_t>* inodes,
                       std::string* out);
  BranchFs& fs_;
};

}  // namespace mirage::testing
