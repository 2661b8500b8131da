#include "store/rocksdb_env.h"

#include <rocksdb/file_system.h>
#include <sys/file.h>

#include <atomic>
#include <cstring>

namespace mirage {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

IOStatus ToIoStatus(const Error& error) {
  switch (error.code) {
    case ENOENT: return IOStatus::PathNotFound(error.message);
    case ENOSPC: return IOStatus::NoSpace(error.message);
    default: return IOStatus::IOError(error.message);
  }
}
IOStatus ToIoStatus(const Status& status) { return status ? IOStatus::OK() : ToIoStatus(status.error()); }

// Reads into RocksDB's buffer.
IOStatus Read(const File& file, uint64_t offset, size_t size, rocksdb::Slice* result, char* scratch) {
  std::string bytes;
  if (const Status status = file.ReadAt(offset, size, &bytes); !status) return ToIoStatus(status);
  std::memcpy(scratch, bytes.data(), bytes.size());
  *result = rocksdb::Slice(scratch, bytes.size());
  return IOStatus::OK();
}

class SequentialFile final : public rocksdb::FSSequentialFile {
 public:
  explicit SequentialFile(std::unique_ptr<File> file) : file_(std::move(file)) {}
  IOStatus Read(size_t n, const IOOptions&, rocksdb::Slice* result, char* scratch, IODebugContext*) override {
    IOStatus status = mirage::Read(*file_, offset_, n, result, scratch);
    if (status.ok()) offset_ += result->size();
    return status;
  }
  IOStatus Skip(uint64_t n) override {
    offset_ += n;
    return IOStatus::OK();
  }

 private:
  std::unique_ptr<File> file_;
  uint64_t offset_ = 0;
};

class RandomAccessFile final : public rocksdb::FSRandomAccessFile {
 public:
  explicit RandomAccessFile(std::unique_ptr<File> file) : file_(std::move(file)) {}
  IOStatus Read(uint64_t offset, size_t n, const IOOptions&, rocksdb::Slice* result, char* scratch,
                IODebugContext*) const override {
    return mirage::Read(*file_, offset, n, result, scratch);
  }

 private:
  std::unique_ptr<File> file_;
};

class WritableFile final : public rocksdb::FSWritableFile {
 public:
  WritableFile(std::unique_ptr<File> file, uint64_t size, const FileOptions& options)
      : FSWritableFile(options), file_(std::move(file)), size_(size) {}
  using FSWritableFile::Append;
  IOStatus Append(const rocksdb::Slice& data, const IOOptions&, IODebugContext*) override {
    if (const Status status = file_->WriteAt(size_, {data.data(), data.size()}); !status) return ToIoStatus(status);
    size_ += data.size();
    return IOStatus::OK();
  }
  IOStatus Truncate(uint64_t size, const IOOptions&, IODebugContext*) override {
    if (size == size_) return IOStatus::OK();
    if (const Status status = file_->Truncate(size); !status) return ToIoStatus(status);
    size_ = size;
    return IOStatus::OK();
  }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }  // nothing is buffered here
  IOStatus Sync(const IOOptions&, IODebugContext*) override { return ToIoStatus(file_->Sync()); }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return size_; }
  bool IsSyncThreadSafe() const override { return true; }

 private:
  std::unique_ptr<File> file_;
  uint64_t size_;
};

class Directory final : public rocksdb::FSDirectory {
 public:
  Directory(Env& env, std::string path) : env_(env), path_(std::move(path)) {}
  IOStatus Fsync(const IOOptions&, IODebugContext*) override { return ToIoStatus(env_.SyncDirectory(path_)); }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

 private:
  Env& env_;
  const std::string path_;
};

class DatabaseLock final : public rocksdb::FileLock {
 public:
  explicit DatabaseLock(std::unique_ptr<File> file) : file_(std::move(file)) {}

 private:
  std::unique_ptr<File> file_;  // flock'd
};

class EnvFileSystem final : public rocksdb::FileSystem {
 public:
  explicit EnvFileSystem(Env& env) : env_(env) {}
  const char* Name() const override { return "mirage"; }

