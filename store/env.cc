#include "store/env.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <utility>

namespace mirage {
namespace {

constexpr mode_t kSharedDirectory = S_ISGID | S_IRWXU | S_IRWXG;
constexpr mode_t kSharedFile = 0660;

std::string ParentDirectory(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Calls a system call again while signals interrupt it.
template <typename Call>
auto Retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

class PosixFile final : public File {
 public:
  PosixFile(Descriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Status ReadAt(uint64_t offset, size_t size, std::string* out) const override {
    int error = 0;
    out->resize_and_overwrite(size, [&](char* buffer, size_t) {
      size_t done = 0;
      while (done < size) {
        const ssize_t n =
            Retry([&] { return ::pread(fd_.get(), buffer + done, size - done, static_cast<off_t>(offset + done)); });
        if (n < 0) error = errno;
        if (n <= 0) break;
        done += static_cast<size_t>(n);
      }
      return done;
    });
    if (error != 0) return FailErrno(error, "read " + path_);
    return {};
  }

  Status WriteAt(uint64_t offset, std::string_view bytes) override {
    while (!bytes.empty()) {
      const ssize_t n =
          Retry([&] { return ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
      if (n < 0) return FailErrno(errno, "write " + path_);
      if (n == 0) return FailErrno(EIO, "write " + path_);
      bytes.remove_prefix(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
    return {};
  }

  Status Truncate(uint64_t size) override {
    if (Retry([&] { return ::ftruncate(fd_.get(), static_cast<off_t>(size)); }) < 0) {
      return FailErrno(errno, "truncate " + path_);
    }
    return {};
  }

  // A failed sync is not tried again: the kernel may have dropped the pages it could not write, and a second call
  // would report success.
  Status Sync() override {
    if (::fdatasync(fd_.get()) < 0) return FailErrno(errno, "sync " + path_);
    return {};
  }

  void WillSync(uint64_t offset, uint64_t size) override {
    (void)::sync_file_range(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(size), SYNC_FILE_RANGE_WRITE);
  }

  Result<uint64_t> Size() const override {
    struct stat st;
    if (::fstat(fd_.get(), &st) < 0) return FailErrno(errno, "stat " + path_);
    return static_cast<uint64_t>(st.st_size);
  }

  int descriptor() const override { return fd_.get(); }

 private:
  const Descriptor fd_;
  const std::string path_;
};

class PosixEnv final : public Env {
 public:
  Result<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override {
    int flags = O_CLOEXEC;
    switch (mode) {
      case OpenMode::kRead: flags |= O_RDONLY; break;
      case OpenMode::kCreate: flags |= O_RDWR | O_CREAT | O_EXCL; break;
      case OpenMode::kReadWrite: flags |= O_RDWR; break;
      case OpenMode::kOpenOrCreate: flags |= O_RDWR | O_CREAT; break;
    }
    Descriptor fd(Retry([&] { return ::open(path.c_str(), flags, 0600); }));
    if (fd.get() < 0) return FailErrno(errno, "open " + path);
    if ((flags & O_CREAT) != 0) TRY(ShareLikeItsDirectory(path, fd.get()));
    return std::make_unique<PosixFile>(std::move(fd), path);
  }

  Status Rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) < 0) return FailErrno(errno, "rename " + from + " to " + to);
    return {};
  }

  Status Link(const std::string& from, const std::string& to) override {
    if (::link(from.c_str(), to.c_str()) < 0) return FailErrno(errno, "link " + from + " to " + to);
    return {};
  }

  Status Unlink(const std::string& path) override {
    if (::unlink(path.c_str()) < 0) return FailErrno(errno, "remove " + path);
    return {};
  }

  Status MakeDirectory(const std::string& path, unsigned mode) override {
    if (::mkdir(path.c_str(), static_cast<mode_t>(mode)) < 0) return FailErrno(errno, "make directory " + path);
    return ShareLikeItsDirectory(path);
  }

  Status RemoveDirectory(const std::string& path) override {
    if (::rmdir(path.c_str()) < 0) return FailErrno(errno, "remove directory " + path);
    return {};
  }

  Status SyncDirectory(const std::string& path) override {
    const Descriptor fd(Retry([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
    if (fd.get() < 0) return FailErrno(errno, "open directory " + path);
    if (::fsync(fd.get()) < 0) return FailErrno(errno, "sync directory " + path);
    return {};
  }

  Result<std::vector<std::string>> List(const std::string& path) override {
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), &::closedir);
    if (directory == nullptr) return FailErrno(errno, "list " + path);
    std::vector<std::string> names;
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(directory.get());
      if (entry == nullptr) break;
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
    }
    if (errno != 0) return FailErrno(errno, "list " + path);
    std::sort(names.begin(), names.end());
    return names;
  }

  Result<FileInfo> Stat(const std::string& path) override {
    struct stat st;
    if (::lstat(path.c_str(), &st) < 0) return FailErrno(errno, "stat " + path);
    return FileInfo{.is_directory = S_ISDIR(st.st_mode), .size_bytes = static_cast<uint64_t>(st.st_size)};
  }
};

}  // namespace

Env& Env::Default() {
  static PosixEnv env;
  return env;
}

Status ShareLikeItsDirectory(const std::string& path, int descriptor) {
  constexpr mode_t kSharing = S_ISGID | S_IRWXG;
  struct stat st;
  if (::stat(ParentDirectory(path).c_str(), &st) < 0 || (st.st_mode & kSharing) != kSharing) return {};
  if ((descriptor < 0 ? ::lstat(path.c_str(), &st) : ::fstat(descriptor, &st)) < 0) {
    return FailErrno(errno, "stat " + path);
  }
  const mode_t mode = S_ISDIR(st.st_mode) ? kSharedDirectory : kSharedFile;
  if ((st.st_mode & ALLPERMS) == mode) return {};
  if ((descriptor < 0 ? ::chmod(path.c_str(), mode) : ::fchmod(descriptor, mode)) == 0 || errno == EPERM) return {};
  return FailErrno(errno, "share " + path);
}

Result<std::string> ReadWholeFile(Env& env, const std::string& path, uint64_t limit_bytes) {
  ASSIGN_OR_RETURN(const auto file, env.Open(path, OpenMode::kRead));
  ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (size > limit_bytes) return Fail(EFBIG, "{}: {} bytes, more than the {} allowed", path, size, limit_bytes);
  std::string bytes;
  TRY(file->ReadAt(0, static_cast<size_t>(size), &bytes));
  return bytes;
}

Status WriteFileAtomically(Env& env, const std::string& path, std::string_view bytes) {
  // A name of our own, so that two writers never write into one file. One left by a crash is stepped over.
  static std::atomic<unsigned> counter{0};
  std::string temporary;
  std::unique_ptr<File> file;
  while (file == nullptr) {
    temporary = fmt::format("{}.{}.{}.tmp", path, ::getpid(), counter.fetch_add(1));
    auto opened = env.Open(temporary, OpenMode::kCreate);
    if (opened) {
      file = std::move(*opened);
    } else if (opened.error().code != EEXIST) {
      return tl::make_unexpected(std::move(opened).error());
    }
  }
  const auto write = [&]() -> Status {
    TRY(file->WriteAt(0, bytes));
    TRY(file->Sync());
    file.reset();
    return env.Rename(temporary, path);
  };
  if (Status status = write(); !status) {
    static_cast<void>(env.Unlink(temporary));  // the first error is the one to report
    return status;
  }
  return env.SyncDirectory(ParentDirectory(path));
}

Status RemoveTree(Env& env, const std::string& path) {
  auto info = env.Stat(path);
  if (!info) {
    if (info.error().code == ENOENT) return {};
    return tl::make_unexpected(std::move(info).error());
  }
  if (!info->is_directory) return env.Unlink(path);
  ASSIGN_OR_RETURN(const auto names, env.List(path));
  for (const std::string& name : names) TRY(RemoveTree(env, path + "/" + name));
  return env.RemoveDirectory(path);
}

}  // namespace mirage
