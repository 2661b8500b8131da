#include "mirfs/versions_fs.h"

#include <sys/sysmacros.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace mirage {
namespace {

constexpr double kForever = 1e9;      // seconds; the kernel clamps it
constexpr double kRefsTimeout = 1;    // root and branch directories
constexpr uint64_t kFirstOffset = 2;  // "." ends at 1, ".." at 2, the item at position i at i + 3
constexpr std::string_view kLatestName = "latest";

bool IsRefs(const Inode& inode) { return inode.kind == Inode::Kind::kRoot || inode.kind == Inode::Kind::kBranch; }
bool IsDirectory(const Inode& inode) { return IsRefs(inode) || inode.kind == Inode::Kind::kDirectory; }

NodeId Preferred(const Inode& inode) { return inode.kind == Inode::Kind::kDirectory ? inode.identity : inode.number; }

uint64_t SeedOf(const Library& library) {
  const std::string& uuid = library.format().uuid;
  return XXH3_64bits(uuid.data(), uuid.size());
}

void Append(std::string* out, uint64_t value) { out->append(reinterpret_cast<const char*>(&value), sizeof value); }

}  // namespace

// A version's hard-link groups by the hashes of their paths. A collision (2^-64 a pair, and the seed is the library's
// own) would show a wrong link count; contents do not hang on it.
class VersionsFs::LinkTable {
 public:
  struct Group {
    uint64_t first_path_hash = 0, members_hash = 0;
    uint32_t count = 0;
  };
  LinkTable(const std::map<std::string, std::vector<std::string>>& groups, uint64_t seed) {
    groups_.reserve(groups.size());
    for (const auto& [first, members] : groups) {
      std::string all;
      for (const std::string& member : members) {
        paths_.emplace_back(XXH3_64bits_withSeed(member.data(), member.size(), seed), groups_.size());
        all.append(member).push_back('\0');
      }
      groups_.push_back({XXH3_64bits_withSeed(first.data(), first.size(), seed),
                         XXH3_64bits_withSeed(all.data(), all.size(), seed), static_cast<uint32_t>(members.size())});
    }
    std::sort(paths_.begin(), paths_.end());
  }
  const Group* Find(uint64_t path_hash) const {
    auto it = std::lower_bound(paths_.begin(), paths_.end(), std::pair<uint64_t, size_t>(path_hash, 0));
    return it == paths_.end() || it->first != path_hash ? nullptr : &groups_[it->second];
  }

 private:
  std::vector<std::pair<uint64_t, size_t>> paths_;  // hash of a member's path -> index in groups_
  std::vector<Group> groups_;
};

VersionsFs::VersionsFs(std::shared_ptr<Library> library)
    : library_(std::move(library)), reader_(library_), seed_(SeedOf(*library_)), uid_(getuid()), gid_(getgid()) {
  auto root = std::make_shared<DirectoryInode>();
  root->kind = Inode::Kind::kRoot;
  root->number = root->parent_number = kRootNode;
  root_ = std::move(root);
}

VersionsFs::~VersionsFs() = default;

uint64_t VersionsFs::Hash(std::string_view bytes) const {
  return std::max<uint64_t>(XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed_), kRootNode + 1);
}

Result<std::shared_ptr<const Inode>> VersionsFs::Find(NodeId node) const {
  if (node == kRootNode) return root_;
  if (auto inode = inodes_.Find(node)) return inode;
  return Fail(ESTALE, "inode {:x} is not known to this mount", node);
}

std::shared_ptr<DirectoryInode> VersionsFs::MakeBranch(const std::string& name) const {
  auto inode = std::make_shared<DirectoryInode>();
  inode->kind = Inode::Kind::kBranch;
  inode->number = inode->identity = Hash("branch " + name);
  inode->path = name;
  inode->parent_number = kRootNode;
  return inode;
}

