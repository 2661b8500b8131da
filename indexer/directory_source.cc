#include "indexer/directory_source.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <ctime>
#include <deque>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace mirage {
namespace {

constexpr size_t kReadBytes = 1 << 20;
constexpr size_t kGuesses = 2;     // large files that are hashed beside the walk
constexpr size_t kOpenDepth = 64;  // directories deeper than this are reached anew from the deepest open one above

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

// O_NOATIME is for owners alone; the others read with the access times moving.
Descriptor OpenAt(int directory, const char* name, int flags) {
  flags |= O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  int fd = openat(directory, name, flags | O_NOATIME);
  if (fd < 0 && errno == EPERM) fd = openat(directory, name, flags);
  return Descriptor(fd);
}

Entry EntryFromStat(const struct stat& st) {
  Entry entry;
  entry.type = FileTypeFromMode(st.st_mode);
  entry.mode = static_cast<uint16_t>(st.st_mode & 07777);
  entry.uid = st.st_uid;
  entry.gid = st.st_gid;
  entry.mtime_sec = st.st_mtim.tv_sec;
  entry.mtime_nsec = static_cast<uint32_t>(st.st_mtim.tv_nsec);
  if (entry.type == FileType::kCharDevice || entry.type == FileType::kBlockDevice) {
    entry.rdev_major = major(st.st_rdev);
    entry.rdev_minor = minor(st.st_rdev);
  }
  return entry;
}

// Filesystems that hold no files, but a view of the running kernel.
bool IsKernelFilesystem(int fd) {
  struct statfs fs;
  if (fstatfs(fd, &fs) != 0) return false;
  switch (static_cast<unsigned long>(fs.f_type)) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
    case DEVPTS_SUPER_MAGIC:
    case BPF_FS_MAGIC:
    case PSTOREFS_MAGIC:
    case EFIVARFS_MAGIC:
      return true;
    default:
      return false;
  }
}

// Filesystems of this kernel whose ctime and inode numbers say when a file changed. Not FAT, whose ctime is the mtime, nor
// network and FUSE filesystems, whose times another machine or program makes up.
bool StampsEveryChange(unsigned long type) {
  switch (type) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
      return true;
    default:
      return type == 0x2fc12fc1;  // ZFS
  }
}

}  // namespace

class DirectorySource::Walk {
 public:
  Walk(const DirectorySource& source, ImportSink& sink) : source_(source), sink_(sink) {}
  ~Walk() { given_up_ = true; }

