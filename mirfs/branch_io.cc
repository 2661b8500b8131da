// BranchFs: file bytes, and open files and directories.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

#include "mirfs/branch_fs.h"
#include "mirfs/clock.h"

namespace mirage {
namespace {

// What data leaves free of the disk, if it is not a very small one: a removal is a record of the database's log, and now and then a
// table of some megabytes.
constexpr int64_t kReserveBytes = 32 << 20;

}  // namespace

Status BranchFs::CheckRoom(uint64_t bytes, Room room) {
  const auto wanted = static_cast<int64_t>(std::min(bytes, kMaxFileSize));
  if (room_.fetch_sub(wanted) > wanted) return {};
  struct statvfs st {};
  if (::statvfs(data_.path().c_str(), &st) != 0) return FailErrno(errno, "statfs " + data_.path());
  const auto blocks = [&](fsblkcnt_t count) { return static_cast<int64_t>(count) * static_cast<int64_t>(st.f_frsize); };
  const int64_t free = blocks(st.f_bavail), reserve = std::min(kReserveBytes, blocks(st.f_blocks) / 8);
  room_ = std::max<int64_t>(0, (free - reserve) / 2);
  if (free - wanted >= (room == Room::kData ? reserve : reserve / 2)) return {};
  return Fail(ENOSPC, "{}: {} bytes free", data_.path(), free);
}

bool BranchFs::HoldReserve() {
  const std::lock_guard lock(reserve_mutex_);
  if (reserve_held_) return true;
  struct statvfs st {};
  if (::statvfs(data_.path().c_str(), &st) != 0) return false;
  const auto blocks = [&](fsblkcnt_t count) { return static_cast<int64_t>(count) * static_cast<int64_t>(st.f_frsize); };
  const int64_t reserve = std::min(kReserveBytes, blocks(st.f_blocks) / 8);
  if (blocks(st.f_bavail) < 2 * reserve) return false;
  const int file = ::open(overlay_.reserve_path().c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file < 0) return false;
  reserve_held_ = ShareLikeItsDirectory(overlay_.reserve_path(), file) && ::fallocate(file, 0, 0, reserve) == 0;
  ::close(file);
  if (!reserve_held_) ::unlink(overlay_.reserve_path().c_str());
  return reserve_held_;
}

void BranchFs::GiveReserve() {
  const std::lock_guard lock(reserve_mutex_);
  ::unlink(overlay_.reserve_path().c_str());
  reserve_held_ = false;
}

Result<UpperFile*> BranchFs::FileOf(Node& node) const {
  if (node.file) return node.file.get();
  const InodeRecord& record = node.record;
  LowerContent lower;
  if (record.lower) lower = {&library_->contents(), record.lower->id, record.lower->size};
  auto file = std::make_unique<UpperFile>(db_, data_, node.id, lower, record.lower_valid, record.may_have_data);
  TRY(file->Load());
  node.file = std::move(file);
  return node.file.get();
}

Result<UpperFile*> BranchFs::WritableFileOf(Node& node) {
  if (node.removed) return Fail(ESTALE, "inode {:#x}: it was removed", node.id);
  ASSIGN_OR_RETURN(UpperFile* file, FileOf(node));
  TRY(file->Create());
  if (!node.record.may_have_data) {
    node.record.may_have_data = true;
    if (auto put = PutRecord(node); !put) {
      node.record.may_have_data = false;
      return tl::make_unexpected(std::move(put).error());
    }
  }
  data_written_ = true;
  TRY(RecordCut(node, *file));
  return file;
}

// Until the record says so the data file's end alone keeps the bytes behind it out, and they would be back were it to grow. And
// were the record first, the disk could have the data file uncut, with zeros where bytes of the lower content were.
Status BranchFs::RecordCut(Node& node, UpperFile& file) {
  InodeRecord& record = node.record;
  if (record.lower_valid == 0) return {};
  ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  if (size >= record.lower_valid) return {};
  TRY(file.SyncData());
  const uint64_t valid = std::exchange(record.lower_valid, size);
  auto put = PutRecord(node);
  if (put) put = db_.Sync();
  if (!put) {
    record.lower_valid = valid;
    return put;
  }
  file.LowerValidTo(size);
  return {};
}

void BranchFs::CloseIfIdle(Node& node) {
  if (node.file && !HasHandles(node)) node.file->Close();
}

// The kernel clears no set-id bits and no capabilities when it writes by itself (FUSE_HANDLE_KILLPRIV_V2 makes that ours).
Result<int> BranchFs::HostFileOf(Node& node, int flags) {
  const InodeRecord& record = node.record;
  if (record.type != FileType::kRegular || record.lower_valid > 0 || node.removed) return -1;
  {
    const std::lock_guard table(table_mutex_);
    if (node.handles > node.host_handles) return -1;  // the kernel has pages of it: one way for all handles
  }
  if (node.host_handles == 0) {
    if (record.mode & (S_ISUID | S_ISGID)) return -1;
    ASSIGN_OR_RETURN(const auto xattrs, XattrsOf(node));
    if (xattrs.contains("security.capability")) return -1;
  }
  ASSIGN_OR_RETURN(UpperFile * file, FileOf(node));
  if ((flags & O_ACCMODE) != O_RDONLY) {
    ASSIGN_OR_RETURN(file, WritableFileOf(node));
  } else {
    ASSIGN_OR_RETURN(const auto host, file->Stat());
    if (!host) return -1;
  }
  return file->HostFile();
}

OpenFile BranchFs::MakeHandle(Node& node, int flags, bool host_file) {
  OpenFile opened;
  opened.handle = 1;  // all that are not the kernel's are alike
  if (host_file) {
    if (const auto descriptor = HostFileOf(node, flags); descriptor && *descriptor >= 0 && HoldReserve()) {
      opened = {.handle = kHostFileHandle, .host_file = *descriptor, .keep_cache = false};
      ++node.host_handles;
      ++host_handles_;
      node.file->SetShared(true);
      node.cache_is_old = true;
    }
  }
  if (opened.host_file < 0) opened.keep_cache = !std::exchange(node.cache_is_old, false);
  AddHandle(node);
  return opened;
}

void BranchFs::HostFileRefused(NodeId id, OpenFile* opened) {
  *opened = {.handle = 1, .host_file = -1, .keep_cache = false};
  const auto node = GetNode(id);
  if (!node) return;
  const std::unique_lock lock((*node)->mutex);
  --host_handles_;
  if (--(*node)->host_handles == 0) (*node)->file->SetShared(false);
}

Result<OpenFile> BranchFs::Open(NodeId id, int flags, bool host_file) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  if (node->record.is_directory()) return Fail(EISDIR, "inode {:#x}: a directory", id);
  const std::unique_lock lock(node->mutex);
  if (node->removed) return Fail(ESTALE, "inode {:#x}: it was removed", id);
  if ((flags & O_TRUNC) && node->record.type == FileType::kRegular) TRY(Truncate(*node, 0));
  return MakeHandle(*node, flags, host_file);
}

