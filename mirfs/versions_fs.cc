#include "mirfs/versions_fs.h"

#include <sys/sysmacros.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace mirage {
namespace {

constexpr double kForever = 1e9;      // seconds; the kernel clamps it
constexpr uint64_t kFirstOffset = 2;  // "." ends at 1, ".." at 2, the item at position i at i + 3
constexpr size_t kMostLinkTables = 8;
constexpr std::string_view kLatestName = "latest";
constexpr std::string_view kViewsName = ".mirage";

using Kind = Inode::Kind;

bool IsDirectory(const Inode& inode) { return inode.kind != Kind::kLeaf && inode.kind != Kind::kLatest; }
bool IsRefs(const Inode& inode) { return inode.kind == Kind::kRoot || inode.kind == Kind::kBranch; }
// A directory of a version, with an entry of its own.
bool HasEntry(const Inode& inode) {
  return !IsDirectory(inode) || inode.kind == Kind::kDirectory || inode.kind == Kind::kDeltaPart;
}
// What a name in it means may change.
bool FollowsRefs(const Inode& inode) {
  return IsRefs(inode) || inode.kind == Kind::kById || inode.kind == Kind::kRange || inode.kind == Kind::kDelta;
}

uint64_t SeedOf(const Library& library) {
  const std::string& uuid = library.format().uuid;
  return XXH3_64bits(uuid.data(), uuid.size());
}

void Append(std::string* out, uint64_t value) { out->append(reinterpret_cast<const char*>(&value), sizeof value); }

}  // namespace

VersionsFs::VersionsFs(std::shared_ptr<Library> library, const Options& options)
    : library_(std::move(library)),
      reader_(library_),
      options_(options),
      seed_(SeedOf(*library_)),
      uid_(options.uid.value_or(getuid())),
      gid_(options.gid.value_or(getgid())) {}

Result<std::unique_ptr<VersionsFs>> VersionsFs::Open(std::shared_ptr<Library> library, const Options& options) {
  std::unique_ptr<VersionsFs> fs(new VersionsFs(std::move(library), options));
  std::shared_ptr<DirectoryInode> root;
  if (options.version) {
    ASSIGN_OR_RETURN(root, fs->MakeVersion("", options.version_name, *options.version));
    TRY(fs->Lease(*root->version));
  } else {
    root = std::make_shared<DirectoryInode>();
    root->kind = options.branch.empty() ? Kind::kRoot : Kind::kBranch;
    root->path = options.branch;
    root->number = kRootNode;
  }
  root->identity = kRootNode;
  root->parent_number = root->number;
  fs->root_ = std::move(root);
  return fs;
}

VersionsFs::~VersionsFs() = default;

uint64_t VersionsFs::Hash(std::string_view bytes, uint64_t seed) const {
  const uint64_t hash =
      options_.hash ? options_.hash(bytes, seed) : XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
  return std::max<uint64_t>(hash, kRootNode + 1);
}

NodeId VersionsFs::Preferred(const Inode& inode) const { return IsDirectory(inode) ? inode.identity : inode.number; }

Result<std::shared_ptr<const Inode>> VersionsFs::Find(NodeId node) const {
  if (node == kRootNode) return root_;
  if (auto inode = inodes_.Find(node)) return inode;
  return Fail(ESTALE, "inode {:x} is not known to this mount", node);
}

std::shared_ptr<DirectoryInode> VersionsFs::MakeBranch(const std::string& name) const {
  auto inode = std::make_shared<DirectoryInode>();
  inode->kind = Kind::kBranch;
  inode->number = inode->identity = Hash("branch " + name);
  inode->path = name;
  inode->parent_number = kRootNode;
  return inode;
}

// The root directory of a version, as it is shown at `place`.
Result<std::shared_ptr<DirectoryInode>> VersionsFs::MakeVersion(const std::string& place, const std::string& name,
                                                                const ObjectId& manifest_id) const {
  const auto read = ReadManifest(library_->objects(), manifest_id);
  if (!read) return Fail(read.error().code, "version {}: {}", name, read.error().message);
  const Manifest& manifest = *read;
  auto version = std::make_shared<MountedVersion>();
  version->place = place;
  version->name = name;
  version->manifest = manifest_id;
  version->links = manifest.links;
  version->key = Hash("version " + place + "/" + std::string(manifest_id.view()));
  auto inode = std::make_shared<DirectoryInode>();
  inode->kind = Kind::kDirectory;
  inode->number = inode->identity = version->key;
  inode->entry = manifest.root;
  inode->version = std::move(version);
  return inode;
}