  Status Run() {
    const int fd = open(source_.path_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (fd < 0) return Failed(errno, "");
    Frame root;
    root.directory = Descriptor(fd);
    struct stat skip;
    if (!source_.skip_.empty() && stat(source_.skip_.c_str(), &skip) == 0) skip_ = {skip.st_dev, skip.st_ino};
    struct stat st;
    if (fstat(fd, &st) != 0) return Failed(errno, "");
    if (Inode{st.st_dev, st.st_ino} == skip_) return Fail(EINVAL, "that is the library itself");
    root.device = st.st_dev;
    TRY(AddDirectory(root, st));
    stack_.push_back(std::move(root));
    while (!stack_.empty()) {
      if (stack_.back().next == stack_.back().subdirectories.size()) {
        stack_.pop_back();
        continue;
      }
      const std::string name = stack_.back().subdirectories[stack_.back().next++];
      TRY(Enter(name));
    }
    return Settle(0);
  }

 private:
  using Inode = std::pair<dev_t, ino_t>;
  struct Frame {
    std::string path, name;  // from the top; the last component
    Descriptor directory;    // closed below kOpenDepth once its files are read
    dev_t device = 0;
    std::vector<std::string> subdirectories;
    size_t next = 0;
  };
  // A large file that is being hashed beside the walk, to see whether it is what it was.
  struct Guess {
    Descriptor file;
    std::string path;
    struct stat st;
    XattrSet xattrs;
    ObjectId content;
    std::future<Result<bool>> is_right;
  };

  std::string HostPath(std::string_view path) const {
    return path.empty() ? source_.path_ : fmt::format("{}/{}", source_.path_, path);
  }
  tl::unexpected<Error> Failed(int code, std::string_view path) const { return FailErrno(code, HostPath(path)); }
  bool Interrupted() const { return given_up_ || (source_.interrupted_ != nullptr && source_.interrupted_->load()); }
  // What moved under our hands is no reason to give up: it is named.
  void Warn(std::string_view path, std::string_view what) {
    sink_.Omit(fmt::format("{} {}", HostPath(path), what));
  }

  // Opens `name` in the directory on top of the stack, by way of the deepest ancestor that is open.
  Result<Descriptor> OpenDirectory(const std::string& name, const std::string& path) const {
    size_t depth = stack_.size() - 1;
    while (!stack_[depth].directory) --depth;
    int at = stack_[depth].directory.get();
    Descriptor step;
    for (size_t i = depth + 1; i <= stack_.size(); ++i) {
      const std::string& component = i < stack_.size() ? stack_[i].name : name;
      Descriptor next = OpenAt(at, component.c_str(), O_DIRECTORY);
      if (!next) return Failed(errno, path);
      step = std::move(next);
      at = step.get();
    }
    return step;
  }

  Status Enter(const std::string& name) {
    Frame frame;
    const Frame& parent = stack_.back();
    frame.path = parent.path.empty() ? name : parent.path + "/" + name;
    frame.name = name;
    auto directory = OpenDirectory(name, frame.path);
    if (!directory) {
      const int code = directory.error().code;
      if (code == ENOENT || code == ENOTDIR || code == ELOOP) {
        Warn(frame.path, "went away while it was being read");
        return {};
      }
      return tl::make_unexpected(directory.error());
    }
    frame.directory = std::move(*directory);
    struct stat st;
    if (fstat(frame.directory.get(), &st) != 0) return Failed(errno, frame.path);
    if (Inode{st.st_dev, st.st_ino} == skip_) {
      Warn(frame.path, "is the library itself and was left out");
      return {};
    }
    frame.device = st.st_dev;
    if (st.st_dev != parent.device && IsKernelFilesystem(frame.directory.get())) {
      Warn(frame.path, "is a filesystem of the kernel and was left empty");
      return AddEntry(frame.path, EntryFromStat(st), {}, "");
    }
    TRY(AddDirectory(frame, st));
    if (stack_.size() >= kOpenDepth) frame.directory = Descriptor();
    stack_.push_back(std::move(frame));
    return {};
  }

  // The directory itself and all in it but its subdirectories, whose names are left in the frame. Files first, each
  // kind sorted: neighbours in a directory become neighbours in the packs.
  Status AddDirectory(Frame& frame, const struct stat& st) {
    const int fd = frame.directory.get();
    ASSIGN_OR_RETURN(const XattrSet xattrs, ReadXattrs(fd, frame.path));
    TRY(AddEntry(frame.path, EntryFromStat(st), xattrs, ""));
    ASSIGN_OR_RETURN(const auto names, List(fd, frame.path));
    for (const std::string& name : names) {
      if (Interrupted()) return Fail(EINTR, "interrupted");
      std::string path = frame.path.empty() ? name : frame.path + "/" + name;
      if (sink_.Excluded(path)) continue;
      struct stat child;
      if (fstatat(fd, name.c_str(), &child, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno != ENOENT) return Failed(errno, path);
        Warn(path, "went away while it was being read");
      } else if (S_ISDIR(child.st_mode)) {
        frame.subdirectories.push_back(name);
      } else {
        TRY(AddChild(fd, name, std::move(path), child));
      }
    }
    return {};
  }

  Result<std::vector<std::string>> List(int fd, const std::string& path) {
    const int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // a position of its own, closed by closedir
    DIR* stream = copy < 0 ? nullptr : fdopendir(copy);
    if (stream == nullptr) {
      const int code = errno;
      if (copy >= 0) close(copy);
      return Failed(code, path);
    }
    const std::unique_ptr<DIR, int (*)(DIR*)> closer(stream, closedir);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(stream)) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    if (errno != 0) return Failed(errno, path);
    std::sort(names.begin(), names.end());
    return names;
  }