Result<std::shared_ptr<const Inode>> VersionsFs::MakeTag(const DirectoryInode& branch, const std::string& tag,
                                                         const ObjectId& manifest_id) const {
  ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(library_->objects(), manifest_id));
  auto version = std::make_shared<MountedVersion>();
  version->branch = branch.path;
  version->tag = tag;
  version->manifest = manifest_id;
  version->links = manifest.links;
  version->key = Hash("version " + branch.path + "/" + tag + "/" + std::string(manifest_id.view()));
  auto inode = std::make_shared<DirectoryInode>();
  inode->kind = Inode::Kind::kDirectory;
  inode->number = inode->identity = version->key;
  inode->entry = manifest.root;
  inode->parent_number = branch.number;
  inode->version = std::move(version);
  return inode;
}

Result<std::shared_ptr<const Inode>> VersionsFs::MakeLatest(const DirectoryInode& branch,
                                                            const Snapshot& snapshot) const {
  ASSIGN_OR_RETURN(std::string target, snapshot.LatestTag(branch.path));
  ASSIGN_OR_RETURN(const std::optional<Ref> head, snapshot.Branch(branch.path));
  auto inode = std::make_shared<Inode>();
  inode->kind = Inode::Kind::kLatest;
  // The target is part of the kernel's number: a moved link is another inode, and what the kernel cached stays true.
  inode->number = inode->identity = Hash("latest " + branch.path + "/" + target);
  inode->entry.type = FileType::kSymlink;
  inode->entry.mode = 0777;
  inode->entry.uid = uid_;
  inode->entry.gid = gid_;
  inode->entry.mtime_sec = head ? head->time_sec : 0;
  inode->entry.size = target.size();
  inode->entry.target = std::move(target);
  return inode;
}

Result<std::shared_ptr<const VersionsFs::LinkTable>> VersionsFs::Links(const ObjectId& links) const {
  std::lock_guard lock(links_mutex_);  // held while loading: the first readers of a version wait for one load
  LinkSlot& slot = links_[links_slot_];
  for (LinkSlot& candidate : links_) {
    if (candidate.table && candidate.links == links) return candidate.table;
  }
  ASSIGN_OR_RETURN(const auto groups, reader_.LinkGroups(links));
  slot = {links, std::make_shared<const LinkTable>(groups, seed_)};
  links_slot_ = (links_slot_ + 1) % links_.size();
  return slot.table;
}

Result<std::shared_ptr<const Inode>> VersionsFs::MakeChild(const DirectoryInode& directory, std::string_view name,
                                                           const Entry& entry) const {
  std::string path;
  path.reserve(directory.path.size() + name.size() + 1);
  path.append(directory.path);
  if (!path.empty()) path.push_back('/');
  path.append(name);
  std::string identity = EncodeEntry(entry);
  const uint64_t path_hash = Hash(path);
  if (entry.is_directory()) {
    auto inode = std::make_shared<DirectoryInode>();
    inode->kind = Inode::Kind::kDirectory;
    Append(&identity, path_hash);
    inode->number = Hash(identity);
    inode->identity = std::max<uint64_t>(XXH3_64bits_withSeed(path.data(), path.size(), directory.version->key), 2);
    inode->entry = entry;
    inode->version = directory.version;
    inode->path = std::move(path);
    inode->parent_number = directory.number;
    return inode;
  }
  auto inode = std::make_shared<Inode>();
  inode->identity = path_hash;
  if (!directory.version->links.IsZero()) {
    ASSIGN_OR_RETURN(const auto links, Links(directory.version->links));
    if (const LinkTable::Group* group = links->Find(path_hash)) {
      inode->identity = group->first_path_hash ^ group->members_hash;
      inode->link_count = group->count;
      Append(&identity, group->members_hash);
      Append(&identity, group->first_path_hash);
    }
  }
  if (inode->link_count == 1) Append(&identity, path_hash);
  inode->number = Hash(identity);
  inode->entry = entry;
  return inode;
}

