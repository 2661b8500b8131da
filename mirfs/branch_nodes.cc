// BranchFs: attributes and extended attributes of one inode.
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <cmath>
#include <mutex>

#include "mirfs/branch_fs.h"
#include "mirfs/clock.h"
#include "mirfs/posix_acl.h"

namespace mirage {
namespace {

constexpr double kForever = 10.0 * 365 * 86400;  // nobody else changes the tree
constexpr double kHostFileTimeout = 0.1;
constexpr blksize_t kBlockSize = 4096;
constexpr size_t kMaxXattrName = 255, kMaxXattrValue = 64 << 10;
constexpr off_t kDirectorySize = 4096;

// The kernel asks the filesystem which namespaces it has.
Status CheckNamespace(std::string_view name) {
  if (name == kAclAccess || name == kAclDefault) return {};
  for (const std::string_view space : {"user.", "trusted.", "security."}) {
    if (!name.starts_with(space)) continue;
    if (name == space) return Fail(EINVAL, "attribute {}: no name", name);
    return {};
  }
  return Fail(EOPNOTSUPP, "attribute {}: no such namespace", name);
}

}  // namespace

Result<struct stat> BranchFs::StatOf(Node& node) const {
  const InodeRecord& record = node.record;
  struct stat st {};
  st.st_ino = node.id;
  st.st_mode = record.StMode();
  st.st_nlink = record.nlink;
  st.st_uid = record.uid;
  st.st_gid = record.gid;
  st.st_blksize = kBlockSize;
  st.st_mtim = record.mtime;
  st.st_ctim = record.ctime;
  st.st_atim = record.atime;
  uint64_t size = 0;
  switch (record.type) {
    case FileType::kDirectory:
      size = kDirectorySize;
      break;
    case FileType::kSymlink:
      size = record.lower ? record.lower->size : record.target.size();
      break;
    case FileType::kCharDevice:
    case FileType::kBlockDevice:
      st.st_rdev = makedev(record.rdev_major, record.rdev_minor);
      break;
    case FileType::kRegular: {
      size = record.lower_valid;
      if (!node.file) break;
      ASSIGN_OR_RETURN(const auto host, node.file->Stat());
      if (!host) break;
      size = static_cast<uint64_t>(host->st_size);
      st.st_mtim = host->st_mtim;
      st.st_atim = host->st_atim;
      if (Later(host->st_ctim, st.st_ctim)) st.st_ctim = host->st_ctim;
      if (record.lower_valid == 0) st.st_blocks = host->st_blocks;
      break;
    }
    default:
      break;
  }
  st.st_size = static_cast<off_t>(size);
  if (st.st_blocks == 0 && (record.type != FileType::kRegular || record.lower_valid > 0)) {
    st.st_blocks = static_cast<blkcnt_t>((size + 511) / 512);
  }
  return st;
}

Result<NodeAttributes> BranchFs::Attributes(Node& node) const {
  NodeAttributes attributes;
  attributes.node = node.id;
  ASSIGN_OR_RETURN(attributes.stat, StatOf(node));
  attributes.entry_timeout_s = kForever;
  // A mapping of a file that the kernel writes itself changes its times where neither it nor we see it.
  attributes.attribute_timeout_s = node.host_handles > 0 ? kHostFileTimeout : kForever;
  return attributes;
}

Result<NodeAttributes> BranchFs::Enter(Node& node) {
  ASSIGN_OR_RETURN(auto attributes, GetAttributes(node.id));
  AddLookup(node);
  return attributes;
}

double BranchFs::NegativeTimeout(NodeId) { return kForever; }

Result<NodeAttributes> BranchFs::GetAttributes(NodeId id) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  if (node->record.type == FileType::kRegular) {
    // The data file is looked for once, by whoever comes first.
    bool needs_file = false;
    {
      const std::shared_lock lock(node->mutex);
      if (!node->record.may_have_data || node->file || node->removed) return Attributes(*node);
      needs_file = true;
    }
    if (needs_file) {
      const std::unique_lock lock(node->mutex);
      TRY(FileOf(*node));
      return Attributes(*node);
    }
  }
  const std::shared_lock lock(node->mutex);
  return Attributes(*node);
}

