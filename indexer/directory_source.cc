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
#include <array>
#include <atomic>
#include <cstring>
#include <ctime>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "indexer/ordered_work.h"

namespace mirage {
namespace {

constexpr size_t kReadBytes = 1 << 20;
constexpr size_t kLargeReadBytes = 256 << 10;  // of a file that is only compared: stays in the processor's cache
// Of files whose reading has begun, or may: how many, each of them open, and their bytes. Large ones count as so much.
constexpr size_t kMaxReads = 64;
constexpr size_t kMaxReadsBytes = 8 << 20;
constexpr size_t kMaxLooks = 64;  // children that are looked at, or may be
constexpr size_t kFilesToWakeFor = 8;
constexpr int kMaxReaders = 4;
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

// Making a context takes as long as 30 KiB do; one a thread is kept.
Fingerprint FingerprintOf(const FingerprintKey& key, std::string_view bytes) {
  static thread_local FingerprintKey kept_key;
  static thread_local std::unique_ptr<Fingerprinter> kept;
  if (!kept || kept_key != key) {
    kept = std::make_unique<Fingerprinter>(key);
    kept_key = key;
  }
  return kept->Of(bytes);
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
  Walk(const DirectorySource& source, ImportSink& sink)
      : source_(source),
        sink_(sink),
        looks_(std::thread::hardware_concurrency() > 1 ? 1 : 0, kFilesToWakeFor, [this](Child& child) { LookBeside(child); }),
        reads_(std::min<int>(kMaxReaders, static_cast<int>(std::thread::hardware_concurrency()) - 1), kFilesToWakeFor,
               [this](Child& file) { ReadBeside(file); }) {}
  ~Walk() { given_up_ = true; }

  Status Run() {
    const int fd = open(source_.path_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (fd < 0) return Failed(errno, "");
    Frame root;
    root.directory = std::make_shared<Descriptor>(fd);
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
    while (looks_.size() > 0) TRY(TakeLook());
    while (reads_.size() > 0) TRY(TakeRead());
    return {};
  }

 private:
  using Inode = std::pair<dev_t, ino_t>;
  using Name = std::pair<std::string, unsigned char>;  // and d_type
  struct Frame {
    std::string path, name;  // from the top; the last component
    std::shared_ptr<const Descriptor> directory;  // let go below kOpenDepth once it is listed
    dev_t device = 0;
    std::vector<std::string> subdirectories;
    size_t next = 0;
  };
  // What is in a directory and is none: looked at, and if it is a file perhaps read, beside the walk.
  struct Child {
    std::shared_ptr<const Descriptor> directory;
    std::string name, path;
    bool is_regular = false;  // so the directory says

    // What is filled in when it is looked at.
    std::optional<Error> error;
    Descriptor file;     // of a regular one, open
    struct stat st = {};
    std::string target;  // of a symbolic link
    XattrSet xattrs;     // but of a regular file: that is when it is read

    std::optional<LikelyContent> likely;  // what its bytes may be

    uint64_t size() const { return static_cast<uint64_t>(st.st_size); }
    size_t cost() const { return static_cast<size_t>(std::min(size(), kWholeFileBytes)); }

    // What is filled in when it is read.
    bool is_likely = false;
    std::string bytes;    // of a file that is not large, if it is not what is likely
    struct stat after = {};
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
  void WarnGone(std::string_view path) { Warn(path, "went away while it was being read"); }

  // Opens `name` in the directory on top of the stack, by way of the deepest ancestor that is open.
  Result<Descriptor> OpenDirectory(const std::string& name, const std::string& path) const {
    size_t depth = stack_.size() - 1;
    while (!stack_[depth].directory) --depth;
    int at = stack_[depth].directory->get();
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
        WarnGone(frame.path);
        return {};
      }
      return tl::make_unexpected(directory.error());
    }
    frame.directory = std::make_shared<Descriptor>(std::move(*directory));
    struct stat st;
    if (fstat(frame.directory->get(), &st) != 0) return Failed(errno, frame.path);
    if (Inode{st.st_dev, st.st_ino} == skip_) {
      Warn(frame.path, "is the library itself and was left out");
      return {};
    }
    frame.device = st.st_dev;
    if (st.st_dev != parent.device && IsKernelFilesystem(frame.directory->get())) {
      Warn(frame.path, "is a filesystem of the kernel and was left empty");
      return AddEntry(frame.path, EntryFromStat(st), {}, "");
    }
    TRY(AddDirectory(frame, st));
    if (stack_.size() >= kOpenDepth) frame.directory.reset();
    stack_.push_back(std::move(frame));
    return {};
  }

  // The directory itself and all in it but its subdirectories, whose names are left in the frame. Sorted: neighbours in a
  // directory become neighbours in the packs.
  Status AddDirectory(Frame& frame, const struct stat& st) {
    const int fd = frame.directory->get();
    ASSIGN_OR_RETURN(const XattrSet xattrs, ReadXattrs(fd, frame.path));
    TRY(AddEntry(frame.path, EntryFromStat(st), xattrs, ""));
    ASSIGN_OR_RETURN(const auto names, List(fd, frame.path));
    for (const auto& [name, type] : names) {
      if (Interrupted()) return Fail(EINTR, "interrupted");
      std::string path = frame.path.empty() ? name : frame.path + "/" + name;
      if (sink_.Excluded(path)) continue;
      unsigned char kind = type;
      if (kind == DT_UNKNOWN) {
        struct stat child;
        if (fstatat(fd, name.c_str(), &child, AT_SYMLINK_NOFOLLOW) != 0) {
          if (errno != ENOENT) return Failed(errno, path);
          WarnGone(path);
          continue;
        }
        kind = static_cast<unsigned char>(IFTODT(child.st_mode));
      }
      if (kind == DT_DIR) {
        frame.subdirectories.push_back(name);
        continue;
      }
      while (looks_.size() > 0 && (looks_.size() >= kMaxLooks || looks_.FirstIsDone())) TRY(TakeLook());
      Child child;
      child.directory = frame.directory;
      child.name = name;
      child.path = std::move(path);
      child.is_regular = kind == DT_REG;
      looks_.Add(std::move(child));
    }
    return {};
  }

  Result<std::vector<Name>> List(int fd, const std::string& path) {
    const int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // a position of its own, closed by closedir
    DIR* stream = copy < 0 ? nullptr : fdopendir(copy);
    if (stream == nullptr) {
      const int code = errno;
      if (copy >= 0) close(copy);
      return Failed(code, path);
    }
    const std::unique_ptr<DIR, int (*)(DIR*)> closer(stream, closedir);
    std::vector<Name> names;
    errno = 0;
    while (const dirent* entry = readdir(stream)) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name, entry->d_type);
      errno = 0;
    }
    if (errno != 0) return Failed(errno, path);
    std::sort(names.begin(), names.end());
    return names;
  }