Result<struct stat> VersionsFs::Stat(const Inode& inode) const {
  struct stat st {};
  st.st_ino = inode.number;
  st.st_blksize = 4096;
  if (IsRefs(inode)) {
    const auto snapshot = library_->snapshot();
    const bool root = inode.kind == Inode::Kind::kRoot;
    ASSIGN_OR_RETURN(const auto refs,
                     root ? snapshot->Branches() : snapshot->Tags(static_cast<const DirectoryInode&>(inode).path));
    st.st_mode = S_IFDIR | 0755;
    st.st_uid = uid_;
    st.st_gid = gid_;
    st.st_size = 4096;
    st.st_nlink = 2 + refs.size();
    for (const auto& [name, ref] : refs) st.st_mtim.tv_sec = std::max<time_t>(st.st_mtim.tv_sec, ref.time_sec);
  } else {
    const Entry& entry = inode.entry;
    st.st_mode = ModeBits(entry.type) | entry.mode;
    st.st_uid = entry.uid;
    st.st_gid = entry.gid;
    st.st_mtim = {.tv_sec = entry.mtime_sec, .tv_nsec = entry.mtime_nsec};
    if (entry.is_directory()) {
      st.st_nlink = 2 + entry.size;
      st.st_size = 4096;
    } else {
      st.st_nlink = inode.link_count;
      st.st_size = static_cast<off_t>(entry.size);
      if (entry.type == FileType::kRegular) st.st_blocks = static_cast<blkcnt_t>((entry.size + 511) / 512);
      st.st_rdev = makedev(entry.rdev_major, entry.rdev_minor);
    }
  }
  st.st_atim = st.st_ctim = st.st_mtim;
  return st;
}

// Takes a lookup on `inode` and gives its attributes; what fails holds none.
Result<NodeAttributes> VersionsFs::Acquired(const Inode& parent, std::shared_ptr<const Inode> inode) {
  NodeAttributes attributes;
  ASSIGN_OR_RETURN(attributes.stat, Stat(*inode));
  attributes.entry_timeout_s = IsRefs(parent) ? kRefsTimeout : kForever;
  attributes.attribute_timeout_s = IsRefs(*inode) ? kRefsTimeout : kForever;
  const NodeId preferred = Preferred(*inode);
  attributes.node = inodes_.Acquire(preferred, std::move(inode));
  return attributes;
}

Result<NodeAttributes> VersionsFs::Lookup(NodeId parent_node, std::string_view name) {
  ASSIGN_OR_RETURN(const auto parent, Find(parent_node));
  if (!IsDirectory(*parent)) return Fail(ENOTDIR, "not a directory");
  const auto& directory = static_cast<const DirectoryInode&>(*parent);
  const std::string key(name);
  std::shared_ptr<const Inode> child;
  if (directory.kind == Inode::Kind::kDirectory) {
    ASSIGN_OR_RETURN(const auto entry, reader_.Lookup(directory.entry.id, name));
    if (!entry) return Fail(ENOENT, "{}: no such name", name);
    ASSIGN_OR_RETURN(child, MakeChild(directory, name, *entry));
  } else if (directory.kind == Inode::Kind::kRoot) {
    ASSIGN_OR_RETURN(const auto ref, library_->snapshot()->Branch(key));
    if (!ref || key.find('/') != key.npos) return Fail(ENOENT, "{}: no such branch", name);
    child = MakeBranch(key);
  } else if (name == kLatestName) {
    ASSIGN_OR_RETURN(child, MakeLatest(directory, *library_->snapshot()));
  } else {
    ASSIGN_OR_RETURN(const auto ref, library_->snapshot()->Tag(directory.path, key));
    if (!ref) return Fail(ENOENT, "{}/{}: no such tag", directory.path, name);
    ASSIGN_OR_RETURN(child, MakeTag(directory, key, ref->manifest));
  }
  return Acquired(*parent, std::move(child));
}

double VersionsFs::NegativeTimeout(NodeId parent) {
  const auto inode = Find(parent);
  return inode && !IsRefs(**inode) ? kForever : kRefsTimeout;
}