Result<std::string> BranchFs::ReadLink(NodeId id) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  if (node->record.type != FileType::kSymlink) return Fail(EINVAL, "inode {:#x}: not a symbolic link", id);
  if (node->record.lower) return trees_.SymlinkTarget(*node->record.lower);
  return node->record.target;
}

Status BranchFs::PutRecord(Node& node) {
  if (node.removed) return {};
  OverlayDb::Batch batch;
  batch.PutInode(node.id, node.record);
  TRY(db_.Write(batch));
  node.stored = true;
  node.changed = db_.sequence();
  return {};
}

Result<NodeAttributes> BranchFs::SetAttributes(NodeId id, const AttributeChange& change) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  const std::unique_lock lock(node->mutex);
  InodeRecord& record = node->record;
  const bool regular = record.type == FileType::kRegular;
  if (change.size) {
    if (!regular) return Fail(record.is_directory() ? EISDIR : EINVAL, "inode {:#x}: not a file", id);
    if (change.stat.st_size < 0 || static_cast<uint64_t>(change.stat.st_size) > kMaxFileSize) {
      return Fail(EFBIG, "inode {:#x}: too large", id);
    }
    TRY(Truncate(*node, static_cast<uint64_t>(change.stat.st_size)));
  }
  const struct timespec now = Now();
  UpperFile* file = nullptr;
  std::optional<struct stat> host;
  if (regular && record.may_have_data && !node->removed) {
    ASSIGN_OR_RETURN(file, FileOf(*node));
    ASSIGN_OR_RETURN(host, file->Stat());
  }
  InodeRecord next = record;
  bool put = false;
  if (change.mode) {
    next.mode = static_cast<uint16_t>(change.stat.st_mode & 07777);
    ASSIGN_OR_RETURN(auto xattrs, XattrsOf(*node));
    if (const auto acl = xattrs.find(std::string(kAclAccess)); acl != xattrs.end()) {
      ASSIGN_OR_RETURN(acl->second, AclWithMode(acl->second, next.mode));
      next.xattrs = std::move(xattrs);
      next.own_xattrs = true;
    }
    put = true;
  }
  if (change.uid) next.uid = change.stat.st_uid;
  if (change.gid) next.gid = change.stat.st_gid;
  put = put || change.uid || change.gid;
  const bool mtime = change.mtime || change.mtime_now, atime = change.atime || change.atime_now;
  if (mtime || atime) {
    const struct timespec new_mtime = change.mtime_now ? now : change.stat.st_mtim;
    const struct timespec new_atime = change.atime_now ? now : change.stat.st_atim;
    if (host) {
      // Their ctime is the data file's: no record needed.
      const struct timespec keep{0, UTIME_OMIT};
      TRY(file->SetTimes({atime ? new_atime : keep, mtime ? new_mtime : keep}));
      data_written_ = true;
      CloseIfIdle(*node);
    } else {
      if (mtime) next.mtime = new_mtime;
      if (atime) next.atime = new_atime;
      put = true;
    }
  }
  if (put) {
    next.ctime = now;
    OverlayDb::Batch batch;
    batch.PutInode(node->id, next);
    if (!node->removed) {
      TRY(db_.Write(batch));
      node->stored = true;
      node->changed = db_.sequence();
    }
    record.mode = next.mode;
    record.uid = next.uid;
    record.gid = next.gid;
    record.mtime = next.mtime;
    record.atime = next.atime;
    record.ctime = next.ctime;
    record.own_xattrs = next.own_xattrs;
    record.xattrs = std::move(next.xattrs);
  }
  return Attributes(*node);
}

Result<XattrSet> BranchFs::XattrsOf(const Node& node) const {
  if (node.record.own_xattrs) return node.record.xattrs;
  if (!node.record.lower || node.record.lower->xattrs.IsZero()) return XattrSet();
  return trees_.Xattrs(*node.record.lower);
}

