// BranchFs: names. Each operation is one batch: the records it changes are changed in memory under their locks, written, and
// put back when the write fails.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/sysmacros.h>

#include <mutex>

#include "mirfs/branch_fs.h"
#include "mirfs/clock.h"
#include "mirfs/posix_acl.h"

namespace mirage {
namespace {

constexpr size_t kMaxNewName = 255;
constexpr uint32_t kMaxLinks = 65000;  // as ext4
constexpr uint64_t kInodesReserved = 1024;
constexpr uint64_t kNameBytes = 1024;  // what making a name may take in the log
constexpr uint64_t kFirstItemOffset = 2;  // behind "." and ".."

Status CheckName(std::string_view name) {
  if (name.size() > kMaxNewName) return Fail(ENAMETOOLONG, "name of {} bytes", name.size());
  if (name.empty() || name.find('/') != std::string_view::npos) return Fail(EINVAL, "bad name");
  if (name == "." || name == "..") return Fail(EEXIST, "{}: exists", name);
  return {};
}

Dirent ChildDirent(uint64_t id, FileType type) { return {false, id, type}; }

}  // namespace

Result<std::optional<BranchFs::Found>> BranchFs::Find(Node& directory, std::string_view name) const {
  std::optional<Found> found;
  if (directory.removed) return found;
  if (directory.stored) {
    ASSIGN_OR_RETURN(const auto dirent, db_.Find(directory.id, name));
    if (dirent) {
      if (!dirent->whiteout) found = Found{dirent->type, dirent->child, {}};
      return found;
    }
  }
  if (!directory.record.lower) return found;
  ASSIGN_OR_RETURN(auto entry, trees_.Lookup(directory.record.lower->id, name));
  if (entry) found = Found{entry->type, std::nullopt, std::move(*entry)};
  return found;
}

Result<bool> BranchFs::LowerHas(const Node& directory, std::string_view name) const {
  if (!directory.record.lower) return false;
  ASSIGN_OR_RETURN(const auto entry, trees_.Lookup(directory.record.lower->id, name));
  return entry.has_value();
}

Result<NodeAttributes> BranchFs::Lookup(NodeId parent, std::string_view name) {
  ASSIGN_OR_RETURN(const auto directory, GetDirectory(parent));
  const std::shared_lock lock(namespace_);
  std::optional<Found> found;
  if (name.size() <= kMaxNameBytes) {  // an image may hold longer names than can be made
    ASSIGN_OR_RETURN(found, Find(*directory, name));
  }
  if (!found && name.size() > kMaxNewName) return Fail(ENAMETOOLONG, "name of {} bytes", name.size());
  if (!found) return Fail(ENOENT, "{}: no such name", name);
  ASSIGN_OR_RETURN(const auto node, NodeOf(*directory, name, *found));
  return Enter(*node);
}

Status BranchFs::MakeListing(Node& directory, Listing* listing) const {
  listing->items.clear();
  listing->generation = directory.generation;
  if (directory.removed) return {};
  std::vector<std::pair<std::string, Dirent>> upper;
  if (directory.stored) {
    TRY(db_.VisitDirents(directory.id, [&](std::string_view name, const Dirent& dirent) {
      upper.emplace_back(name, dirent);
      return true;
    }));
  }
  auto next = upper.begin();
  const auto add_upper = [&] {
    const auto& [name, dirent] = *next++;
    if (!dirent.whiteout) listing->items.push_back({name, dirent.child, {dirent.type, dirent.child, {}}});
  };
  if (directory.record.lower) {
    std::string path = directory.record.origin;
    if (!path.empty()) path += '/';
    const size_t prefix = path.size();
    TRY(trees_.Scan(directory.record.lower->id, 0, [&](std::string_view name, const Entry& entry) {
      while (next != upper.end() && next->first < name) add_upper();
      if (next != upper.end() && next->first == name) {
        add_upper();
        return true;
      }
      path.resize(prefix);
      path += name;
      const LinkGroup* group = entry.is_directory() ? nullptr : GroupOf(path);
      listing->items.push_back(
          {std::string(name), LowerId(group ? group->first : path), {entry.type, std::nullopt, entry}});
      return true;
    }));
  }
  while (next != upper.end()) add_upper();
  return {};
}

Result<bool> BranchFs::IsEmpty(Node& directory) const {
  Listing listing;
  TRY(MakeListing(directory, &listing));
  return listing.items.empty();
}

Status BranchFs::ReadDirectory(NodeId id, Handle handle, uint64_t offset, bool plus,
                               const std::function<bool(const DirectoryItem&)>& add) {
  ASSIGN_OR_RETURN(const auto directory, GetDirectory(id));
  std::shared_ptr<Listing> listing;
  {
    const std::lock_guard lock(table_mutex_);
    if (const auto found = listings_.find(handle); found != listings_.end()) listing = found->second;
  }
  const bool fresh = !listing;
  if (fresh) listing = std::make_shared<Listing>();
  const std::lock_guard own(listing->mutex);
  const std::shared_lock lock(namespace_);
  // A rewound directory shows what came and went; a seek within it never does.
  if (fresh || (offset == 0 && listing->generation != directory->generation)) {
    TRY(MakeListing(*directory, listing.get()));
  }
  const auto plain = [](std::string_view name, uint64_t inode, FileType type, uint64_t next_offset) {
    DirectoryItem item;
    item.name = name;
    item.next_offset = next_offset;
    item.attributes.stat.st_ino = inode;
    item.attributes.stat.st_mode = ModeBits(type);
    return item;
  };
  if (offset == 0 && !add(plain(".", id, FileType::kDirectory, 1))) return {};
  if (offset <= 1 && !add(plain("..", directory->parent, FileType::kDirectory, kFirstItemOffset))) return {};
  for (uint64_t at = offset <= kFirstItemOffset ? 0 : offset - kFirstItemOffset; at < listing->items.size(); ++at) {
    const ListedItem& listed = listing->items[at];
    DirectoryItem item = plain(listed.name, listed.inode, listed.found.type, at + kFirstItemOffset + 1);
    Pin node;
    if (plus) {
      std::optional<Found> found = listed.found;
      if (listing->generation != directory->generation) {
        ASSIGN_OR_RETURN(found, Find(*directory, listed.name));
      }
      if (found) {
        ASSIGN_OR_RETURN(node, NodeOf(*directory, listed.name, *found));
        ASSIGN_OR_RETURN(item.attributes, GetAttributes(node->id));
      }
    }
    if (!add(item)) return {};
    if (node) AddLookup(*node);
  }
  return {};
}

NodeId BranchFs::TakeInodes(OverlayDb::Batch& batch, uint64_t count) {
  const NodeId first = next_inode_;
  next_inode_ += count;
  if (next_inode_ >= reserved_inode_) {
    reserved_inode_ = next_inode_ + kInodesReserved;
    batch.PutNextInode(reserved_inode_);
  }
  return first;
}

Status BranchFs::WriteBatch(OverlayDb::Batch& batch, const std::vector<Node*>& nodes) {
  TRY(db_.Write(batch));
  const uint64_t sequence = db_.sequence();
  for (Node* node : nodes) {
    if (!node) continue;
    node->stored = true;
    node->changed = sequence;
  }
  return {};
}

Status BranchFs::RemoveName(OverlayDb::Batch& batch, Node& directory, std::string_view name) {
  ASSIGN_OR_RETURN(const bool covered, LowerHas(directory, name));
  if (covered) {
    batch.PutDirent(directory.id, name, {.whiteout = true});
  } else {
    batch.DeleteDirent(directory.id, name);
  }
  return {};
}

void BranchFs::DropLink(OverlayDb::Batch& batch, Node& node, const struct timespec& now, bool* gone) {
  InodeRecord& record = node.record;
  record.ctime = now;
  record.nlink = record.is_directory() ? 0 : record.nlink - 1;
  *gone = record.nlink == 0 && (record.type != FileType::kRegular || !HasHandles(node));
  if (!*gone) {
    batch.PutInode(node.id, record);
    if (record.nlink == 0) batch.PutOrphan(node.id);
    return;
  }
  if (record.lower && record.may_have_data) db_.DeleteBlocks(node.id, &batch);
  batch.DeleteInode(node.id);
}

Result<BranchFs::Pin> BranchFs::MakeChild(Node& parent, std::string_view name, InodeRecord record, uint32_t umask,
                                          const Caller& caller, bool with_file) {
  TRY(CheckName(name));
  TRY(CheckRoom(kNameBytes, Room::kName));
  const std::unique_lock lock(namespace_);
  if (parent.removed) return Fail(ENOENT, "{}: the directory was removed", name);
  ASSIGN_OR_RETURN(const auto existing, Find(parent, name));
  if (existing) return Fail(EEXIST, "{}: exists", name);
  const std::unique_lock parent_lock(parent.mutex);

  record.uid = caller.uid;
  record.gid = caller.gid;
  if (parent.record.mode & S_ISGID) {
    record.gid = parent.record.gid;
    if (record.is_directory()) record.mode |= S_ISGID;
  }
  if (record.type != FileType::kSymlink) {
    ASSIGN_OR_RETURN(const auto parent_xattrs, XattrsOf(parent));
    if (const auto acl = parent_xattrs.find(std::string(kAclDefault)); acl != parent_xattrs.end()) {
      ASSIGN_OR_RETURN(auto inherited, InheritAcl(acl->second, record.mode));
      record.mode = inherited.mode;
      record.own_xattrs = true;
      if (!inherited.access.empty()) record.xattrs[std::string(kAclAccess)] = std::move(inherited.access);
      if (record.is_directory()) record.xattrs[std::string(kAclDefault)] = acl->second;
    } else {
      record.mode = static_cast<uint16_t>(record.mode & ~umask);
    }
  }
  const struct timespec now = Now();
  record.mtime = record.ctime = record.atime = now;
  record.nlink = record.is_directory() ? 2 : 1;
  // Most files are written soon: that their data file may be missing costs less than a second record.
  record.may_have_data = record.type == FileType::kRegular;

  OverlayDb::Batch batch;
  const auto spare = with_file ? data_.TakeSpare() : std::nullopt;
  const uint64_t own = spare ? 0 : 1, more_spares = with_file ? data_.SparesWanted() : 0;
  const NodeId first = TakeInodes(batch, own + more_spares);
  auto node = std::make_shared<Node>(spare ? spare->inode : first);
  node->record = std::move(record);
  node->parent = parent.id;
  if (node->record.type == FileType::kRegular) {
    node->file = std::make_unique<UpperFile>(db_, data_, node->id, LowerContent{}, 0, false);
    if (spare) node->file->Adopt(spare->descriptor);
  }
  const Stamps stamps(parent);
  parent.record.mtime = parent.record.ctime = now;
  if (node->record.is_directory()) ++parent.record.nlink;
  batch.PutInode(node->id, node->record);
  batch.PutDirent(parent.id, name, ChildDirent(node->id, node->record.type));
  batch.PutInode(parent.id, parent.record);
  if (auto written = WriteBatch(batch, {&parent, node.get()}); !written) {
    stamps.Restore();
    reserved_inode_ = next_inode_;  // its new end may not be in the database
    if (spare) data_.Remove(spare->inode);
    return tl::make_unexpected(std::move(written).error());
  }
  if (more_spares > 0) data_.AddSpares(first + own, more_spares);
  ++parent.generation;
  const std::lock_guard table(table_mutex_);
  node->pins = 1;
  nodes_[node->id] = node;
  return Pin(this, std::move(node));
}

Result<NodeAttributes> BranchFs::Create(NodeId parent, std::string_view name, uint32_t mode, int flags, const Caller& caller,
                                        bool host_file, OpenFile* opened) {
  ASSIGN_OR_RETURN(const auto directory, GetDirectory(parent));
  InodeRecord record;
  record.mode = static_cast<uint16_t>(mode & 07777);
  ASSIGN_OR_RETURN(const auto node, MakeChild(*directory, name, std::move(record), caller.umask, caller, true));
  {
    const std::unique_lock lock(node->mutex);
    *opened = MakeHandle(*node, flags, host_file);
  }
  auto attributes = Enter(*node);
  if (!attributes) Release(node->id, opened->handle);
  return attributes;
}

Result<NodeAttributes> BranchFs::MakeNode(NodeId parent, std::string_view name, uint32_t mode, uint64_t rdev,
                                          const Caller& caller) {
  ASSIGN_OR_RETURN(const auto directory, GetDirectory(parent));
  InodeRecord record;
  record.type = (mode & S_IFMT) == 0 ? FileType::kRegular : FileTypeFromMode(mode);
  record.mode = static_cast<uint16_t>(mode & 07777);
  if (record.type == FileType::kSymlink) return Fail(EINVAL, "{}: a symbolic link needs a target", name);
  if (record.type == FileType::kCharDevice || record.type == FileType::kBlockDevice) {
    record.rdev_major = major(rdev);
    record.rdev_minor = minor(rdev);
  }
  ASSIGN_OR_RETURN(const auto node, MakeChild(*directory, name, std::move(record), caller.umask, caller, false));
  return Enter(*node);
}

Result<NodeAttributes> BranchFs::MakeSymlink(NodeId parent, std::string_view name, std::string_view target,
                                             const Caller& caller) {
  ASSIGN_OR_RETURN(const auto directory, GetDirectory(parent));
  if (target.empty()) return Fail(ENOENT, "{}: empty target", name);
  if (target.size() >= PATH_MAX) return Fail(ENAMETOOLONG, "{}: target of {} bytes", name, target.size());
  InodeRecord record;
  record.type = FileType::kSymlink;
  record.mode = 0777;
  record.target = target;
  ASSIGN_OR_RETURN(const auto node, MakeChild(*directory, name, std::move(record), 0, caller, false));
  return Enter(*node);
}

Result<NodeAttributes> BranchFs::Link(NodeId id, NodeId parent, std::string_view name) {
  ASSIGN_OR_RETURN(const auto directory, GetDirectory(parent));
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  TRY(CheckName(name));
  TRY(CheckRoom(kNameBytes, Room::kName));
  if (node->record.is_directory()) return Fail(EPERM, "{}: a directory has one name", name);
  {
    const std::unique_lock lock(namespace_);
    if (directory->removed) return Fail(ENOENT, "{}: the directory was removed", name);
    ASSIGN_OR_RETURN(const auto existing, Find(*directory, name));
    if (existing) return Fail(EEXIST, "{}: exists", name);
    const NodeLocks locks({directory.get(), node.get()});
    if (node->record.nlink == 0) return Fail(ENOENT, "inode {:#x}: it was removed", id);
    if (node->record.nlink >= kMaxLinks) return Fail(EMLINK, "inode {:#x}: {} links", id, node->record.nlink);
    const Stamps node_stamps(*node), directory_stamps(*directory);
    const struct timespec now = Now();
    ++node->record.nlink;
    node->record.ctime = directory->record.mtime = directory->record.ctime = now;
    OverlayDb::Batch batch;
    batch.PutInode(id, node->record);
    batch.PutDirent(parent, name, ChildDirent(id, node->record.type));
    batch.PutInode(parent, directory->record);
    if (auto written = WriteBatch(batch, {node.get(), directory.get()}); !written) {
      node_stamps.Restore();
      directory_stamps.Restore();
      return tl::make_unexpected(std::move(written).error());
    }
    ++directory->generation;
  }
  return Enter(*node);
}

Status BranchFs::Unlink(NodeId parent, std::string_view name) {
  ASSIGN_OR_RETURN(const auto directory, GetDirectory(parent));
  const std::unique_lock lock(namespace_);
  ASSIGN_OR_RETURN(const auto found, Find(*directory, name));
  if (!found) return Fail(ENOENT, "{}: no such name", name);
  if (found->type == FileType::kDirectory) return Fail(EISDIR, "{}: a directory", name);
  ASSIGN_OR_RETURN(const auto node, NodeOf(*directory, name, *found));
  const NodeLocks locks({directory.get(), node.get()});
  OverlayDb::Batch batch;
  TRY(RemoveName(batch, *directory, name));
  const Stamps node_stamps(*node), directory_stamps(*directory);
  const struct timespec now = Now();
  bool gone = false;
  DropLink(batch, *node, now, &gone);
  directory->record.mtime = directory->record.ctime = now;
  batch.PutInode(parent, directory->record);
  if (auto written = WriteBatch(batch, {node.get(), directory.get()}); !written) {
    node_stamps.Restore();
    directory_stamps.Restore();
    return written;
  }
  ++directory->generation;
  if (gone) {
    node->removed = true;
    if (node->record.may_have_data) Discard(node->id);
  }
  return {};
}

Status BranchFs::RemoveDirectory(NodeId parent, std::string_view name) {
  ASSIGN_OR_RETURN(const auto directory, GetDirectory(parent));
  if (name == ".") return Fail(EINVAL, "rmdir .");
  if (name == "..") return Fail(ENOTEMPTY, "rmdir ..");
  const std::unique_lock lock(namespace_);
  ASSIGN_OR_RETURN(const auto found, Find(*directory, name));
  if (!found) return Fail(ENOENT, "{}: no such name", name);
  if (found->type != FileType::kDirectory) return Fail(ENOTDIR, "{}: not a directory", name);
  ASSIGN_OR_RETURN(const auto node, NodeOf(*directory, name, *found));
  ASSIGN_OR_RETURN(const bool empty, IsEmpty(*node));
  if (!empty) return Fail(ENOTEMPTY, "{}: not empty", name);
  const NodeLocks locks({directory.get(), node.get()});
  OverlayDb::Batch batch;
  TRY(RemoveName(batch, *directory, name));
  TRY(RemoveWhiteouts(batch, *node));
  const Stamps node_stamps(*node), directory_stamps(*directory);
  const struct timespec now = Now();
  bool gone = false;
  DropLink(batch, *node, now, &gone);
  directory->record.mtime = directory->record.ctime = now;
  --directory->record.nlink;
  batch.PutInode(parent, directory->record);
  if (auto written = WriteBatch(batch, {node.get(), directory.get()}); !written) {
    node_stamps.Restore();
    directory_stamps.Restore();
    return written;
  }
  ++directory->generation;
  node->removed = true;
  return {};
}

Status BranchFs::RemoveWhiteouts(OverlayDb::Batch& batch, Node& directory) const {
  if (!directory.stored) return {};
  return db_.VisitDirents(directory.id, [&](std::string_view name, const Dirent&) {
    batch.DeleteDirent(directory.id, name);
    return true;
  });
}

bool BranchFs::IsAncestor(NodeId ancestor, NodeId id) {
  const std::lock_guard lock(table_mutex_);
  for (;;) {
    if (id == ancestor) return true;
    if (id == kRootNode) return false;
    const auto found = nodes_.find(id);
    if (found == nodes_.end()) return false;
    id = found->second->parent;
  }
}

Status BranchFs::SyncIfPartlyLower(Node& from, std::string_view from_name, Node& to, std::string_view to_name) {
  Pin node;
  {
    const std::shared_lock lock(namespace_);
    ASSIGN_OR_RETURN(const auto replaced, Find(to, to_name));
    if (!replaced) return {};
    ASSIGN_OR_RETURN(const auto found, Find(from, from_name));
    if (!found || found->type != FileType::kRegular) return {};
    ASSIGN_OR_RETURN(node, NodeOf(from, from_name, *found));
  }
  {
    const std::shared_lock lock(node->mutex);
    if (!node->record.may_have_data || node->record.lower_valid == 0) return {};
  }
  return SyncNode(*node, UpperFile::For::kBackground);
}

Status BranchFs::Rename(NodeId from, std::string_view from_name, NodeId to, std::string_view to_name, unsigned flags) {
  if (flags & ~static_cast<unsigned>(RENAME_NOREPLACE | RENAME_EXCHANGE)) return Fail(EINVAL, "rename: flags {:#x}", flags);
  const bool exchange = flags & RENAME_EXCHANGE;
  if (exchange && (flags & RENAME_NOREPLACE)) return Fail(EINVAL, "rename: flags {:#x}", flags);
  ASSIGN_OR_RETURN(const auto source, GetDirectory(from));
  ASSIGN_OR_RETURN(const auto target, GetDirectory(to));
  TRY(CheckName(to_name));
  if (!(flags & RENAME_NOREPLACE)) TRY(SyncIfPartlyLower(*source, from_name, *target, to_name));
  if (exchange) TRY(SyncIfPartlyLower(*target, to_name, *source, from_name));
  const std::unique_lock lock(namespace_);
  if (target->removed) return Fail(ENOENT, "{}: the directory was removed", to_name);
  ASSIGN_OR_RETURN(const auto found, Find(*source, from_name));
  if (!found) return Fail(ENOENT, "{}: no such name", from_name);
  ASSIGN_OR_RETURN(const auto covered, Find(*target, to_name));
  if (covered && (flags & RENAME_NOREPLACE)) return Fail(EEXIST, "{}: exists", to_name);
  if (!covered && exchange) return Fail(ENOENT, "{}: no such name", to_name);
  ASSIGN_OR_RETURN(const auto node, NodeOf(*source, from_name, *found));
  Pin victim;
  if (covered) {
    ASSIGN_OR_RETURN(victim, NodeOf(*target, to_name, *covered));
  }
  if (victim.get() == node.get()) return {};  // two names of one inode, or the same name: POSIX does nothing
  const int node_is_directory = node->record.is_directory();
  const int victim_is_directory = victim && victim->record.is_directory();
  if (node_is_directory && IsAncestor(node->id, to)) return Fail(EINVAL, "{}: a directory cannot go into itself", from_name);
  if (exchange) {
    if (victim_is_directory && IsAncestor(victim->id, from)) {
      return Fail(EINVAL, "{}: a directory cannot go into itself", to_name);
    }
  } else if (victim) {
    if (victim_is_directory && !node_is_directory) return Fail(EISDIR, "{}: a directory", to_name);
    if (!victim_is_directory && node_is_directory) return Fail(ENOTDIR, "{}: not a directory", to_name);
    if (victim_is_directory) {
      ASSIGN_OR_RETURN(const bool empty, IsEmpty(*victim));
      if (!empty) return Fail(ENOTEMPTY, "{}: not empty", to_name);
    }
  }

  const NodeLocks locks({source.get(), target.get(), node.get(), victim.get()});
  if (victim) TRY(WriteBeforeNames(*node));
  if (exchange) TRY(WriteBeforeNames(*victim));
  std::vector<Stamps> stamps{Stamps(*source), Stamps(*target), Stamps(*node)};
  if (victim) stamps.emplace_back(*victim);
  OverlayDb::Batch batch;
  if (exchange) {
    batch.PutDirent(from, from_name, ChildDirent(victim->id, victim->record.type));
  } else {
    TRY(RemoveName(batch, *source, from_name));
    if (victim_is_directory) TRY(RemoveWhiteouts(batch, *victim));
  }
  batch.PutDirent(to, to_name, ChildDirent(node->id, node->record.type));
  const struct timespec now = Now();
  node->record.ctime = now;
  bool gone = false;
  if (exchange) {
    victim->record.ctime = now;
    batch.PutInode(victim->id, victim->record);
  } else if (victim) {
    DropLink(batch, *victim, now, &gone);
  }
  const auto add_links = [](Node& directory, int count) {
    directory.record.nlink = static_cast<uint32_t>(static_cast<int64_t>(directory.record.nlink) + count);
  };
  add_links(*source, (exchange ? victim_is_directory : 0) - node_is_directory);
  add_links(*target, node_is_directory - victim_is_directory);
  for (Node* directory : {source.get(), target.get()}) directory->record.mtime = directory->record.ctime = now;
  batch.PutInode(node->id, node->record);
  batch.PutInode(from, source->record);
  if (from != to) batch.PutInode(to, target->record);
  if (auto written = WriteBatch(batch, {source.get(), target.get(), node.get(), victim.get()}); !written) {
    for (const auto& stamp : stamps) stamp.Restore();
    return written;
  }
  ++source->generation;
  ++target->generation;
  if (node_is_directory) node->parent = to;
  if (exchange && victim_is_directory) victim->parent = from;
  if (gone) {
    victim->removed = true;
    if (victim->record.may_have_data) Discard(victim->id);
  }
  return {};
}

}  // namespace mirage
