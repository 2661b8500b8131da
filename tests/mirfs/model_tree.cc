#include "tests/mirfs/model_tree.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include <algorithm>
#include <functional>

#include "store/tree_reader.h"
#include "store/tree_writer.h"

namespace mirage::testing {
namespace {

std::string Join(const std::string& directory, const std::string& name) {
  return directory.empty() ? name : directory + "/" + name;
}
int Code(const Status& status) { return status ? 0 : status.error().code; }
template <typename T>
int Code(const Result<T>& result) { return result ? 0 : result.error().code; }

void Visit(const ModelPtr& node, const std::string& path,
           const std::function<void(const std::string&, const ModelPtr&)>& visit) {
  if (!path.empty()) visit(path, node);
  for (const auto& [name, child] : node->children) Visit(child, Join(path, name), visit);
}

std::string Brief(const std::string& bytes) { return fmt::format("{} bytes, hash {:.8}", bytes.size(), HashBytes(bytes).Hex()); }

}  // namespace

ModelTree::ModelTree() : root_(std::make_shared<ModelNode>()) {
  root_->type = FileType::kDirectory;
  root_->mode = 0755;
}

ModelPtr ModelTree::Find(const std::string& path) const {
  ModelPtr at = root_;
  for (size_t from = 0; from < path.size();) {
    const size_t slash = std::min(path.find('/', from), path.size());
    const auto child = at->children.find(path.substr(from, slash - from));
    if (child == at->children.end()) return nullptr;
    at = child->second;
    from = slash + 1;
  }
  return at;
}

int ModelTree::FindParent(const std::string& path, ModelPtr* parent, std::string* name) const {
  const size_t slash = path.rfind('/');
  *name = slash == std::string::npos ? path : path.substr(slash + 1);
  *parent = Find(slash == std::string::npos ? "" : path.substr(0, slash));
  if (!*parent) return ENOENT;
  return (*parent)->type == FileType::kDirectory ? 0 : ENOTDIR;
}

int ModelTree::Make(const std::string& path, FileType type, uint16_t mode, const std::string& target) {
  ModelPtr parent;
  std::string name;
  if (const int error = FindParent(path, &parent, &name)) return error;
  if (parent->children.contains(name)) return EEXIST;
  auto node = std::make_shared<ModelNode>();
  node->type = type;
  node->mode = type == FileType::kSymlink ? 0777 : mode;
  node->bytes = target;
  parent->children[name] = node;
  return 0;
}

int ModelTree::Write(const std::string& path, uint64_t offset, const std::string& bytes) {
  const auto node = Find(path);
  if (!node) return ENOENT;
  if (node->type != FileType::kRegular) return EINVAL;
  if (bytes.empty()) return 0;
  if (node->bytes.size() < offset + bytes.size()) node->bytes.resize(offset + bytes.size());
  node->bytes.replace(offset, bytes.size(), bytes);
  return 0;
}

int ModelTree::Truncate(const std::string& path, uint64_t size) {
  const auto node = Find(path);
  if (!node) return ENOENT;
  if (node->type != FileType::kRegular) return node->type == FileType::kDirectory ? EISDIR : EINVAL;
  node->bytes.resize(size);
  return 0;
}

int ModelTree::Punch(const std::string& path, uint64_t offset, uint64_t length) {
  const auto node = Find(path);
  if (!node) return ENOENT;
  if (node->type != FileType::kRegular) return ENODEV;
  for (uint64_t at = offset; at < std::min<uint64_t>(offset + length, node->bytes.size()); ++at) node->bytes[at] = 0;
  return 0;
}

int ModelTree::Chmod(const std::string& path, uint16_t mode) {
  const auto node = Find(path);
  if (!node) return ENOENT;
  node->mode = mode;
  return 0;
}

int ModelTree::SetXattr(const std::string& path, const std::string& name, const std::string& value) {
  const auto node = Find(path);
  if (!node) return ENOENT;
  node->xattrs[name] = value;
  return 0;
}

int ModelTree::RemoveXattr(const std::string& path, const std::string& name) {
  const auto node = Find(path);
  if (!node) return ENOENT;
  return node->xattrs.erase(name) ? 0 : ENODATA;
}

int ModelTree::Link(const std::string& from, const std::string& to) {
  const auto node = Find(from);
  if (!node) return ENOENT;
  ModelPtr parent;
  std::string name;
  if (const int error = FindParent(to, &parent, &name)) return error;
  if (node->type == FileType::kDirectory) return EPERM;
  return parent->children.try_emplace(name, node).second ? 0 : EEXIST;
}

int ModelTree::Unlink(const std::string& path) {
  ModelPtr parent;
  std::string name;
  if (const int error = FindParent(path, &parent, &name)) return error;
  const auto found = parent->children.find(name);
  if (found == parent->children.end()) return ENOENT;
  if (found->second->type == FileType::kDirectory) return EISDIR;
  parent->children.erase(found);
  return 0;
}

int ModelTree::RemoveDirectory(const std::string& path) {
  ModelPtr parent;
  std::string name;
  if (const int error = FindParent(path, &parent, &name)) return error;
  const auto found = parent->children.find(name);
  if (found == parent->children.end()) return ENOENT;
  if (found->second->type != FileType::kDirectory) return ENOTDIR;
  if (!found->second->children.empty()) return ENOTEMPTY;
  parent->children.erase(found);
  return 0;
}

int ModelTree::Rename(const std::string& from, const std::string& to, unsigned flags) {
  ModelPtr from_parent, to_parent;
  std::string from_name, to_name;
  if (const int error = FindParent(from, &from_parent, &from_name)) return error;
  if (const int error = FindParent(to, &to_parent, &to_name)) return error;
  const auto source = from_parent->children.find(from_name);
  if (source == from_parent->children.end()) return ENOENT;
  const ModelPtr node = source->second;
  const auto target = to_parent->children.find(to_name);
  const ModelPtr victim = target == to_parent->children.end() ? nullptr : target->second;
  if (victim && (flags & RENAME_NOREPLACE)) return EEXIST;
  if (!victim && (flags & RENAME_EXCHANGE)) return ENOENT;
  if (victim == node) return 0;
  if (to.starts_with(from + "/")) return EINVAL;
  if (flags & RENAME_EXCHANGE) {
    if (from.starts_with(to + "/")) return EINVAL;
    from_parent->children[from_name] = victim;
    to_parent->children[to_name] = node;
    return 0;
  }
  if (victim) {
    const bool directory = node->type == FileType::kDirectory;
    if (victim->type == FileType::kDirectory) {
      if (!directory) return EISDIR;
      if (!victim->children.empty()) return ENOTEMPTY;
    } else if (directory) {
      return ENOTDIR;
    }
  }
  from_parent->children.erase(from_name);
  to_parent->children[to_name] = node;
  return 0;
}

std::vector<std::string> ModelTree::Paths() const {
  std::vector<std::string> paths;
  Visit(root_, "", [&](const std::string& path, const ModelPtr&) { paths.push_back(path); });
  return paths;
}

std::vector<std::vector<std::string>> ModelTree::LinkGroups() const {
  std::map<const ModelNode*, std::vector<std::string>> names;
  Visit(root_, "", [&](const std::string& path, const ModelPtr& node) { names[node.get()].push_back(path); });
  std::vector<std::vector<std::string>> groups;
  for (auto& [node, paths] : names) {
    std::sort(paths.begin(), paths.end());
    if (paths.size() > 1) groups.push_back(paths);
  }
  std::sort(groups.begin(), groups.end());
  return groups;
}

Result<Published> ModelTree::Publish(const std::shared_ptr<Library>& library, const std::string& branch) const {
  ASSIGN_OR_RETURN(const auto transaction, library->Begin("model"));
  std::map<std::string, Entry> entries;
  Status status;
  Visit(root_, "", [&](const std::string& path, const ModelPtr& node) {
    Entry& entry = entries[path];
    entry.type = node->type;
    entry.mode = node->mode;
    entry.mtime_sec = 1'000'000'000;
    if (!node->xattrs.empty()) {
      auto id = transaction->WriteObject(ObjectKind::kXattrs, *EncodeXattrs(node->xattrs));
      if (id) entry.xattrs = *id;
    }
    const auto done = [&entry](const ObjectId& id, uint64_t) { entry.id = id; };
    if (node->type == FileType::kSymlink) {
      entry.size = node->bytes.size();
      entry.target = node->bytes;
    } else if (node->type == FileType::kRegular) {
      entry.size = node->bytes.size();
      entry.id = kEmptyContentId;
      if (auto put = transaction->contents().Put(node->bytes, done); !put && status) status = put;
    }
  });
  TRY(status);
  TRY(transaction->contents().Flush());
  TreeWriter writer(*transaction);
  Entry root;
  root.type = FileType::kDirectory;
  root.mode = root_->mode;
  TRY(writer.Add("", root));
  Visit(root_, "", [&](const std::string& path, const ModelPtr&) {
    if (auto added = writer.Add(path, entries[path]); !added && status) status = added;
  });
  TRY(status);
  NewVersion version;
  ASSIGN_OR_RETURN(version.manifest.root, writer.Finish());
  ASSIGN_OR_RETURN(version.manifest.links, WriteLinks(*transaction, LinkGroups()));
  version.manifest.branch = branch;
  version.manifest.file_count = writer.file_count();
  version.manifest.total_bytes = writer.total_bytes();
  ASSIGN_OR_RETURN(const auto head, library->snapshot()->Branch(branch));
  if (head) {
    version.expected_head = head->manifest;
    version.manifest.parents = {head->manifest};
  }
  return transaction->Publish(std::move(version));
}

std::string ModelTree::DifferenceFrom(const std::shared_ptr<Library>& library, const ObjectId& id) const {
  std::string out;
  if (auto refreshed = library->Refresh(); !refreshed) return refreshed.error().message;
  const auto manifest = ReadManifest(library->objects(), id);
  if (!manifest) return manifest.error().message;
  const TreeReader reader(library);
  std::map<std::string, Entry> entries;
  uint64_t total = 0;
  const auto walked = reader.Walk(manifest->root, [&](const std::string& path, const Entry& entry) -> Result<bool> {
    if (!path.empty()) entries[path] = entry;
    return true;
  });
  if (!walked) return walked.error().message;
  uint64_t count = 0;
  Visit(root_, "", [&](const std::string& path, const ModelPtr& node) {
    ++count;
    if (node->type == FileType::kRegular) total += node->bytes.size();
    const auto found = entries.find(path);
    if (found == entries.end()) {
      out += path + ": missing\n";
      return;
    }
    const Entry& entry = found->second;
    if (entry.type != node->type || entry.mode != node->mode) out += path + ": type or mode\n";
    if (node->type == FileType::kRegular) {
      std::string bytes;
      if (auto read = reader.Read(entry, 0, entry.size, &bytes); !read) out += path + ": " + read.error().message + "\n";
      if (bytes != node->bytes) out += fmt::format("{}: {}, not {}\n", path, Brief(bytes), Brief(node->bytes));
      if (!node->bytes.empty() && entry.id != HashBytes(node->bytes)) out += path + ": content id\n";
    }
    if (node->type == FileType::kSymlink && reader.SymlinkTarget(entry).value_or("") != node->bytes) out += path + ": target\n";
    if (node->type == FileType::kDirectory) {
      const auto subdirectories = std::count_if(node->children.begin(), node->children.end(),
                                                [](const auto& c) { return c.second->type == FileType::kDirectory; });
      if (entry.size != static_cast<uint64_t>(subdirectories)) out += path + ": number of subdirectories\n";
    }
    if (reader.Xattrs(entry).value_or(XattrSet()) != node->xattrs) out += path + ": xattrs\n";
    entries.erase(found);
  });
  for (const auto& [path, entry] : entries) out += path + ": should not be\n";
  if (manifest->file_count != count) out += fmt::format("file_count {}, not {}\n", manifest->file_count, count);
  if (manifest->total_bytes != total) out += fmt::format("total_bytes {}, not {}\n", manifest->total_bytes, total);
  std::vector<std::vector<std::string>> groups;
  if (!manifest->links.IsZero()) {
    const auto links = reader.LinkGroups(manifest->links);
    if (!links) return out + links.error().message;
    for (const auto& [first, members] : *links) groups.push_back(members);
  }
  std::sort(groups.begin(), groups.end());
  if (groups != LinkGroups()) {
    out += "link groups differ\n";
    for (const auto& group : groups) out += fmt::format("  is     {}\n", fmt::join(group, " "));
    for (const auto& group : LinkGroups()) out += fmt::format("  should {}\n", fmt::join(group, " "));
  }
  return out;
}

Result<PathFs::Found> PathFs::Walk(const std::string& path) {
  Found found(fs_, {});
  for (size_t from = 0; from < path.size();) {
    const size_t slash = std::min(path.find('/', from), path.size());
    ASSIGN_OR_RETURN(const auto attributes, fs_.Lookup(found.id(), path.substr(from, slash - from)));
    found.Add(attributes.node);
    from = slash + 1;
  }
  return found;
}

Result<PathFs::Found> PathFs::WalkParent(const std::string& path, std::string* name) {
  const size_t slash = path.rfind('/');
  *name = slash == std::string::npos ? path : path.substr(slash + 1);
  return Walk(slash == std::string::npos ? "" : path.substr(0, slash));
}

#define WALK(var, path)            \
  auto var##_ = Walk(path);        \
  if (!var##_) return Code(var##_); \
  const NodeId var = var##_->id()
#define WALK_PARENT(var, path, name)        \
  std::string name;                         \
  auto var##_ = WalkParent(path, &name);    \
  if (!var##_) return Code(var##_);         \
  const NodeId var = var##_->id()

int PathFs::Make(const std::string& path, FileType type, uint16_t mode, const std::string& target) {
  WALK_PARENT(parent, path, name);
  if (type == FileType::kRegular) {
    OpenFile opened;
    const auto made = fs_.Create(parent, name, mode, O_RDWR, {}, false, &opened);
    if (!made) return made.error().code;
    fs_.Release(made->node, opened.handle);
    fs_.Forget(made->node, 1);
    return 0;
  }
  const auto made = type == FileType::kSymlink ? fs_.MakeSymlink(parent, name, target, {})
                                               : fs_.MakeNode(parent, name, ModeBits(type) | mode, 0, {});
  if (made) fs_.Forget(made->node, 1);
  return Code(made);
}

int PathFs::Write(const std::string& path, uint64_t offset, const std::string& bytes) {
  WALK(node, path);
  return Code(fs_.Write(node, 0, offset, bytes));
}

int PathFs::Truncate(const std::string& path, uint64_t size) {
  WALK(node, path);
  AttributeChange change;
  change.size = true;
  change.stat.st_size = static_cast<off_t>(size);
  return Code(fs_.SetAttributes(node, change));
}

int PathFs::Punch(const std::string& path, uint64_t offset, uint64_t length) {
  WALK(node, path);
  return Code(fs_.Allocate(node, 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length));
}

int PathFs::Chmod(const std::string& path, uint16_t mode) {
  WALK(node, path);
  AttributeChange change;
  change.mode = true;
  change.stat.st_mode = mode;
  return Code(fs_.SetAttributes(node, change));
}

int PathFs::SetXattr(const std::string& path, const std::string& name, const std::string& value) {
  WALK(node, path);
  return Code(fs_.SetXattr(node, name, value, 0));
}

int PathFs::RemoveXattr(const std::string& path, const std::string& name) {
  WALK(node, path);
  return Code(fs_.RemoveXattr(node, name));
}

int PathFs::Link(const std::string& from, const std::string& to) {
  WALK(node, from);
  WALK_PARENT(parent, to, name);
  const auto linked = fs_.Link(node, parent, name);
  if (linked) fs_.Forget(linked->node, 1);
  return Code(linked);
}

int PathFs::Unlink(const std::string& path) {
  WALK_PARENT(parent, path, name);
  return Code(fs_.Unlink(parent, name));
}

int PathFs::RemoveDirectory(const std::string& path) {
  WALK_PARENT(parent, path, name);
  return Code(fs_.RemoveDirectory(parent, name));
}

int PathFs::Rename(const std::string& from, const std::string& to, unsigned flags) {
  WALK_PARENT(source, from, from_name);
  WALK_PARENT(target, to, to_name);
  return Code(fs_.Rename(source, from_name, target, to_name, flags));
}

int PathFs::Sync(const std::string& path) {
  WALK(node, path);
  return Code(fs_.Sync(node, 0, false));
}

Result<struct stat> PathFs::Stat(const std::string& path) {
  ASSIGN_OR_RETURN(const auto found, Walk(path));
  ASSIGN_OR_RETURN(const auto attributes, fs_.GetAttributes(found.id()));
  return attributes.stat;
}

Result<std::string> PathFs::Read(const std::string& path) {
  ASSIGN_OR_RETURN(const auto found, Walk(path));
  ASSIGN_OR_RETURN(const auto attributes, fs_.GetAttributes(found.id()));
  std::string bytes;
  TRY(fs_.Read(found.id(), 0, 0, static_cast<size_t>(attributes.stat.st_size) + 10, &bytes));
  if (bytes.size() != static_cast<size_t>(attributes.stat.st_size)) return Fail(EIO, "size and bytes disagree");
  return bytes;
}

Result<std::vector<std::string>> PathFs::List(const std::string& path, bool plus) {
  ASSIGN_OR_RETURN(const auto found, Walk(path));
  ASSIGN_OR_RETURN(const Handle handle, fs_.OpenDirectory(found.id()));
  std::vector<std::string> names;
  std::vector<NodeId> looked_up;
  uint64_t offset = 0;
  bool more = true;
  Status status;
  // Three items at a time, as a small buffer would.
  while (more && status) {
    int room = 3;
    more = false;
    status = fs_.ReadDirectory(found.id(), handle, offset, plus, [&](const DirectoryItem& item) {
      more = true;
      if (room-- == 0) return false;
      offset = item.next_offset;
      if (item.name != "." && item.name != "..") names.emplace_back(item.name);
      if (item.attributes.node != 0) looked_up.push_back(item.attributes.node);
      return true;
    });
  }
  for (const NodeId node : looked_up) fs_.Forget(node, 1);
  fs_.ReleaseDirectory(found.id(), handle);
  TRY(status);
  return names;
}

void PathFs::DifferenceBelow(const ModelNode& model, const std::string& path, std::map<const ModelNode*, ino_t>* inodes,
                             std::string* out) {
  std::vector<std::string> names;
  for (const auto& [name, child] : model.children) names.push_back(name);
  for (const bool plus : {false, true}) {
    const auto listed = List(path, plus);
    if (!listed) {
      *out += path + ": " + listed.error().message + "\n";
    } else if (*listed != names) {
      *out += fmt::format("{}: lists {}, not {}\n", path, fmt::join(*listed, " "), fmt::join(names, " "));
    }
  }
  for (const auto& [name, child] : model.children) {
    const std::string child_path = Join(path, name);
    const auto stat = Stat(child_path);
    if (!stat) {
      *out += child_path + ": " + stat.error().message + "\n";
      continue;
    }
    if (stat->st_mode != (ModeBits(child->type) | child->mode)) {
      *out += fmt::format("{}: mode {:o}, not {:o}\n", child_path, stat->st_mode, ModeBits(child->type) | child->mode);
    }
    const auto [known, first] = inodes->try_emplace(child.get(), stat->st_ino);
    if (known->second != stat->st_ino) *out += child_path + ": another inode than its other name\n";
    const auto found = Walk(child_path);
    if (child->type == FileType::kRegular) {
      const auto bytes = Read(child_path);
      if (!bytes || *bytes != child->bytes) {
        *out += fmt::format("{}: {}, not {}\n", child_path, bytes ? Brief(*bytes) : bytes.error().message, Brief(child->bytes));
      }
    } else if (child->type == FileType::kSymlink) {
      if (fs_.ReadLink(found->id()).value_or("") != child->bytes) *out += child_path + ": target\n";
    } else if (child->type == FileType::kDirectory) {
      const auto subdirectories = std::count_if(child->children.begin(), child->children.end(),
                                                [](const auto& c) { return c.second->type == FileType::kDirectory; });
      if (stat->st_nlink != static_cast<nlink_t>(2 + subdirectories)) *out += child_path + ": link count\n";
    }
    XattrSet xattrs;
    for (const auto& attribute : fs_.ListXattrs(found->id()).value_or(std::vector<std::string>())) {
      xattrs[attribute] = fs_.GetXattr(found->id(), attribute).value_or("?");
    }
    if (xattrs != child->xattrs) *out += child_path + ": xattrs\n";
    if (child->type == FileType::kDirectory) DifferenceBelow(*child, child_path, inodes, out);
  }
}

std::string PathFs::DifferenceFrom(const ModelTree& model) {
  std::string out;
  std::map<const ModelNode*, ino_t> inodes;
  DifferenceBelow(model.root(), "", &inodes, &out);
  for (const auto& group : model.LinkGroups()) {
    for (const auto& path : group) {
      if (const auto stat = Stat(path); stat && stat->st_nlink != group.size()) out += path + ": link count\n";
    }
  }
  return out;
}

}  // namespace mirage::testing