Result<std::string> BranchFs::GetXattr(NodeId id, std::string_view name) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  const std::shared_lock lock(node->mutex);
  ASSIGN_OR_RETURN(auto xattrs, XattrsOf(*node));
  const auto found = xattrs.find(std::string(name));
  if (found == xattrs.end()) return Fail(ENODATA, "inode {:#x}: no attribute {}", id, name);
  return std::move(found->second);
}

Result<std::vector<std::string>> BranchFs::ListXattrs(NodeId id) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  const std::shared_lock lock(node->mutex);
  ASSIGN_OR_RETURN(const auto xattrs, XattrsOf(*node));
  std::vector<std::string> names;
  for (const auto& [name, value] : xattrs) names.push_back(name);
  return names;
}

Status BranchFs::SetXattr(NodeId id, std::string_view name, std::string_view value, int flags) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  if (name.size() > kMaxXattrName) return Fail(ERANGE, "inode {:#x}: attribute name too long", id);
  TRY(CheckNamespace(name));
  if (value.size() > kMaxXattrValue) return Fail(E2BIG, "inode {:#x}: attribute {} too large", id, name);
  const std::unique_lock lock(node->mutex);
  ASSIGN_OR_RETURN(auto xattrs, XattrsOf(*node));
  const bool exists = xattrs.contains(std::string(name));
  if (exists && (flags & XATTR_CREATE)) return Fail(EEXIST, "inode {:#x}: attribute {} exists", id, name);
  if (!exists && (flags & XATTR_REPLACE)) return Fail(ENODATA, "inode {:#x}: no attribute {}", id, name);
  InodeRecord& record = node->record;
  uint16_t mode = record.mode;
  bool minimal = false;
  if (name == kAclAccess) {
    ASSIGN_OR_RETURN(mode, ModeFromAcl(value, mode, &minimal));
  } else if (name == kAclDefault) {
    if (!record.is_directory()) return Fail(EACCES, "inode {:#x}: a default list is for directories", id);
    bool unused = false;
    TRY(ModeFromAcl(value, mode, &unused));  // well-formed?
  }
  if (minimal) {
    xattrs.erase(std::string(name));
  } else {
    xattrs[std::string(name)] = value;
  }
  auto encoded = EncodeXattrs(xattrs);
  if (!xattrs.empty() && !encoded) return Fail(ENOSPC, "inode {:#x}: {}", id, encoded.error().message);
  std::swap(record.xattrs, xattrs);
  const auto ctime = std::exchange(record.ctime, Now());
  const bool own = std::exchange(record.own_xattrs, true);
  std::swap(record.mode, mode);
  auto put = PutRecord(*node);
  if (!put) {
    std::swap(record.xattrs, xattrs);
    record.ctime = ctime;
    record.own_xattrs = own;
    record.mode = mode;
  }
  return put;
}

Status BranchFs::RemoveXattr(NodeId id, std::string_view name) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  const std::unique_lock lock(node->mutex);
  ASSIGN_OR_RETURN(auto xattrs, XattrsOf(*node));
  if (xattrs.erase(std::string(name)) == 0) return Fail(ENODATA, "inode {:#x}: no attribute {}", id, name);
  InodeRecord& record = node->record;
  std::swap(record.xattrs, xattrs);
  const auto ctime = std::exchange(record.ctime, Now());
  const bool own = std::exchange(record.own_xattrs, true);
  auto put = PutRecord(*node);
  if (!put) {
    std::swap(record.xattrs, xattrs);
    record.ctime = ctime;
    record.own_xattrs = own;
  }
  return put;
}

std::string BranchFs::Describe(NodeId id) {
  const auto node = GetNode(id);
  if (!node) return name_;
  const InodeRecord& record = (*node)->record;  // what is read of it never changes
  return record.lower ? fmt::format("{}, version {}, path /{}", name_, base_name_, record.origin)
                      : fmt::format("{}, file {}", name_, data_.PathOf(id));
}

Result<struct statvfs> BranchFs::StatFilesystem() {
  struct statvfs st {};
  if (::statvfs(data_.path().c_str(), &st) != 0) return FailErrno(errno, "statfs " + data_.path());
  st.f_namemax = NAME_MAX;
  return st;
}

}  // namespace mirage