  Status AddChild(int fd, const std::string& name, std::string path, struct stat st) {
    if (st.st_nlink > 1) {
      const auto first = firsts_.find({st.st_dev, st.st_ino});
      if (first != firsts_.end()) return sink_.AddLink(std::move(path), first->second);
    }
    if (S_ISREG(st.st_mode)) {
      Descriptor file = OpenAt(fd, name.c_str(), 0);
      if (!file && (errno == ENOENT || errno == ELOOP)) {
        Warn(path, "went away while it was being read");
        return {};
      }
      if (!file) return Failed(errno, path);
      if (fstat(file.get(), &st) != 0) return Failed(errno, path);
      if (!S_ISREG(st.st_mode)) {
        Warn(path, "was replaced while it was being read, and was left out");
        return {};
      }
      if (st.st_nlink > 1) firsts_.emplace(Inode{st.st_dev, st.st_ino}, path);
      return AddRegular(std::move(file), std::move(path), st);
    }
    std::string target;
    if (S_ISLNK(st.st_mode)) {
      target.resize(PATH_MAX);
      const ssize_t length = readlinkat(fd, name.c_str(), target.data(), target.size());
      if (length < 0) return Failed(errno, path);
      target.resize(static_cast<size_t>(length));
    }
    ASSIGN_OR_RETURN(const XattrSet xattrs, ReadXattrs(fd, path, name));
    if (st.st_nlink > 1) firsts_.emplace(Inode{st.st_dev, st.st_ino}, path);
    return AddEntry(path, EntryFromStat(st), xattrs, std::move(target));
  }

  Status AddEntry(const std::string& path, Entry entry, const XattrSet& xattrs, std::string target) {
    return sink_.Add(path, std::move(entry), xattrs, std::move(target));
  }

  Status AddRegular(Descriptor file, std::string path, const struct stat& st) {
    const int fd = file.get();
    ASSIGN_OR_RETURN(XattrSet xattrs, ReadXattrs(fd, path));
    const auto size = static_cast<uint64_t>(st.st_size);
    if (const auto filesystem = FilesystemOf(fd, st.st_dev)) {
      const FileFacts facts{*filesystem, st.st_ino, st.st_ctim.tv_sec, static_cast<uint32_t>(st.st_ctim.tv_nsec)};
      if (sink_.Unchanged(path, EntryFromStat(st), size, facts)) return sink_.AddUnchanged(path, &xattrs);
    }
    if (size > kWholeFileBytes) {
      const auto likely = sink_.LikelyContent(path, EntryFromStat(st), size);
      if (!likely) return AddLarge(fd, path, st, xattrs);
      guesses_.push_back({std::move(file), path, st, std::move(xattrs), *likely, {}});
      guesses_.back().is_right = std::async(
          std::launch::async, [this, fd, path, size, content = *likely] { return Hashes(fd, path, size, content); });
      return Settle(kGuesses);
    }
    uint64_t got = 0;
    std::string bytes;
    bytes.resize_and_overwrite(static_cast<size_t>(size), [&](char*, size_t) { return static_cast<size_t>(size); });
    while (got < size) {
      ASSIGN_OR_RETURN(const size_t n, ReadAt(fd, path, got, bytes.data() + got, static_cast<size_t>(size - got)));
      if (n == 0) break;
      got += n;
    }
    bytes.resize(static_cast<size_t>(got));
    TRY(sink_.AddFile(path, EntryFromStat(st), xattrs, std::move(bytes)));
    return CheckSteady(fd, path, st, got);
  }

