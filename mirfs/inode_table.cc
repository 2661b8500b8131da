#include "mirfs/inode_table.h"

namespace mirage {

bool DirectoryInode::SameVersion(const DirectoryInode& other) const {
  if (!version || !other.version) return version == other.version;
  return version->manifest == other.version->manifest && version->place == other.version->place;
}

NodeId InodeTable::Acquire(NodeId preferred, std::shared_ptr<const Inode> inode, NodeId parent) {
  Shard& shard = ShardOf(preferred);
  std::lock_guard lock(shard.mutex);
  for (NodeId node = preferred;; node += kShards) {
    if (node <= kRootNode) continue;
    auto [it, inserted] = shard.slots.try_emplace(node);
    if (inserted) {
      it->second.inode = std::move(inode);
    } else if (!it->second.inode->SameObject(*inode)) {
      continue;
    }
    ++it->second.lookups;
    it->second.parent = parent;
    return node;
  }
}

std::shared_ptr<const Inode> InodeTable::Find(NodeId node) const {
  const Shard& shard = ShardOf(node);
  std::lock_guard lock(shard.mutex);
  auto it = shard.slots.find(node);
  return it == shard.slots.end() ? nullptr : it->second.inode;
}

std::shared_ptr<const Inode> InodeTable::Hold(NodeId node) {
  Shard& shard = ShardOf(node);
  std::lock_guard lock(shard.mutex);
  auto it = shard.slots.find(node);
  if (it == shard.slots.end()) return nullptr;
  ++it->second.lookups;
  return it->second.inode;
}

NodeId InodeTable::Parent(NodeId node) const {
  const Shard& shard = ShardOf(node);
  std::lock_guard lock(shard.mutex);
  auto it = shard.slots.find(node);
  return it == shard.slots.end() ? 0 : it->second.parent;
}

bool InodeTable::MarkRead(NodeId node) {
  Shard& shard = ShardOf(node);
  std::lock_guard lock(shard.mutex);
  auto it = shard.slots.find(node);
  if (it == shard.slots.end()) return false;
  const bool before = it->second.was_read;
  it->second.was_read = true;
  return before;
}

bool InodeTable::WasRead(NodeId node) const {
  const Shard& shard = ShardOf(node);
  std::lock_guard lock(shard.mutex);
  auto it = shard.slots.find(node);
  return it != shard.slots.end() && it->second.was_read;
}

void InodeTable::Release(NodeId node, uint64_t count) {
  std::shared_ptr<const Inode> gone;  // declared before the lock: destroyed behind it
  Shard& shard = ShardOf(node);
  std::lock_guard lock(shard.mutex);
  auto it = shard.slots.find(node);
  if (it == shard.slots.end()) return;
  if (it->second.lookups > count) {
    it->second.lookups -= count;
    return;
  }
  gone = std::move(it->second.inode);
  shard.slots.erase(it);
}

NodeId InodeTable::Known(NodeId preferred, const Inode& inode) const {
  const Shard& shard = ShardOf(preferred);
  std::lock_guard lock(shard.mutex);
  // A number behind a freed one is not found: the caller then invalidates nothing, and a second's timeout heals it.
  for (NodeId node = preferred;; node += kShards) {
    if (node <= kRootNode) continue;
    auto it = shard.slots.find(node);
    if (it == shard.slots.end()) return 0;
    if (it->second.inode->SameObject(inode)) return node;
  }
}

std::vector<std::shared_ptr<const Inode>> InodeTable::Select(const std::function<bool(const Inode&)>& wanted) const {
  std::vector<std::shared_ptr<const Inode>> selected;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    for (const auto& [node, slot] : shard.slots) {
      if (wanted(*slot.inode)) selected.push_back(slot.inode);
    }
  }
  return selected;
}

size_t InodeTable::size() const {
  size_t total = 0;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    total += shard.slots.size();
  }
  return total;
}

}  // namespace mirage