void BranchFs::Release(NodeId id, Handle handle) {
  auto pin = GetNode(id);
  if (!pin) return;
  Node& node = **pin;
  const std::unique_lock lock(node.mutex);
  if (handle == kHostFileHandle && node.host_handles > 0) {
    data_written_ = true;  // perhaps
    --host_handles_;
    if (--node.host_handles == 0) node.file->SetShared(false);
  }
  {
    const std::lock_guard table(table_mutex_);
    if (node.handles == 0 || --node.handles > 0) return;
  }
  if (node.file && node.file->dirty()) {
    // The sync is begun now, and waited for by nobody.
    MarkDirty(node);
    {
      const std::lock_guard background(background_mutex_);
      background_now_ = true;
    }
    background_wake_.notify_one();
  }
  if (node.file) node.file->Close();
  if (node.record.nlink > 0 || node.removed || node.record.is_directory()) return;
  OverlayDb::Batch batch;
  if (node.record.lower && node.record.may_have_data) db_.DeleteBlocks(node.id, &batch);
  batch.DeleteInode(node.id);
  batch.DeleteOrphan(node.id);
  // If it cannot be written, the orphan goes when the overlay is opened the next time.
  if (!db_.Write(batch)) return;
  node.removed = true;
  if (node.record.may_have_data) Discard(node.id);
}

Status BranchFs::ReadPieces(NodeId id, Handle, uint64_t offset, size_t size, Pieces* out) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  if (node->record.type != FileType::kRegular) return Fail(EISDIR, "inode {:#x}: not a file", id);
  std::shared_lock lock(node->mutex);
  if (!node->file) {
    lock.unlock();
    {
      const std::unique_lock exclusive(node->mutex);
      TRY(FileOf(*node));
    }
    lock.lock();
  }
  std::string bytes;
  TRY(node->file->Read(offset, size, &bytes));
  out->AddOwned(std::move(bytes));
  return {};
}

Result<uint64_t> BranchFs::Seek(NodeId id, Handle handle, uint64_t offset, int whence) {
  ASSIGN_OR_RETURN(const auto attributes, GetAttributes(id));
  if (!S_ISREG(attributes.stat.st_mode)) return Fail(EINVAL, "inode {:#x}: not a file", id);
  const auto size = static_cast<uint64_t>(attributes.stat.st_size);
  if (offset >= size) return Fail(ENXIO, "inode {:#x}: nothing at {}", id, offset);
  // A mapping may have written anywhere where the kernel asks us for the bytes.
  if (handle != kHostFileHandle) return whence == SEEK_DATA ? offset : size;
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  const std::shared_lock lock(node->mutex);
  ASSIGN_OR_RETURN(const int descriptor, node->file->HostFile());
  const off_t found = ::lseek(descriptor, static_cast<off_t>(offset), whence);
  if (found < 0) return FailErrno(errno, "seek");
  return static_cast<uint64_t>(found);
}

