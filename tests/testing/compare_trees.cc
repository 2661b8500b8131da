// compare_trees A B [--ignore PATH]...: compares two directory trees in all that Mirage keeps, by lstat and read:
// names, type, mode, owner, group, mtime in nanoseconds, size (not of directories), link target, link count, device
// number, extended attributes, which names are links to one file, and content. Prints a line a difference and at the
// end how much was compared. Exit 0: equal, 1: different, 2: something could not be read. `lost+found` at the root is no
// exception: give --ignore /lost+found where wanted.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

[[noreturn]] void Trouble(const std::string& what) {
  std::fprintf(stderr, "compare_trees: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(2);
}

std::set<std::string> List(const std::string& directory) {
  DIR* stream = opendir(directory.c_str());
  if (stream == nullptr) Trouble(directory);
  std::set<std::string> names;
  errno = 0;
  while (const dirent* item = readdir(stream)) {
    const std::string name = item->d_name;
    if (name != "." && name != ".." && !names.insert(name).second) {
      errno = EEXIST;
      Trouble(directory + ": lists " + name + " twice");
    }
    errno = 0;
  }
  if (errno != 0) Trouble(directory);
  closedir(stream);
  return names;
}

std::map<std::string, std::string> Xattrs(const std::string& path) {
  std::vector<char> names(1 << 16);
  const ssize_t length = llistxattr(path.c_str(), names.data(), names.size());
  if (length < 0) {
    if (errno == ENOTSUP) return {};
    Trouble(path + ": listxattr");
  }
  std::map<std::string, std::string> xattrs;
  for (const char* name = names.data(); name < names.data() + length; name += std::strlen(name) + 1) {
    std::vector<char> value(1 << 16);
    const ssize_t size = lgetxattr(path.c_str(), name, value.data(), value.size());
    if (size < 0) Trouble(path + ": getxattr " + name);
    xattrs.emplace(name, std::string(value.data(), static_cast<size_t>(size)));
  }
  return xattrs;
}

std::string LinkTarget(const std::string& path) {
  std::vector<char> target(1 << 16);
  const ssize_t size = readlink(path.c_str(), target.data(), target.size());
  if (size < 0) Trouble(path);
  return {target.data(), static_cast<size_t>(size)};
}

class File {
 public:
  explicit File(const std::string& path) : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) Trouble(path);
  }
  ~File() { close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  // Fills the buffer but for the file's end.
  size_t Read(std::vector<char>& buffer) {
    size_t filled = 0;
    while (filled < buffer.size()) {
      const ssize_t count = read(descriptor_, buffer.data() + filled, buffer.size() - filled);
      if (count < 0) Trouble(path_);
      if (count == 0) break;
      filled += static_cast<size_t>(count);
    }
    return filled;
  }

 private:
  std::string path_;
  int descriptor_;
};

class Comparison {
 public:
  Comparison(std::string a, std::string b, std::set<std::string> ignored)
      : a_(std::move(a)), b_(std::move(b)), ignored_(std::move(ignored)) {}

  // Returns the number of differences.
  uint64_t Run() {
    Entry("");
    if (groups_a_ != groups_b_) Differ("", "hard links", "other names in one group", "");
    std::printf("%llu entries, %llu bytes of content, %llu xattrs compared: %llu differences\n",
                static_cast<unsigned long long>(entries_), static_cast<unsigned long long>(bytes_),
                static_cast<unsigned long long>(xattrs_), static_cast<unsigned long long>(differences_));
    return differences_;
  }

 private:
  void Differ(const std::string& path, const char* what, const std::string& in_a, const std::string& in_b) {
    ++differences_;
    std::printf("%s: %s: %s | %s\n", path.empty() ? "/" : path.c_str(), what, in_a.c_str(), in_b.c_str());
  }
  void Number(const std::string& path, const char* what, uint64_t in_a, uint64_t in_b) {
    if (in_a != in_b) Differ(path, what, std::to_string(in_a), std::to_string(in_b));
  }