  Status AddEntry(const std::string& path, Entry entry, const XattrSet& xattrs, std::string target) {
    return sink_.Add(path, std::move(entry), xattrs, std::move(target));
  }

  // The name that an inode with several names was added under. None: this is the first.
  const std::string* FirstName(const struct stat& st, const std::string& path) {
    if (st.st_nlink < 2) return nullptr;
    const auto [first, is_new] = firsts_.try_emplace(Inode{st.st_dev, st.st_ino}, path);
    return is_new ? nullptr : &first->second;
  }

  // Runs beside the walk.
  void LookBeside(Child& child) const {
    const Status status = TryLookBeside(child);
    if (!status) child.error = status.error();
    child.directory.reset();
  }
  Status TryLookBeside(Child& child) const {
    const int fd = child.directory->get();
    const char* const name = child.name.c_str();
    if (child.is_regular) {
      child.file = OpenAt(fd, name, 0);
      if (!child.file || fstat(child.file.get(), &child.st) != 0) return Failed(errno, child.path);
      return {};
    }
    if (fstatat(fd, name, &child.st, AT_SYMLINK_NOFOLLOW) != 0) return Failed(errno, child.path);
    if (S_ISLNK(child.st.st_mode)) {
      ssize_t length = 0;
      child.target.resize_and_overwrite(PATH_MAX, [&](char* out, size_t size) {
        length = readlinkat(fd, name, out, size);
        return static_cast<size_t>(std::max<ssize_t>(length, 0));
      });
      if (length < 0) return Failed(errno, child.path);
    }
    ASSIGN_OR_RETURN(child.xattrs, ReadXattrs(fd, child.path, child.name));
    return {};
  }

  // Adds the first of the children that are looked at, or has it read.
  Status TakeLook() {
    Child child = looks_.Take();
    if (child.error && (child.error->code == ENOENT || child.error->code == ELOOP)) {
      WarnGone(child.path);
      return {};
    }
    if (child.error) return tl::make_unexpected(*std::move(child.error));
    const struct stat& st = child.st;
    if (S_ISREG(st.st_mode) != child.is_regular || S_ISDIR(st.st_mode)) {
      Warn(child.path, "was replaced while it was being read, and was left out");
      return {};
    }
    if (const std::string* first = FirstName(st, child.path)) return sink_.AddLink(std::move(child.path), *first);
    if (child.is_regular) return AddRegular(std::move(child));
    return AddEntry(child.path, EntryFromStat(st), child.xattrs, std::move(child.target));
  }