Result<std::shared_ptr<const Inode>> VersionsFs::MakeTag(const DirectoryInode& branch, const std::string& tag,
                                                         const ObjectId& manifest) const {
  const std::string name = branch.path + "/" + tag;
  ASSIGN_OR_RETURN(auto inode, MakeVersion(name, name, manifest));
  inode->parent_number = branch.number;
  return inode;
}

Result<std::shared_ptr<const Inode>> VersionsFs::MakeLatest(const DirectoryInode& branch,
                                                            const Snapshot& snapshot) const {
  ASSIGN_OR_RETURN(std::string target, snapshot.LatestTag(branch.path));
  ASSIGN_OR_RETURN(const std::optional<Ref> head, snapshot.Branch(branch.path));
  auto inode = std::make_shared<Inode>();
  inode->kind = Kind::kLatest;
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

Result<std::shared_ptr<const LinkTable>> VersionsFs::Links(const ObjectId& links) const {
  std::lock_guard lock(links_mutex_);  // held while loading: the first readers of a version wait for one load
  size_t bytes = 0;
  for (const LinkSlot& known : links_) {
    if (known.links == links) return known.table;
    bytes += known.table->bytes();
  }
  ASSIGN_OR_RETURN(auto table, LinkTable::Load(reader_, links, [this](std::string_view path) { return Hash(path); }));
  bytes += table->bytes();
  links_.push_front({links, table});
  while (links_.size() > 1 && (links_.size() > kMostLinkTables || bytes > options_.link_tables_bytes)) {
    bytes -= links_.back().table->bytes();
    links_.pop_back();
  }
  return table;
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
    inode->kind = Kind::kDirectory;
    Append(&identity, path_hash);
    inode->number = Hash(identity);
    inode->identity = Hash(path, directory.version->key);
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
    ASSIGN_OR_RETURN(const LinkTable::Group* group, links->Find(reader_, path, path_hash));
    if (group) {
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
    const bool root = inode.kind == Kind::kRoot;
    ASSIGN_OR_RETURN(const auto refs,
                     root ? snapshot->Branches() : snapshot->Tags(static_cast<const DirectoryInode&>(inode).path));
    st.st_mode = S_IFDIR | 0755;
    st.st_uid = uid_;
    st.st_gid = gid_;
    st.st_size = 4096;
    st.st_nlink = 2 + refs.size();
    for (const auto& [name, ref] : refs) st.st_mtim.tv_sec = std::max<time_t>(st.st_mtim.tv_sec, ref.time_sec);
  } else if (!HasEntry(inode)) {
    st.st_mode = S_IFDIR | 0555;
    st.st_uid = uid_;
    st.st_gid = gid_;
    st.st_size = 4096;
    st.st_nlink = 1;  // for find(1): not counted
  } else {
    const Entry& entry = inode.entry;
    st.st_mode = ModeBits(entry.type) | entry.mode;
    st.st_uid = options_.uid.value_or(entry.uid);
    st.st_gid = options_.gid.value_or(entry.gid);
    st.st_mtim = {.tv_sec = entry.mtime_sec, .tv_nsec = entry.mtime_nsec};
    if (entry.is_directory()) {
      st.st_nlink = inode.kind == Kind::kDeltaPart ? 1 : 2 + entry.size;
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
Result<NodeAttributes> VersionsFs::Acquired(NodeId parent_node, const Inode& parent,
                                            std::shared_ptr<const Inode> inode) {
  NodeAttributes attributes;
  ASSIGN_OR_RETURN(attributes.stat, Stat(*inode));
  attributes.entry_timeout_s = FollowsRefs(parent) ? options_.refs_timeout_s : kForever;
  attributes.attribute_timeout_s = IsRefs(*inode) ? options_.refs_timeout_s : kForever;
  const NodeId preferred = Preferred(*inode);
  const bool leaf = inode->kind == Kind::kLeaf;
  attributes.node = inodes_.Acquire(preferred, std::move(inode), parent_node);
  if (leaf) attributes.stat.st_ino = attributes.node;  // what was probed on differs for users too
  return attributes;
}

Status VersionsFs::Lease(const MountedVersion& version) const {
  if (version.leased.load(std::memory_order_acquire)) return {};
  const uint64_t before = version.vain_attempts;
  const std::lock_guard lock(version.lease_mutex);
  if (version.leased) return {};
  // Who waited behind an attempt has waited.
  if (version.vain_attempts != before) return tl::make_unexpected(version.lease_error);
  auto lease = library_->Lease(version.manifest);
  if (!lease) {
    if (lease.error().code == EAGAIN) {
      version.lease_error = lease.error();
      ++version.vain_attempts;
    }
    // Its tag went, and then gc came, while nobody was in it: the kernel shall look for the name anew.
    if (lease.error().code == ENOENT) lease.error().code = ESTALE;
    return tl::make_unexpected(std::move(lease).error());
  }
  version.lease = std::move(*lease);
  version.leased.store(true, std::memory_order_release);
  return {};
}

Result<std::shared_ptr<const Inode>> VersionsFs::Child(const DirectoryInode& directory, std::string_view name) const {
  const std::string key(name);
  TRY(LeaseAllOf(directory));
  if (directory.kind == Kind::kDirectory) {
    ASSIGN_OR_RETURN(const auto entry, reader_.Lookup(directory.entry.id, name));
    if (!entry) return Fail(ENOENT, "{}: no such name", name);
    return MakeChild(directory, name, *entry);
  }
  if (&directory == root_.get() && name == kViewsName) return MakeViews();
  if (directory.kind == Kind::kRoot) {
    ASSIGN_OR_RETURN(const auto ref, library_->snapshot()->Branch(key));
    if (!ref || key.find('/') != key.npos) return Fail(ENOENT, "{}: no such branch", name);
    return MakeBranch(key);
  }
  if (directory.kind != Kind::kBranch) return ViewChild(directory, name);
  if (name == kLatestName) return MakeLatest(directory, *library_->snapshot());
  ASSIGN_OR_RETURN(const auto ref, library_->snapshot()->Tag(directory.path, key));
  if (!ref) return Fail(ENOENT, "{}/{}: no such tag", directory.path, name);
  return MakeTag(directory, key, ref->manifest);
}

Result<NodeAttributes> VersionsFs::Lookup(NodeId parent_node, std::string_view name) {
  ASSIGN_OR_RETURN(const auto parent, Find(parent_node));
  if (!IsDirectory(*parent)) return Fail(ENOTDIR, "not a directory");
  ASSIGN_OR_RETURN(auto child, Child(static_cast<const DirectoryInode&>(*parent), name));
  return Acquired(parent_node, *parent, std::move(child));
}

double VersionsFs::NegativeTimeout(NodeId parent) {
  const auto inode = Find(parent);
  return inode && !FollowsRefs(**inode) ? kForever : options_.refs_timeout_s;
}

void VersionsFs::Forget(NodeId node, uint64_t count) {
  if (node != kRootNode) inodes_.Release(node, count);
}

Result<NodeAttributes> VersionsFs::GetAttributes(NodeId node) {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  NodeAttributes attributes;
  ASSIGN_OR_RETURN(attributes.stat, Stat(*inode));
  attributes.node = node;
  if (inode->kind == Kind::kLeaf) attributes.stat.st_ino = node;
  attributes.attribute_timeout_s = IsRefs(*inode) ? options_.refs_timeout_s : kForever;
  return attributes;
}

Result<std::string> VersionsFs::ReadLink(NodeId node) {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  if (inode->kind == Kind::kLatest) return inode->entry.target;
  if (inode->entry.type != FileType::kSymlink) return Fail(EINVAL, "not a symbolic link");
  return reader_.SymlinkTarget(inode->entry);
}

// False: the buffer is full, and the item holds no lookup.
Result<bool> VersionsFs::Emit(NodeId parent_node, const Inode& parent, std::string_view name, uint64_t next_offset,
                              std::shared_ptr<const Inode> inode, bool plus, const AddItem& add) {
  DirectoryItem item{.name = name, .next_offset = next_offset, .attributes = {}};
  if (!plus) {
    item.attributes.stat.st_ino = inode->number;
    item.attributes.stat.st_mode = HasEntry(*inode) ? ModeBits(inode->entry.type) : mode_t{S_IFDIR};
    return add(item);
  }
  ASSIGN_OR_RETURN(item.attributes, Acquired(parent_node, parent, std::move(inode)));
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
  TRY(LeaseAllOf(directory));
  if (IsRefs(directory)) return ListRefs(node, directory, offset, plus, add);
  if (directory.kind == Kind::kDirectory) return ListTree(node, directory, offset, plus, add);
  return ListView(node, directory, offset, plus, add);
}

// Refs come and go between two calls, so an offset is a hash of the name and the order is the hashes': whatever moves,
// a name that stays is given once.
Status VersionsFs::ListRefs(NodeId node, const DirectoryInode& directory, uint64_t offset, bool plus,
                            const AddItem& add) {
  const bool root = directory.kind == Kind::kRoot;
  const auto snapshot = library_->snapshot();
  ASSIGN_OR_RETURN(const auto refs, root ? snapshot->Branches() : snapshot->Tags(directory.path));
  std::vector<std::pair<uint64_t, std::string>> names;
  auto gather = [&](const std::string& name) {
    names.emplace_back(std::max<uint64_t>(Hash(name) >> 1, kFirstOffset + 1),
                       name);  // offsets are signed on the way up
  };
  for (const auto& [name, ref] : refs) gather(name);
  if (!root && !refs.empty()) gather(std::string(kLatestName));
  std::sort(names.begin(), names.end());
  for (size_t i = 1; i < names.size(); ++i) names[i].first = std::max(names[i].first, names[i - 1].first + 1);
  std::erase_if(names, [offset](const auto& name) { return name.first <= offset; });
  for (const auto& [hash, name] : names) {
    Result<std::shared_ptr<const Inode>> child = root ? MakeBranch(name)
                                                 : name == kLatestName
                                                     ? MakeLatest(directory, *snapshot)
                                                     : MakeTag(directory, name, refs.at(name).manifest);
    if (!child) return tl::make_unexpected(std::move(child).error());
    ASSIGN_OR_RETURN(const bool more, Emit(node, directory, name, hash, std::move(*child), plus, add));
    if (!more) break;
  }
  return {};
}

Status VersionsFs::ListTree(NodeId node, const DirectoryInode& directory, uint64_t offset, bool plus,
                            const AddItem& add) {
  Status status;
  TRY(reader_.Scan(directory.entry.id, offset - kFirstOffset, [&](std::string_view name, const Entry& entry) {
    auto child = MakeChild(directory, name, entry);
    auto more = child ? Emit(node, directory, name, ++offset, std::move(*child), plus, add)
                      : Result<bool>(tl::make_unexpected(std::move(child).error()));
    if (!more) status = tl::make_unexpected(std::move(more).error());
    return more && *more;
  }));
  return status;
}

Status VersionsFs::ReadPieces(NodeId node, Handle, uint64_t offset, size_t size, Pieces* out) {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  if (inode->kind != Kind::kLeaf || inode->entry.type != FileType::kRegular) return Fail(EINVAL, "not a regular file");
  if (offset >= inode->entry.size) return {};
  const size_t before = out->size();
  return ReadWhereItLies([&] {
    out->ShrinkTo(before);
    return reader_.Read(inode->entry, offset, size, out);
  });
}

// Of a library on a read-only filesystem no session keeps the packs that this process knows, and a collection may have
// rewritten one: the newest snapshot knows where its chunks lie now.
Status VersionsFs::ReadWhereItLies(const std::function<Status()>& read) const {
  const uint64_t known = library_->snapshot()->sequence();
  Status status = read();
  const auto missing = [&] { return !status && (status.error().code == EIO || status.error().code == ENOENT); };
  if (missing() && library_->Refresh() && library_->snapshot()->sequence() != known) status = read();
  if (missing()) status.error().code = EIO;  // an entry named the content: no "no such file"
  return status;
}

Result<std::vector<SmallFile>> VersionsFs::SmallFilesOf(NodeId node, size_t most, uint64_t largest) const {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  if (inode->kind != Kind::kDirectory) return Fail(EINVAL, "not a directory of a version");
  const auto& directory = static_cast<const DirectoryInode&>(*inode);
  TRY(LeaseAllOf(directory));
  std::vector<SmallFile> files;
  Status status;
  TRY(reader_.Scan(directory.entry.id, 0, [&](std::string_view name, const Entry& entry) {
    if (entry.type == FileType::kRegular && entry.size > 0 && entry.size <= largest) {
      const auto child = MakeChild(directory, name, entry);
      if (!child) {
        status = tl::make_unexpected(child.error());
        return false;
      }
      if (const NodeId known = inodes_.Known(Preferred(**child), **child); known != 0) files.push_back({known, entry.size});
    }
    return --most > 0;
  }));
  TRY(status);
  return files;
}

Result<uint64_t> VersionsFs::Seek(NodeId node, Handle, uint64_t offset, int whence) {
  ASSIGN_OR_RETURN(const uint64_t size, SizeOf(node));
  if (offset >= size) return Fail(ENXIO, "nothing at {}", offset);
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  uint64_t found = size;
  TRY(ReadWhereItLies([&] {
    return library_->contents().VisitSegments(inode->entry.id, size, offset, [&](uint64_t at, uint64_t, bool hole) {
      if (hole != (whence == SEEK_HOLE)) return true;
      found = at;
      return false;
    });
  }));
  if (found == size && whence == SEEK_DATA) return Fail(ENXIO, "nothing but a hole from {} on", offset);
  return found;
}

Result<uint64_t> VersionsFs::SizeOf(NodeId node) const {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  if (inode->kind != Kind::kLeaf || inode->entry.type != FileType::kRegular) return Fail(EINVAL, "not a regular file");
  return inode->entry.size;
}

Status VersionsFs::WithBytes(NodeId node, uint64_t offset, size_t length,
                             const std::function<void(std::string_view)>& use) {
  const auto inode = inodes_.Hold(node);
  if (!inode) return Fail(ESTALE, "inode {:x}: not known", node);
  Pieces pieces;
  Status status = ReadPieces(node, 0, offset, length, &pieces);
  if (status && pieces.views().size() == 1) {
    use(pieces.views().front());
  } else if (status) {
    std::string bytes;
    pieces.AppendTo(&bytes);
    use(bytes);
  }
  inodes_.Release(node, 1);
  return status;
}

Result<struct statvfs> VersionsFs::StatFilesystem() {
  struct statvfs result {};
  if (statvfs(library_->path().c_str(), &result) != 0) return FailErrno(errno, "statvfs " + library_->path());
  result.f_namemax = 255;
  result.f_bavail = result.f_bfree = result.f_favail = result.f_ffree = 0;  // nothing can be added here
  return result;
}

// A shell may stand in a version of which no name was asked for yet, and which was therefore not leased. Whoever collects
// gives us a moment for this (GcOptions::lease_grace_ms). What the kernel does not use it forgets when its name is invalidated.
void VersionsFs::LeaseKnown(const Snapshot& before, const Snapshot& after) const {
  std::set<ObjectId> lost;
  const auto branches = before.Branches();
  if (!branches) return;
  for (const auto& [branch, head] : *branches) {
    const auto old_tags = before.Tags(branch), new_tags = after.Tags(branch);
    if (!old_tags || !new_tags) continue;
    for (const auto& [tag, ref] : *old_tags) {
      const auto now = new_tags->find(tag);
      if (now == new_tags->end() || now->second.manifest != ref.manifest) lost.insert(ref.manifest);
    }
  }
  if (lost.empty()) return;
  const auto unleased = [&](const MountedVersion& version) { return !version.leased && lost.contains(version.manifest); };
  for (const auto& inode : inodes_.Select([&](const Inode& known) {
         if (known.kind != Kind::kDirectory && known.kind != Kind::kDeltaPart) return false;
         const auto& version = static_cast<const DirectoryInode&>(known).version;
         return version && unleased(*version);
       })) {
    (void)LeaseAllOf(static_cast<const DirectoryInode&>(*inode));  // too late: whoever asks next is told
  }
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
  if (options_.version) return;  // nothing here follows a ref
  LeaseKnown(before, after);
  const auto old_branches = before.Branches(), new_branches = after.Branches();
  if (!old_branches || !new_branches) return;  // the timeouts do it, a second later
  bool root_changed = false;
  std::map<std::string, Ref> all = *new_branches;
  all.insert(old_branches->begin(), old_branches->end());
  for (const auto& [name, ref] : all) {
    const auto old_branch = old_branches->find(name), new_branch = new_branches->find(name);
    const bool had = old_branch != old_branches->end(), has = new_branch != new_branches->end();
    if (had != has && options_.branch.empty()) {
      root_changed = true;
      invalidator.InvalidateEntry(kRootNode, name);
    }
    // Of a branch that is gone too: it may come again, under the same number, before the kernel has let go of it.
    const auto old_tags = before.Tags(name), new_tags = after.Tags(name);
    if (!old_tags || !new_tags) continue;
    const auto changed = names_that_differ(*old_tags, *new_tags);
    const bool head_moved = had != has || old_branch->second.manifest != new_branch->second.manifest;
    if (changed.empty() && !head_moved) continue;
    const NodeId node = KnownBranch(name);
    if (node == 0) continue;
    for (const std::string& tag : changed) invalidator.InvalidateEntry(node, tag);
    invalidator.InvalidateEntry(node, kLatestName);
    invalidator.InvalidateInode(node);
  }
  if (root_changed) invalidator.InvalidateInode(kRootNode);
}

// The number the kernel knows a branch by; 0: it does not.
NodeId VersionsFs::KnownBranch(const std::string& name) const {
  if (!options_.branch.empty()) return name == options_.branch ? kRootNode : 0;
  const auto branch = MakeBranch(name);
  return inodes_.Known(Preferred(*branch), *branch);
}

}  // namespace mirage
