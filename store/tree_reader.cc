#include "store/tree_reader.h"

#include <algorithm>

namespace mirage {
namespace {

constexpr size_t kWalkBatch = 256;  // entries of one directory held at a time
constexpr size_t kStagedCacheBytes = 8 << 20;

Result<Entry> DecodeNamed(const ObjectId& tree, std::string_view name, std::string_view value) {
  auto entry = DecodeEntry(value);
  if (!entry) return Annotate(std::move(entry).error(), fmt::format("tree {}: {}", tree.Hex(), name));
  return entry;
}

}  // namespace

TreeReader::TreeReader(std::shared_ptr<const Library> library)
    : library_(std::move(library)), objects_(&library_->objects()), trees_(&library_->trees()), links_(&library_->links()) {}

TreeReader::TreeReader(std::shared_ptr<const Library> library, const ObjectReader& objects)
    : library_(std::move(library)),
      own_trees_(std::make_shared<MapReader>(objects, ObjectKind::kTree, kStagedCacheBytes)),
      own_links_(std::make_shared<MapReader>(objects, ObjectKind::kLinks, kStagedCacheBytes)),
      objects_(&objects), trees_(own_trees_.get()), links_(own_links_.get()) {}

Result<std::optional<Entry>> TreeReader::Lookup(const ObjectId& tree, std::string_view name) const {
  ASSIGN_OR_RETURN(const std::optional<std::string> value, trees_->Find(tree, name));
  if (!value) return std::nullopt;
  ASSIGN_OR_RETURN(Entry entry, DecodeNamed(tree, name, *value));
  return entry;
}

Result<std::vector<NamedEntry>> TreeReader::List(const ObjectId& tree) const {
  std::vector<NamedEntry> entries;
  TRY(Scan(tree, 0, [&](std::string_view name, const Entry& entry) {
    entries.push_back({std::string(name), entry});
    return true;
  }));
  return entries;
}

Status TreeReader::Scan(const ObjectId& tree, uint64_t index,
                        const std::function<bool(std::string_view name, const Entry&)>& visit) const {
  Status status;
  TRY(trees_->ScanFrom(tree, index, [&](std::string_view name, std::string_view value) {
    auto entry = DecodeNamed(tree, name, value);
    if (entry) return visit(name, *entry);
    status = tl::make_unexpected(std::move(entry).error());
    return false;
  }));
  return status;
}

Result<uint64_t> TreeReader::Count(const ObjectId& tree) const { return trees_->Count(tree); }

Result<Entry> TreeReader::Find(const Entry& root, std::string_view path) const {
  Entry entry = root;
  for (size_t at = 0; at < path.size();) {
    const size_t slash = std::min(path.find('/', at), path.size());
    const std::string_view name = path.substr(at, slash - at);
    at = slash + 1;
    if (name.empty() || name == ".") continue;
    if (name == "..") return Fail(EINVAL, "{}: \"..\" is not followed", path);
    if (!entry.is_directory()) return FailErrno(ENOTDIR, path);
    ASSIGN_OR_RETURN(std::optional<Entry> child, Lookup(entry.id, name));
    if (!child) return FailErrno(ENOENT, path);
    entry = std::move(*child);
  }
  return entry;
}

Status TreeReader::Walk(const Entry& root, const Visit& visit) const {
  // An explicit stack: the depth comes from the image. Directories are read in batches: their width does too.
  struct Level {
    ObjectId tree;
    size_t path_bytes;
    std::vector<NamedEntry> batch;
    size_t next = 0;
    uint64_t position = 0;  // in the directory, behind the batch
    bool complete = false;
  };
  std::vector<Level> levels;
  std::string path;
  levels.push_back({root.id, 0, {}});
  if (!root.is_directory()) return FailErrno(ENOTDIR, "walk");
  while (!levels.empty()) {
    Level& level = levels.back();
    if (level.next == level.batch.size()) {
      if (level.complete) {
        levels.pop_back();
        continue;
      }
      level.batch.clear();
      level.next = 0;
      level.complete = true;
      TRY(Scan(level.tree, level.position, [&level](std::string_view name, const Entry& entry) {
        level.complete = level.batch.size() < kWalkBatch;
        if (level.complete) level.batch.push_back({std::string(name), entry});
        return level.complete;
      }));
      level.position += level.batch.size();
      continue;
    }
    const NamedEntry& named = level.batch[level.next++];
    path.resize(level.path_bytes);
    if (!path.empty()) path += '/';
    path += named.name;
    if (path.size() > kMaxPathBytes) {
      return Fail(EIO, "tree {}: a path of more than {} bytes", root.id.Hex(), kMaxPathBytes);
    }
    ASSIGN_OR_RETURN(const bool descend, visit(path, named.entry));
    if (descend && named.entry.is_directory()) levels.push_back({ObjectId(named.entry.id), path.size(), {}});
  }
  return {};
}

namespace {

// An entry named the content: that a piece of it, or a pack, is not there is damage, and no "no such file".
Status Named(Status status) {
  if (!status && status.error().code == ENOENT) status.error().code = EIO;
  return status;
}

}  // namespace

Result<std::string> TreeReader::SymlinkTarget(const Entry& entry) const {
  if (entry.type != FileType::kSymlink) return FailErrno(EINVAL, "not a symbolic link");
  if (entry.size <= kInlineSymlinkBytes) return entry.target;
  std::string target;
  TRY(Named(library_->contents().Read(entry.id, entry.size, 0, static_cast<size_t>(entry.size), &target)));
  if (target.size() != entry.size || target.find('\0') != std::string::npos) {
    return Fail(EIO, "content {}: not a symbolic link's target of {} bytes", entry.id.Hex(), entry.size);
  }
  return target;
}

Result<XattrSet> TreeReader::Xattrs(const Entry& entry) const { return ReadXattrs(*objects_, entry.xattrs); }

Status TreeReader::Read(const Entry& entry, uint64_t offset, size_t length, std::string* out) const {
  Pieces pieces;
  TRY(Read(entry, offset, length, &pieces));
  pieces.AppendTo(out);
  return {};
}

Status TreeReader::Read(const Entry& entry, uint64_t offset, size_t length, Pieces* out) const {
  if (entry.type != FileType::kRegular) return FailErrno(entry.is_directory() ? EISDIR : EINVAL, "read");
  return Named(library_->contents().Read(entry.id, entry.size, offset, length, out));
}

Result<std::optional<std::string>> TreeReader::LinkGroup(const ObjectId& links, std::string_view path) const {
  return links_->Find(links, path);
}

Result<std::map<std::string, std::vector<std::string>>> TreeReader::LinkGroups(const ObjectId& links) const {
  std::map<std::string, std::vector<std::string>> groups;
  TRY(links_->Scan(links, "", [&](std::string_view path, std::string_view first) {
    groups[std::string(first)].emplace_back(path);
    return true;
  }));
  for (const auto& [first, members] : groups) {
    if (members.size() < 2 || members.front() != first) {
      return Fail(EIO, "links {}: \"{}\" is not the first of a group", links.Hex(), first);
    }
  }
  return groups;
}

}  // namespace mirage