  IOStatus NewSequentialFile(const std::string& path, const FileOptions&,
                             std::unique_ptr<rocksdb::FSSequentialFile>* result, IODebugContext*) override {
    auto file = env_.Open(path, OpenMode::kRead);
    if (!file) return ToIoStatus(file.error());
    *result = std::make_unique<SequentialFile>(std::move(*file));
    return IOStatus::OK();
  }
  IOStatus NewRandomAccessFile(const std::string& path, const FileOptions&,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* result, IODebugContext*) override {
    auto file = env_.Open(path, OpenMode::kRead);
    if (!file) return ToIoStatus(file.error());
    *result = std::make_unique<RandomAccessFile>(std::move(*file));
    return IOStatus::OK();
  }
  IOStatus NewWritableFile(const std::string& path, const FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext* context) override {
    IOStatus status = ReopenWritableFile(path, options, result, context);
    if (status.ok()) status = (*result)->Truncate(0, {}, context);
    return status;
  }
  IOStatus ReopenWritableFile(const std::string& path, const FileOptions& options,
                              std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext*) override {
    auto file = env_.Open(path, OpenMode::kOpenOrCreate);
    if (!file) return ToIoStatus(file.error());
    const auto size = (*file)->Size();
    if (!size) return ToIoStatus(size.error());
    *result = std::make_unique<WritableFile>(std::move(*file), *size, options);
    return IOStatus::OK();
  }
  IOStatus NewDirectory(const std::string& path, const IOOptions&, std::unique_ptr<rocksdb::FSDirectory>* result,
                        IODebugContext*) override {
    const auto info = env_.Stat(path);
    if (!info) return ToIoStatus(info.error());
    *result = std::make_unique<Directory>(env_, path);
    return IOStatus::OK();
  }

  IOStatus FileExists(const std::string& path, const IOOptions&, IODebugContext*) override {
    const auto info = env_.Stat(path);
    if (info) return IOStatus::OK();
    return info.error().code == ENOENT ? IOStatus::NotFound() : ToIoStatus(info.error());
  }
  IOStatus GetChildren(const std::string& path, const IOOptions&, std::vector<std::string>* result,
                       IODebugContext*) override {
    auto names = env_.List(path);
    if (!names) return ToIoStatus(names.error());
    *result = std::move(*names);
    return IOStatus::OK();
  }
  IOStatus GetFileSize(const std::string& path, const IOOptions&, uint64_t* size, IODebugContext*) override {
    const auto info = env_.Stat(path);
    if (!info) return ToIoStatus(info.error());
    *size = info->size_bytes;
    return IOStatus::OK();
  }
  // Asked for archived logs alone; the library has none.
  IOStatus GetFileModificationTime(const std::string&, const IOOptions&, uint64_t*, IODebugContext*) override {
    return IOStatus::NotSupported("modification time");
  }
  IOStatus IsDirectory(const std::string& path, const IOOptions&, bool* is_directory, IODebugContext*) override {
    const auto info = env_.Stat(path);
    if (!info) return ToIoStatus(info.error());
    *is_directory = info->is_directory;
    return IOStatus::OK();
  }
  IOStatus GetAbsolutePath(const std::string& path, const IOOptions&, std::string* absolute,
                           IODebugContext*) override {
    *absolute = path;  // the library's is absolute
    return IOStatus::OK();
  }
  IOStatus GetTestDirectory(const IOOptions&, std::string*, IODebugContext*) override {
    return IOStatus::NotSupported("test directory");
  }

  IOStatus DeleteFile(const std::string& path, const IOOptions&, IODebugContext*) override {
    return ToIoStatus(env_.Unlink(path));
  }
  IOStatus CreateDir(const std::string& path, const IOOptions&, IODebugContext*) override {
    return ToIoStatus(env_.MakeDirectory(path, 0700));
  }
  IOStatus CreateDirIfMissing(const std::string& path, const IOOptions&, IODebugContext*) override {
    const Status status = env_.MakeDirectory(path, 0700);
    return status || status.error().code == EEXIST ? IOStatus::OK() : ToIoStatus(status);
  }
  IOStatus DeleteDir(const std::string& path, const IOOptions&, IODebugContext*) override {
    return ToIoStatus(env_.RemoveDirectory(path));
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions&, IODebugContext*) override {
    return ToIoStatus(env_.Rename(from, to));
  }
  IOStatus LinkFile(const std::string& from, const std::string& to, const IOOptions&, IODebugContext*) override {
    return ToIoStatus(env_.Link(from, to));
  }