Result<size_t> BranchFs::Write(NodeId id, Handle, uint64_t offset, std::string_view bytes) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  if (node->record.type != FileType::kRegular) return Fail(EINVAL, "inode {:#x}: not a file", id);
  if (offset > kMaxFileSize - bytes.size()) return Fail(EFBIG, "inode {:#x}: too large", id);
  const std::unique_lock lock(node->mutex);
  if (bytes.empty()) return size_t{0};
  TRY(CheckRoom(bytes.size(), Room::kData));
  ASSIGN_OR_RETURN(UpperFile * file, WritableFileOf(*node));
  TRY(file->Write(offset, bytes));
  if (file->dirty()) MarkDirty(*node);
  CloseIfIdle(*node);
  return bytes.size();
}

Status BranchFs::Truncate(Node& node, uint64_t size) {
  if (node.removed) return Fail(ESTALE, "inode {:#x}: it was removed", node.id);
  ASSIGN_OR_RETURN(UpperFile * file, FileOf(node));
  ASSIGN_OR_RETURN(const auto host, file->Stat());
  InodeRecord& record = node.record;
  if (!host && size <= record.lower_valid) {
    // Without a data file the record alone says the size.
    const uint64_t valid = std::exchange(record.lower_valid, size);
    const struct timespec mtime = record.mtime, ctime = record.ctime;
    record.mtime = record.ctime = Now();
    if (auto put = PutRecord(node); !put) {
      record.lower_valid = valid;
      record.mtime = mtime;
      record.ctime = ctime;
      return put;
    }
    file->LowerValidTo(size);
    return {};
  }
  ASSIGN_OR_RETURN(file, WritableFileOf(node));
  TRY(file->Resize(size));
  TRY(RecordCut(node, *file));
  CloseIfIdle(node);
  return {};
}

Status BranchFs::Allocate(NodeId id, Handle, int mode, uint64_t offset, uint64_t length) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  if (node->record.type != FileType::kRegular) return Fail(ENODEV, "inode {:#x}: not a file", id);
  if (length == 0) return Fail(EINVAL, "inode {:#x}: nothing to allocate", id);
  if (length > kMaxFileSize || offset > kMaxFileSize - length) return Fail(EFBIG, "inode {:#x}: too large", id);
  const std::unique_lock lock(node->mutex);
  if (!(mode & FALLOC_FL_PUNCH_HOLE)) TRY(CheckRoom(length, Room::kData));
  ASSIGN_OR_RETURN(UpperFile * file, WritableFileOf(*node));
  TRY(file->Allocate(mode, offset, length));
  if (file->dirty()) MarkDirty(*node);
  CloseIfIdle(*node);
  return {};
}

Status BranchFs::SyncNode(Node& node, UpperFile::For whom) {
  UpperFile* file = nullptr;
  {
    const std::shared_lock lock(node.mutex);
    if (node.removed) return {};
    file = node.file.get();  // stays as long as the node
  }
  return file ? file->Sync(node.mutex, whom) : Status();
}

Status BranchFs::Sync(NodeId id, Handle, bool data_only) {
  ASSIGN_OR_RETURN(const auto node, GetNode(id));
  if (node->record.is_directory()) return db_.Sync();  // its names: whatever was answered before
  const uint64_t before = db_.sequence();
  TRY(SyncNode(*node, data_only ? UpperFile::For::kData : UpperFile::For::kAll));
  const uint64_t after = db_.sequence();
  uint64_t changed = 0;
  {
    const std::shared_lock lock(node->mutex);
    changed = node->changed;
  }
  return db_.SyncTo(after == before ? changed : after);  // the file's new block map may be among what came between
}

Result<Handle> BranchFs::OpenDirectory(NodeId id) {
  ASSIGN_OR_RETURN(const auto node, GetDirectory(id));
  auto listing = std::make_shared<Listing>();
  {
    const std::shared_lock lock(namespace_);
    TRY(MakeListing(*node, listing.get()));
  }
  const std::lock_guard lock(table_mutex_);
  ++node->handles;
  const Handle handle = next_handle_++;
  listings_[handle] = std::move(listing);
  return handle;
}

void BranchFs::ReleaseDirectory(NodeId id, Handle handle) {
  const auto node = GetNode(id);
  const std::lock_guard lock(table_mutex_);
  if (listings_.erase(handle) != 0 && node) --(*node)->handles;
}

}  // namespace mirage