  // One read, of what comes; 0: the file ends.
  Result<size_t> ReadAt(int fd, const std::string& path, uint64_t offset, char* out, size_t size) const {
    ssize_t n = 0;
    do {
      n = pread(fd, out, size, static_cast<off_t>(offset));
    } while (n < 0 && errno == EINTR);
    if (n < 0) return Failed(errno, path);
    return static_cast<size_t>(n);
  }

  Status AddLarge(int fd, const std::string& path, const struct stat& st, const XattrSet& xattrs) {
    uint64_t got = 0;
    TRY(sink_.BeginFile(path, EntryFromStat(st), xattrs));
    TRY(ReadLarge(fd, path, static_cast<uint64_t>(st.st_size), got));
    TRY(sink_.EndFile());
    return CheckSteady(fd, path, st, got);
  }

  Status CheckSteady(int fd, const std::string& path, const struct stat& st, uint64_t got) {
    struct stat after;
    if (fstat(fd, &after) != 0) return Failed(errno, path);
    if (got != static_cast<uint64_t>(st.st_size) || after.st_size != st.st_size ||
        after.st_mtim.tv_sec != st.st_mtim.tv_sec || after.st_mtim.tv_nsec != st.st_mtim.tv_nsec) {
      Warn(path, "changed while it was being read");
    }
    return {};
  }

  // Waits for guesses, the oldest first, until no more than `most` are open. A file that was guessed wrong is read.
  Status Settle(size_t most) {
    while (guesses_.size() > most) {
      Guess guess = std::move(guesses_.front());
      guesses_.pop_front();
      ASSIGN_OR_RETURN(const bool right, guess.is_right.get());
      if (!right) {
        TRY(AddLarge(guess.file.get(), guess.path, guess.st, guess.xattrs));
        continue;
      }
      const auto size = static_cast<uint64_t>(guess.st.st_size);
      TRY(sink_.AddLikely(guess.path, EntryFromStat(guess.st), guess.xattrs, guess.content, size));
      TRY(CheckSteady(guess.file.get(), guess.path, guess.st, size));
    }
    return {};
  }

  // Whether the file's bytes hash to `content`. To cut them, to hash the pieces too and to look for each of those would
  // cost four times as much. Runs beside the walk.
  Result<bool> Hashes(int fd, const std::string& path, uint64_t size, const ObjectId& content) const {
    Sha256 hash;
    std::string buffer(kReadBytes, '\0');
    for (uint64_t got = 0; got < size;) {
      if (Interrupted()) return Fail(EINTR, "interrupted");
      const auto wanted = static_cast<size_t>(std::min<uint64_t>(buffer.size(), size - got));
      ASSIGN_OR_RETURN(const size_t n, ReadAt(fd, path, got, buffer.data(), wanted));
      if (n == 0) return false;
      hash.Update(std::string_view(buffer).substr(0, n));
      got += n;
    }
    return hash.Finish() == content;
  }

  // The filesystem of an open file, if its ctime is to be relied on.
  std::optional<uint32_t> FilesystemOf(int fd, dev_t device) {
    const auto [found, is_new] = filesystems_.try_emplace(device);
    if (!is_new) return found->second;
    struct statfs fs;
    if (fstatfs(fd, &fs) != 0 || !StampsEveryChange(static_cast<unsigned long>(fs.f_type))) return std::nullopt;
    int id[2];
    static_assert(sizeof id == sizeof fs.f_fsid);
    std::memcpy(id, &fs.f_fsid, sizeof id);
    SourceFilesystem filesystem;
    filesystem.identity = fmt::format("device {} {:x} {:08x}{:08x}", device, fs.f_type, static_cast<unsigned>(id[0]),
                                      static_cast<unsigned>(id[1]));
    filesystem.clock_sec = started_;
    return found->second = sink_.AddFilesystem(std::move(filesystem));
  }