  void Entry(const std::string& path) {
    ++entries_;
    struct stat a {}, b {};
    if (lstat((a_ + path).c_str(), &a) != 0) Trouble(a_ + path);
    if (lstat((b_ + path).c_str(), &b) != 0) Trouble(b_ + path);
    if ((a.st_mode & S_IFMT) != (b.st_mode & S_IFMT)) {
      Differ(path, "type (octal mode as a number)", std::to_string(a.st_mode), std::to_string(b.st_mode));
      return;
    }
    Number(path, "mode", a.st_mode, b.st_mode);
    Number(path, "uid", a.st_uid, b.st_uid);
    Number(path, "gid", a.st_gid, b.st_gid);
    Number(path, "mtime", static_cast<uint64_t>(a.st_mtim.tv_sec), static_cast<uint64_t>(b.st_mtim.tv_sec));
    Number(path, "mtime ns", static_cast<uint64_t>(a.st_mtim.tv_nsec), static_cast<uint64_t>(b.st_mtim.tv_nsec));
    Links(path, a, b);
    if (S_ISCHR(a.st_mode) || S_ISBLK(a.st_mode)) Number(path, "device number", a.st_rdev, b.st_rdev);
    if (!S_ISDIR(a.st_mode)) {
      Number(path, "size", static_cast<uint64_t>(a.st_size), static_cast<uint64_t>(b.st_size));
    }
    Attributes(path);
    if (S_ISLNK(a.st_mode)) {
      const std::string in_a = LinkTarget(a_ + path), in_b = LinkTarget(b_ + path);
      if (in_a != in_b) Differ(path, "link target", in_a, in_b);
    } else if (S_ISREG(a.st_mode)) {
      Content(path);
    } else if (S_ISDIR(a.st_mode)) {
      Directory(path);
    }
  }

  // A directory's link count is compared only when nothing below it was left out.
  void Links(const std::string& path, const struct stat& a, const struct stat& b) {
    if (!S_ISDIR(a.st_mode)) {
      Number(path, "link count", a.st_nlink, b.st_nlink);
      if (a.st_nlink > 1) groups_a_.emplace(path, first_a_.emplace(a.st_ino, path).first->second);
      if (b.st_nlink > 1) groups_b_.emplace(path, first_b_.emplace(b.st_ino, path).first->second);
      return;
    }
    const bool ignores_a_child = std::any_of(ignored_.begin(), ignored_.end(), [&](const std::string& ignored) {
      return ignored.starts_with(path + "/") && ignored.find('/', path.size() + 1) == std::string::npos;
    });
    if (!ignores_a_child) Number(path, "link count", a.st_nlink, b.st_nlink);
  }

  void Attributes(const std::string& path) {
    const auto in_a = Xattrs(a_ + path), in_b = Xattrs(b_ + path);
    xattrs_ += in_a.size();
    for (const auto& [name, value] : in_a) {
      const auto other = in_b.find(name);
      if (other == in_b.end()) {
        Differ(path, name.c_str(), "present", "absent");
      } else if (other->second != value) {
        Differ(path, name.c_str(), "one value", "another");
      }
    }
    for (const auto& [name, value] : in_b) {
      if (!in_a.contains(name)) Differ(path, name.c_str(), "absent", "present");
    }
  }

  void Content(const std::string& path) {
    File a(a_ + path), b(b_ + path);
    uint64_t offset = 0;
    for (;;) {
      const size_t in_a = a.Read(buffer_a_), in_b = b.Read(buffer_b_);
      if (in_a != in_b || std::memcmp(buffer_a_.data(), buffer_b_.data(), in_a) != 0) {
        Differ(path, "content", "differs in the block at " + std::to_string(offset), "");
        return;
      }
      offset += in_a;
      bytes_ += in_a;
      if (in_a < buffer_a_.size()) return;
    }
  }

  void Directory(const std::string& path) {
    const auto in_a = List(a_ + path), in_b = List(b_ + path);
    std::set<std::string> names = in_a;
    names.insert(in_b.begin(), in_b.end());
    for (const std::string& name : names) {
      const std::string child = path + "/" + name;
      if (ignored_.contains(child)) continue;
      if (in_a.contains(name) && in_b.contains(name)) {
        Entry(child);
      } else {
        Differ(child, "name", in_a.contains(name) ? "present" : "absent", in_b.contains(name) ? "present" : "absent");
      }
    }
  }

  std::string a_, b_;
  std::set<std::string> ignored_;
  std::map<ino_t, std::string> first_a_, first_b_;           // inode -> its first name met
  std::map<std::string, std::string> groups_a_, groups_b_;   // name -> first name of its group
  std::vector<char> buffer_a_ = std::vector<char>(1 << 20), buffer_b_ = std::vector<char>(1 << 20);
  uint64_t entries_ = 0, bytes_ = 0, xattrs_ = 0, differences_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> roots;
  std::set<std::string> ignored;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--ignore" && i + 1 < argc) {
      ignored.insert(argv[++i]);
    } else {
      roots.emplace_back(argv[i]);
    }
  }
  if (roots.size() != 2) {
    std::fprintf(stderr, "usage: compare_trees A B [--ignore PATH]...\n");
    return 2;
  }
  return Comparison(roots[0], roots[1], ignored).Run() == 0 ? 0 : 1;
}