  IOStatus LockFile(const std::string& path, const IOOptions&, rocksdb::FileLock** lock, IODebugContext*) override {
    auto file = env_.Open(path, OpenMode::kOpenOrCreate);
    if (!file) return ToIoStatus(file.error());
    if (::flock((*file)->descriptor(), LOCK_EX | LOCK_NB) != 0) return IOStatus::IOError("lock " + path + ": taken");
    *lock = new DatabaseLock(std::move(*file));
    return IOStatus::OK();
  }
  IOStatus UnlockFile(rocksdb::FileLock* lock, const IOOptions&, IODebugContext*) override {
    delete static_cast<DatabaseLock*>(lock);
    return IOStatus::OK();
  }

 private:
  Env& env_;
};

// RocksDB's own files are 0644 less the umask, its lock too: in a shared library another member could not write there.
class SharingFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  const char* Name() const override { return "mirage sharing"; }

  IOStatus NewWritableFile(const std::string& path, const FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext* context) override {
    return Share(path, FileSystemWrapper::NewWritableFile(path, options, result, context));
  }
  IOStatus ReopenWritableFile(const std::string& path, const FileOptions& options,
                              std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext* context) override {
    return Share(path, FileSystemWrapper::ReopenWritableFile(path, options, result, context));
  }
  IOStatus NewLogger(const std::string& path, const IOOptions& options, std::shared_ptr<rocksdb::Logger>* result,
                     IODebugContext* context) override {
    return Share(path, FileSystemWrapper::NewLogger(path, options, result, context));
  }
  IOStatus CreateDir(const std::string& path, const IOOptions& options, IODebugContext* context) override {
    return Share(path, FileSystemWrapper::CreateDir(path, options, context));
  }
  IOStatus CreateDirIfMissing(const std::string& path, const IOOptions& options, IODebugContext* context) override {
    return Share(path, FileSystemWrapper::CreateDirIfMissing(path, options, context));
  }
  IOStatus LockFile(const std::string& path, const IOOptions& options, rocksdb::FileLock** lock,
                    IODebugContext* context) override {
    return Share(path, FileSystemWrapper::LockFile(path, options, lock, context));
  }

 private:
  static IOStatus Share(const std::string& path, IOStatus made) {
    return made.ok() ? ToIoStatus(ShareLikeItsDirectory(path)) : made;
  }
};

}  // namespace

class RocksDbEnv::Keeper final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  const char* Name() const override { return "mirage keeper"; }
  IOStatus DeleteFile(const std::string& path, const IOOptions& options, IODebugContext* context) override {
    return keeping_ ? IOStatus::OK() : FileSystemWrapper::DeleteFile(path, options, context);
  }
  void set_keeping(bool keeping) { keeping_ = keeping; }

 private:
  std::atomic<bool> keeping_ = false;
};

RocksDbEnv::RocksDbEnv(Env& env, Removal removal) {
  std::shared_ptr<rocksdb::FileSystem> files;
  if (&env != &Env::Default()) {
    files = std::make_shared<EnvFileSystem>(env);
  } else {
    files = std::make_shared<SharingFileSystem>(rocksdb::FileSystem::Default());
  }
  if (removal == Removal::kWhenLet) files = keeper_ = std::make_shared<Keeper>(files);
  owned_ = rocksdb::NewCompositeEnv(files);
}
RocksDbEnv::~RocksDbEnv() = default;

void RocksDbEnv::HoldRemovals() { keeper_->set_keeping(true); }
void RocksDbEnv::LetRemove() { keeper_->set_keeping(false); }

}  // namespace mirage