  // No more than the size it had when it was opened: a log that grows has an end.
  Status ReadLarge(int fd, const std::string& path, uint64_t size, uint64_t& got) {
    std::string buffer;
    while (got < size) {
      // From a hole to the next data; filesystems that know no holes say that all is data.
      const off_t data = lseek(fd, static_cast<off_t>(got), SEEK_DATA);
      uint64_t data_start = data >= 0 ? static_cast<uint64_t>(data) : errno == ENXIO ? size : got;
      data_start = std::min(data_start, size);
      if (data_start > got) {
        struct stat now;
        if (fstat(fd, &now) != 0) return Failed(errno, path);
        data_start = std::min(data_start, std::max(got, static_cast<uint64_t>(now.st_size)));  // it may have shrunk
        if (data_start == got) return {};
        TRY(sink_.AppendHole(data_start - got));
        got = data_start;
        continue;
      }
      const off_t hole = lseek(fd, static_cast<off_t>(got), SEEK_HOLE);
      const uint64_t data_end = std::min(size, hole > static_cast<off_t>(got) ? static_cast<uint64_t>(hole) : size);
      while (got < data_end) {
        if (Interrupted()) return Fail(EINTR, "interrupted");
        buffer.resize(static_cast<size_t>(std::min<uint64_t>(kReadBytes, data_end - got)));
        ASSIGN_OR_RETURN(const size_t n, ReadAt(fd, path, got, buffer.data(), buffer.size()));
        if (n == 0) return {};
        TRY(sink_.AppendFile(std::string_view(buffer).substr(0, n)));
        got += n;
      }
    }
    return {};
  }

  // Of `fd` itself, or of `name` in it. There is no lgetxattrat(2): the way through /proc/self/fd follows no final
  // link.
  Result<XattrSet> ReadXattrs(int fd, const std::string& path, const std::string& name = {}) const {
    const std::string place = name.empty() ? std::string() : fmt::format("/proc/self/fd/{}/{}", fd, name);
    const auto list = [&](char* out, size_t size) {
      return name.empty() ? flistxattr(fd, out, size) : llistxattr(place.c_str(), out, size);
    };
    const auto get = [&](const char* attribute, char* out, size_t size) {
      return name.empty() ? fgetxattr(fd, attribute, out, size) : lgetxattr(place.c_str(), attribute, out, size);
    };
    std::string names(4096, '\0');
    ssize_t length = list(names.data(), names.size());
    if (length < 0 && errno == ERANGE) {
      names.resize(XATTR_LIST_MAX);
      length = list(names.data(), names.size());
    }
    if (length < 0 && errno == ENOTSUP) return XattrSet{};
    if (length < 0) return Failed(errno, path);
    names.resize(static_cast<size_t>(length));

    XattrSet xattrs;
    std::string value;
    for (size_t start = 0; start < names.size();) {
      const char* const attribute = names.c_str() + start;
      const std::string_view attribute_name(attribute);
      start += attribute_name.size() + 1;
      value.resize(4096);
      ssize_t size = get(attribute, value.data(), value.size());
      if (size < 0 && errno == ERANGE) {
        value.resize(XATTR_SIZE_MAX);
        size = get(attribute, value.data(), value.size());
      }
      if (size < 0 && errno == ENODATA) continue;  // removed since it was listed
      if (size < 0) return FailErrno(errno, fmt::format("{}: attribute {}", HostPath(path), attribute_name));
      xattrs.emplace(attribute_name, value.substr(0, static_cast<size_t>(size)));
    }
    return xattrs;
  }

  const DirectorySource& source_;
  ImportSink& sink_;
  Inode skip_{0, 0};
  std::vector<Frame> stack_;
  std::map<Inode, std::string> firsts_;  // of inodes with several names: the one that came first
  const int64_t started_ = time(nullptr);
  std::map<dev_t, std::optional<uint32_t>> filesystems_;
  std::atomic<bool> given_up_ = false;
  std::deque<Guess> guesses_;  // last: they read what is above until they end
};

Result<SourceDescription> DirectorySource::Read(ImportSink& sink) {
  TRY(Walk(*this, sink).Run());
  return SourceDescription{};
}

}  // namespace mirage