  Status AddRegular(Child file) {
    const struct stat& st = file.st;
    if (const auto filesystem = FilesystemOf(file.file.get(), st.st_dev)) {
      const FileFacts facts{*filesystem, st.st_ino, st.st_ctim.tv_sec, static_cast<uint32_t>(st.st_ctim.tv_nsec)};
      if (sink_.Unchanged(file.path, EntryFromStat(st), file.size(), facts)) {
        ASSIGN_OR_RETURN(const XattrSet xattrs, ReadXattrs(file.file.get(), file.path));
        return sink_.AddUnchanged(file.path, &xattrs);
      }
    }
    file.likely = sink_.Likely(file.path, EntryFromStat(st), file.size());
    while (reads_.size() > 0 &&
           (reads_.size() >= kMaxReads || reads_bytes_ + file.cost() > kMaxReadsBytes || reads_.FirstIsDone())) {
      TRY(TakeRead());
    }
    reads_bytes_ += file.cost();
    reads_.Add(std::move(file));
    return {};
  }

  // Runs beside the walk, on several threads.
  void ReadBeside(Child& file) const {
    const Status status = TryReadBeside(file);
    if (!status) file.error = status.error();
  }
  Status TryReadBeside(Child& file) const {
    const int fd = file.file.get();
    ASSIGN_OR_RETURN(file.xattrs, ReadXattrs(fd, file.path));
    if (file.size() > kWholeFileBytes) {
      if (file.likely) {
        ASSIGN_OR_RETURN(file.is_likely, Is(fd, file.path, *file.likely));
      }
      if (!file.is_likely) return {};  // it is streamed
    } else {
      ASSIGN_OR_RETURN(file.bytes, ReadWhole(fd, file.path, file.size()));
      if (file.likely && FingerprintOf(file.likely->key, file.bytes) == file.likely->fingerprint) {
        file.is_likely = true;
        file.bytes.clear();
      }
    }
    if (fstat(fd, &file.after) != 0) return Failed(errno, file.path);
    file.file = Descriptor();
    return {};
  }

  // Adds the first of the files that are being read.
  Status TakeRead() {
    Child file = reads_.Take();
    reads_bytes_ -= file.cost();
    if (file.error) return tl::make_unexpected(*std::move(file.error));
    uint64_t got = file.bytes.size();
    if (file.is_likely) {
      got = file.likely->size;
      TRY(sink_.AddLikely(file.path, EntryFromStat(file.st), file.xattrs, *file.likely));
    } else if (file.size() <= kWholeFileBytes) {
      TRY(sink_.AddFile(file.path, EntryFromStat(file.st), file.xattrs, std::move(file.bytes)));
    } else {
      got = 0;
      TRY(sink_.BeginFile(file.path, EntryFromStat(file.st), file.xattrs));
      TRY(ReadLarge(file.file.get(), file.path, file.size(), got));
      TRY(sink_.EndFile());
      if (fstat(file.file.get(), &file.after) != 0) return Failed(errno, file.path);
    }
    const struct stat &before = file.st, &after = file.after;
    if (got != file.size() || after.st_size != before.st_size || after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
        after.st_mtim.tv_nsec != before.st_mtim.tv_nsec) {
      Warn(file.path, "changed while it was being read");
    }
    return {};
  }

  // As much as there is, of at most `size` bytes.
  Result<std::string> ReadWhole(int fd, const std::string& path, uint64_t size) const {
    std::string bytes;
    bytes.resize_and_overwrite(static_cast<size_t>(size), [](char*, size_t n) { return n; });
    uint64_t got = 0;
    while (got < size) {
      ASSIGN_OR_RETURN(const size_t n, ReadAt(fd, path, got, bytes.data() + got, static_cast<size_t>(size - got)));
      if (n == 0) break;
      got += n;
    }
    bytes.resize(static_cast<size_t>(got));
    return bytes;
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

  // Whether the file's bytes have the fingerprint of `likely`.
  Result<bool> Is(int fd, const std::string& path, const LikelyContent& likely) const {
    Fingerprinter fingerprinter(likely.key);
    std::string buffer(kLargeReadBytes, '\0');
    for (uint64_t got = 0; got < likely.size;) {
      if (Interrupted()) return Fail(EINTR, "interrupted");
      const auto wanted = static_cast<size_t>(std::min<uint64_t>(buffer.size(), likely.size - got));
      ASSIGN_OR_RETURN(const size_t n, ReadAt(fd, path, got, buffer.data(), wanted));
      if (n == 0) return false;
      fingerprinter.Update(std::string_view(buffer).substr(0, n));
      got += n;
    }
    return fingerprinter.Finish() == likely.fingerprint;
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
    std::array<char, 4096> some;
    ssize_t length = list(some.data(), some.size());
    if (length == 0 || (length < 0 && errno == ENOTSUP)) return XattrSet{};
    std::string names;
    if (length > 0) {
      names.assign(some.data(), static_cast<size_t>(length));
    } else if (errno == ERANGE) {
      names.resize(XATTR_LIST_MAX);
      length = list(names.data(), names.size());
    }
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
  size_t reads_bytes_ = 0;          // what those that are in `reads_` cost
  OrderedWork<Child> looks_, reads_;  // last: their threads read what is above until they end
};

Result<SourceDescription> DirectorySource::Read(ImportSink& sink) {
  TRY(Walk(*this, sink).Run());
  return SourceDescription{};
}

}  // namespace mirage