void VersionsFs::Forget(NodeId node, uint64_t count) {
  if (node != kRootNode) inodes_.Release(node, count);
}

Result<NodeAttributes> VersionsFs::GetAttributes(NodeId node) {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  NodeAttributes attributes;
  ASSIGN_OR_RETURN(attributes.stat, Stat(*inode));
  attributes.node = node;
  attributes.attribute_timeout_s = IsRefs(*inode) ? kRefsTimeout : kForever;
  return attributes;
}

Result<std::string> VersionsFs::ReadLink(NodeId node) {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  if (inode->kind == Inode::Kind::kLatest) return inode->entry.target;
  if (inode->entry.type != FileType::kSymlink) return Fail(EINVAL, "not a symbolic link");
  return reader_.SymlinkTarget(inode->entry);
}

// False: the buffer is full, and the item holds no lookup.
Result<bool> VersionsFs::Emit(const Inode& parent, std::string_view name, uint64_t next_offset,
                              std::shared_ptr<const Inode> inode, bool plus, const AddItem& add) {
  DirectoryItem item{.name = name, .next_offset = next_offset, .attributes = {}};
  if (!plus) {
    item.attributes.stat.st_ino = inode->number;
    item.attributes.stat.st_mode = IsRefs(*inode) ? mode_t{S_IFDIR} : ModeBits(inode->entry.type);
    return add(item);
  }
  ASSIGN_OR_RETURN(item.attributes, Acquired(parent, std::move(inode)));
  if (add(item)) return true;
  Forget(item.attributes.node, 1);
  return false;
}

Status VersionsFs::ReadDirectory(NodeId node, Handle, uint64_t offset, bool plus, const AddItem& add) {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  if (!IsDirectory(*inode)) return Fail(ENOTDIR, "not a directory");
  const auto& directory = static_cast<const DirectoryInode&>(*inode);
  for (; offset < kFirstOffset; ++offset) {
    DirectoryItem item{.name = offset == 0 ? "." : "..", .next_offset = offset + 1, .attributes = {}};
    item.attributes.stat.st_ino = offset == 0 ? directory.number : directory.parent_number;
    item.attributes.stat.st_mode = S_IFDIR;
    if (!add(item)) return {};
  }
  return IsRefs(directory) ? ListRefs(directory, offset, plus, add) : ListTree(directory, offset, plus, add);
}

// Refs come and go between two calls, so an offset is a hash of the name and the order is the hashes': whatever moves,
// a name that stays is given once.
Status VersionsFs::ListRefs(const DirectoryInode& directory, uint64_t offset, bool plus, const AddItem& add) {
  const bool root = directory.kind == Inode::Kind::kRoot;
  const auto snapshot = library_->snapshot();
  ASSIGN_OR_RETURN(const auto refs, root ? snapshot->Branches() : snapshot->Tags(directory.path));
  std::vector<std::pair<uint64_t, std::string>> names;
  auto gather = [&](const std::string& name) {
    const uint64_t hash = std::max<uint64_t>(Hash(name) >> 1, kFirstOffset + 1);  // offsets are signed on the way up
    if (hash > offset) names.emplace_back(hash, name);
  };
  for (const auto& [name, ref] : refs) gather(name);
  if (!root && !refs.empty()) gather(std::string(kLatestName));
  std::sort(names.begin(), names.end());
  for (const auto& [hash, name] : names) {
    Result<std::shared_ptr<const Inode>> child = root ? MakeBranch(name)
                                                 : name == kLatestName
                                                     ? MakeLatest(directory, *snapshot)
                                                     : MakeTag(directory, name, refs.at(name).manifest);
    if (!child) return tl::make_unexpected(std::move(child).error());
    ASSIGN_OR_RETURN(const bool more, Emit(directory, name, hash, std::move(*child), plus, add));
    if (!more) break;
  }
  return {};
}

