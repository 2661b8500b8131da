// The kernel's inode numbers of a read-only mount and what they stand for. A number is a hash and cannot be turned
// back, so the table holds what the kernel holds: each Acquire adds one to a number's lookup count, Release takes some
// away, and at zero the record goes. Hashes are hints, never trusted to be unique: a number that stands for another
// object is probed on to the next free one.
//
// Thread-safe: 64 shards, each with a mutex of its own (no method holds two). Records are immutable.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "mirfs/filesystem.h"
#include "store/library.h"

namespace mirage {

// Which version a directory belongs to and where that is shown, shared by all the directories below.
struct MountedVersion {
  std::string place;  // "debian/v1": no two places of one version are alike
  std::string name;   // "debian/v1", whatever the place
  ObjectId manifest, links;
  uint64_t key = 0;  // hash of place and manifest

  // Keeps the version from being collected; taken when the first name in it is asked for, and given back with the last
  // directory of it that the kernel forgets, its root. Not when its root is listed: a listing of a thousand tags would
  // make a thousand.
  mutable std::mutex lease_mutex;
  mutable VersionLease lease;  // guarded by lease_mutex
  mutable Error lease_error;   // likewise: of the last attempt that waited in vain
  mutable std::atomic<uint64_t> vain_attempts{0};
  mutable std::atomic<bool> leased{false};
};

// What one kernel inode stands for. Files of a version carry no version: equal ones share the record between versions.
struct Inode {
  enum class Kind : uint8_t {
    kLatest, kLeaf,       // all others are directories
    kRoot, kBranch,       // follow the refs
    kDirectory,           // of a version
    kViews, kById, kRange, kDelta, kDeltaPart,  // below .mirage (version_views.cc)
  };
  Kind kind = Kind::kLeaf;
  uint32_t link_count = 1;  // leaves: size of the hard-link group
  uint64_t number = 0;      // st_ino
  uint64_t identity = 0;    // leaves: hash of path and group; directories: hash of (version, path)
  Entry entry;              // leaves and directories of a version

  virtual ~Inode() = default;
  virtual bool SameObject(const Inode& other) const {
    return kind == other.kind && number == other.number && identity == other.identity && entry == other.entry;
  }
};
struct DirectoryInode : Inode {
  std::shared_ptr<const MountedVersion> version;  // kDirectory, kDeltaPart: what is below belongs to it
  std::string path;  // kDirectory, kDeltaPart: from the version's root, "" for itself; kBranch: its name; kRange, kDelta: "A..B"
  uint64_t parent_number = 0;                     // st_ino of ".."

  bool SameObject(const Inode& other) const override {  // equal identities may be of two versions that collide
    return Inode::SameObject(other) && path == static_cast<const DirectoryInode&>(other).path &&
           SameVersion(static_cast<const DirectoryInode&>(other));
  }

 private:
  bool SameVersion(const DirectoryInode& other) const;
};

class InodeTable {
 public:
  // The number for `inode`, `preferred` if it is free or already the same object's; adds one lookup. Never 0 or 1.
  // `parent` is remembered: the directory it was last found in.
  NodeId Acquire(NodeId preferred, std::shared_ptr<const Inode> inode, NodeId parent);
  // Null: not known to the kernel (a handle from before a restart: ESTALE).
  std::shared_ptr<const Inode> Find(NodeId node) const;
  // The same, and one lookup more: until a Release the number stays this object's.
  std::shared_ptr<const Inode> Hold(NodeId node);
  NodeId Parent(NodeId node) const;  // 0: `node` is not known; the parent itself may be no more
  // Remembers that the kernel was given the node's bytes, as long as it knows the node; whether it had been before. False
  // if it does not know it.
  bool MarkRead(NodeId node);
  bool WasRead(NodeId node) const;
  void Release(NodeId node, uint64_t count);
  // The number the kernel knows `inode` by, with no lookup added; 0: it does not.
  NodeId Known(NodeId preferred, const Inode& inode) const;
  // All that the kernel holds and `wanted` takes. `wanted` runs under a lock: it must not come back here.
  std::vector<std::shared_ptr<const Inode>> Select(const std::function<bool(const Inode&)>& wanted) const;
  size_t size() const;

 private:
  static constexpr size_t kShards = 64;  // a power of two: probing steps by it and stays in its shard
  struct Slot {
    std::shared_ptr<const Inode> inode;
    uint64_t lookups = 0;
    bool was_read = false;
    NodeId parent = 0;
  };
  struct Shard {
    mutable std::mutex mutex;
    std::unordered_map<NodeId, Slot> slots;  // guarded by mutex
  };
  Shard& ShardOf(NodeId node) { return shards_[node % kShards]; }
  const Shard& ShardOf(NodeId node) const { return shards_[node % kShards]; }
  std::array<Shard, kShards> shards_;
};

}  // namespace mirage