Status VersionsFs::ListTree(const DirectoryInode& directory, uint64_t offset, bool plus, const AddItem& add) {
  Status status;
  TRY(reader_.Scan(directory.entry.id, offset - kFirstOffset, [&](std::string_view name, const Entry& entry) {
    auto child = MakeChild(directory, name, entry);
    auto more = child ? Emit(directory, name, ++offset, std::move(*child), plus, add)
                      : Result<bool>(tl::make_unexpected(std::move(child).error()));
    if (!more) status = tl::make_unexpected(std::move(more).error());
    return more && *more;
  }));
  return status;
}

Status VersionsFs::Read(NodeId node, Handle, uint64_t offset, size_t size, std::string* out) {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  if (inode->kind != Inode::Kind::kLeaf || inode->entry.type != FileType::kRegular)
    return Fail(EINVAL, "not a regular file");
  if (offset >= inode->entry.size) return {};
  return reader_.Read(inode->entry, offset, size, out);
}

Result<std::string> VersionsFs::GetXattr(NodeId node, std::string_view name) {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  if (inode->entry.xattrs.IsZero()) return Fail(ENODATA, "{}: no such attribute", name);
  ASSIGN_OR_RETURN(auto xattrs, reader_.Xattrs(inode->entry));
  auto it = xattrs.find(std::string(name));
  if (it == xattrs.end()) return Fail(ENODATA, "{}: no such attribute", name);
  return std::move(it->second);
}

Result<std::vector<std::string>> VersionsFs::ListXattrs(NodeId node) {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  std::vector<std::string> names;
  if (inode->entry.xattrs.IsZero()) return names;
  ASSIGN_OR_RETURN(const auto xattrs, reader_.Xattrs(inode->entry));
  for (const auto& [name, value] : xattrs) names.push_back(name);
  return names;
}

Result<struct statvfs> VersionsFs::StatFilesystem() {
  struct statvfs result {};
  if (statvfs(library_->path().c_str(), &result) != 0) return FailErrno(errno, "statvfs " + library_->path());
  result.f_namemax = 255;
  result.f_bavail = result.f_bfree = result.f_favail = result.f_ffree = 0;  // nothing can be added here
  return result;
}

void VersionsFs::InvalidateChanges(const Snapshot& before, const Snapshot& after, Invalidator& invalidator) const {
  auto names_that_differ = [](const std::map<std::string, Ref>& a, const std::map<std::string, Ref>& b) {
    std::vector<std::string> names;
    for (const auto& [name, ref] : a) {
      auto it = b.find(name);
      if (it == b.end() || it->second.manifest != ref.manifest) names.push_back(name);
    }
    for (const auto& [name, ref] : b) {
      if (!a.contains(name)) names.push_back(name);
    }
    return names;
  };
  const auto old_branches = before.Branches(), new_branches = after.Branches();
  if (!old_branches || !new_branches) return;  // the timeouts do it, a second later
  bool root_changed = false;
  for (const std::string& name : names_that_differ(*old_branches, *new_branches)) {
    if (old_branches->contains(name) && new_branches->contains(name)) continue;  // a head moved: seen in its tags
    root_changed = true;
    invalidator.InvalidateEntry(kRootNode, name);
  }
  if (root_changed) invalidator.InvalidateInode(kRootNode);
  for (const auto& [name, ref] : *new_branches) {
    const auto old_tags = before.Tags(name), new_tags = after.Tags(name);
    if (!old_tags || !new_tags) continue;
    const auto changed = names_that_differ(*old_tags, *new_tags);
    const auto old_branch = old_branches->find(name);
    const bool head_moved = old_branch == old_branches->end() || old_branch->second.manifest != ref.manifest;
    if (changed.empty() && !head_moved) continue;
    const auto branch = MakeBranch(name);
    const NodeId node = inodes_.Known(Preferred(*branch), *branch);
    if (node == 0) continue;
    for (const std::string& tag : changed) invalidator.InvalidateEntry(node, tag);
    invalidator.InvalidateEntry(node, kLatestName);
    invalidator.InvalidateInode(node);
  }
}

}  // namespace mirage
