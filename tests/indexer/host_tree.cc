#include "tests/indexer/host_tree.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "store/tree_reader.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;

// A POSIX ACL as Linux stores it: version 2, then entries of tag, permissions, id.
std::string Acl(uint32_t user, uint16_t permissions) {
  std::string out("\x02\0\0\0", 4);
  const auto add = [&](uint16_t tag, uint16_t bits, uint32_t id) {
    out.append(reinterpret_cast<const char*>(&tag), 2);
    out.append(reinterpret_cast<const char*>(&bits), 2);
    out.append(reinterpret_cast<const char*>(&id), 4);
  };
  add(0x01, 6, ~0U);
  add(0x02, permissions, user);
  add(0x04, 4, ~0U);
  add(0x10, 7, ~0U);
  add(0x20, 4, ~0U);
  return out;
}

class Filler {
 public:
  explicit Filler(const std::string& directory) : top_(directory) {}

  void Check(int result, const std::string& what) const {
    if (result != 0) throw std::runtime_error(what + ": " + std::strerror(errno));
  }
  std::string At(const std::string& path) const { return top_ + "/" + path; }
  void Write(const std::string& path, const std::string& bytes) const {
    std::ofstream(At(path), std::ios::binary) << bytes;
  }
  void Directory(const std::string& path) const { fs::create_directories(At(path)); }
  void Link(const std::string& from, const std::string& to) const { Check(link(At(from).c_str(), At(to).c_str()), to); }
  void Symlink(const std::string& target, const std::string& path) const {
    Check(symlink(target.c_str(), At(path).c_str()), path);
  }
  void Node(const std::string& path, mode_t mode, dev_t device) const {
    Check(mknod(At(path).c_str(), mode, device), path);
  }
  void Xattr(const std::string& path, const std::string& name, const std::string& value) const {
    Check(lsetxattr(At(path).c_str(), name.c_str(), value.data(), value.size(), 0), path + " " + name);
  }
  void Owner(const std::string& path, uid_t uid, gid_t gid) const { Check(lchown(At(path).c_str(), uid, gid), path); }
  void Mode(const std::string& path, mode_t mode) const { Check(chmod(At(path).c_str(), mode), path); }
  void Time(const std::string& path, time_t sec, long nsec) const {
    const timespec times[2] = {{1, 0}, {sec, nsec}};
    Check(utimensat(AT_FDCWD, At(path).c_str(), times, AT_SYMLINK_NOFOLLOW), path);
  }
  void Socket(const std::string& path) const {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int top = open(top_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = "/proc/self/fd/" + std::to_string(top) + "/" + path;  // short, whatever the directory
    std::strncpy(address.sun_path, name.c_str(), sizeof address.sun_path - 1);
    Check(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), path);
    close(fd);
    close(top);
  }
  // Data of the given length at an offset; all else is a hole.
  void Sparse(const std::string& path, off_t size, off_t offset, const std::string& bytes) const {
    const int fd = open(At(path).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    Check(ftruncate(fd, size), path);
    if (!bytes.empty()) Check(pwrite(fd, bytes.data(), bytes.size(), offset) < 0 ? -1 : 0, path);
    close(fd);
  }

 private:
  const std::string top_;
};

// Bytes without a pattern, always the same.
std::string Noise(size_t size, uint64_t seed) {
  std::string out(size, '\0');
  for (char& c : out) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    c = static_cast<char>(seed >> 56);
  }
  return out;
}

struct Reader {
  static std::string Bytes(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static XattrSet Xattrs(const std::string& path) {
    std::string names(1 << 16, '\0');
    const ssize_t length = llistxattr(path.c_str(), names.data(), names.size());
    XattrSet out;
    for (ssize_t at = 0; at < length;) {
      const std::string name = names.c_str() + at;
      at += static_cast<ssize_t>(name.size()) + 1;
      if (name.starts_with("user.mirage.")) continue;
      std::string value(1 << 16, '\0');
      const ssize_t size = lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
      value.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
      out[name] = value;
    }
    return out;
  }
};

}  // namespace

void FillStrangeTree(const std::string& directory) {
  const Filler make(directory);
  for (const char* name : {"etc", "usr/bin", "var/lib/dpkg", "bin", "lib", "sbin", "boot", "root", "tmp", "deep/a/b/c",
                           "we ird", "new\nline", "empty", "many", "locked"}) {
    make.Directory(name);
  }
  // Enough of a system for the inspection to take it for Debian.
  make.Write("etc/os-release",
             "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\n"
             "VERSION_ID=\"12\"\nID=debian\n");
  make.Write("etc/debian_version", "12.4\n");
  make.Write("etc/hostname", "strange\n");
  make.Write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
  make.Write("etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n");
  make.Write("var/lib/dpkg/status",
             "Package: foo\nStatus: install ok installed\nVersion: 1:2.0-3\nArchitecture: amd64\n\n");

  make.Symlink("/bin/sh", "usr/bin/sh");
  make.Symlink(std::string(900, 'x'), "longlink");
  make.Symlink("we\nird\xff", "badlink");
  make.Symlink("nowhere", "dangling");
  make.Write("bad\xff\xfename", "hi");
  make.Write("new\nline/q\\n\"f", "x");
  make.Write(" lead trail ", "sp");
  make.Write("back\\slash\n", "bs");
  make.Write("%41=percent", "p");
  make.Write(std::string(255, 'n'), "long name");
  std::string deep = "long";
  for (int i = 0; i < 5; ++i) deep += "/" + std::string(200, static_cast<char>('a' + i));
  make.Directory(deep);
  make.Write(deep + "/f", "deep");
  make.Link(deep + "/f", deep + "/g");

  make.Write("many-", "sorts between many and what is in it");
  for (int i = 0; i < 300; ++i) make.Write("many/f" + std::to_string(i), std::to_string(i));
  make.Write("zero", "");
  make.Write("noise", Noise(3 << 20, 1));
  make.Write("noise_again", Noise(3 << 20, 1));
  make.Sparse("sparse", 20 << 20, 10'000'000, "in the middle");
  make.Sparse("all_hole", 5000, 0, "");

  make.Write("hard1", "a");
  make.Link("hard1", "deep/hard2");
  make.Link("hard1", "deep/a/hard3");
  make.Mode("hard1", 04755);
  make.Node("deep/fifo", S_IFIFO | 0640, 0);
  make.Link("deep/fifo", "fifo2");
  make.Node("deep/chr", S_IFCHR | 0600, makedev(5, 1));
  make.Node("deep/blk", S_IFBLK | 0660, makedev(259, 70000));
  make.Link("deep/chr", "chr2");
  make.Link("longlink", "longlink2");
  make.Socket("deep/sock");
  make.Socket("tmp/sock2");
  make.Link("deep/sock", "sock3");

  make.Owner("etc/passwd", 100000, 200000);
  make.Owner("empty", 3000000000U, 3000000001U);
  make.Owner("dangling", 12, 13);
  make.Owner("deep/sock", 7, 8);
  make.Mode("tmp", 01777);
  make.Mode("locked", 0);

  make.Xattr("etc/passwd", "user.a", "1");
  make.Xattr("etc/passwd", "user.binary", std::string("\0\xff\n=\0", 5));
  make.Xattr("etc/passwd", "user.empty", "");
  make.Xattr("etc/passwd", "user.mirage.own", "dropped");
  make.Xattr("hard1", "user.we=ird %41 %3D name", "v");
  make.Xattr("etc/hostname", "user.big", std::string(3000, 'y'));
  make.Xattr("deep", "trusted.t", "1");
  make.Xattr("longlink", "trusted.link", "1");
  make.Xattr("deep/chr", "trusted.device", "1");
  make.Xattr("deep/fifo", "trusted.fifo", "1");
  make.Xattr("deep/sock", "trusted.socket", "1");
  make.Xattr("etc/fstab", "security.selinux", std::string("system_u:object_r:etc_t:s0\0", 27));
  make.Xattr("longlink", "security.selinux", std::string("system_u:object_r:etc_t:s0\0", 27));
  make.Xattr("etc/hostname", "security.selinux", "system_u:object_r:without_nul_t:s0");
  make.Xattr("many/f1", "security.capability", std::string("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20));
  make.Xattr("etc/os-release", "system.posix_acl_access", Acl(1000, 7));
  make.Xattr("var", "system.posix_acl_access", Acl(5, 4));
  make.Xattr("var", "system.posix_acl_default", Acl(4'000'000, 6));
  make.Xattr("deep/fifo", "system.posix_acl_access", Acl(9, 6));
  make.Xattr("", "trusted.root", "rr");

  make.Time("etc/hostname", -2, 499'999'999);
  make.Time("etc/debian_version", -1, 500'000'000);
  make.Time("etc/passwd", 0, 500'000'000);
  make.Time("deep/fifo", 4'000'000'000, 7);
  make.Time("longlink", 5, 123'456'789);
  make.Time("deep/chr", 0, 987'654'321);
  make.Time("deep/sock", 0, 987'654'322);
  make.Time("deep/a", 1, 999'999'999);
  make.Time("deep", 1'600'000'000, 500'000'000);
  make.Mode("", 01750);
  make.Owner("", 3, 4);
  make.Time("", 1'000'000'000, 123'456'789);
}

bool VersionEqualsDirectory(const std::shared_ptr<Library>& library, const Manifest& manifest,
                            const std::string& directory, size_t* entries) {
  const TreeReader reader(library);
  size_t differences = 0;
  const auto expect = [&](bool holds, const std::string& path, const std::string& what) {
    if (!holds) {
      ++differences;
      ADD_FAILURE() << "/" << path << ": " << what;
    }
  };
  std::set<std::string> on_disk{""};
  std::map<std::pair<dev_t, ino_t>, std::vector<std::string>> inodes;
  for (const auto& item : fs::recursive_directory_iterator(directory)) {
    on_disk.insert(item.path().string().substr(directory.size() + 1));
  }
  std::set<std::string> in_version;
  const auto check = [&](const std::string& path, const Entry& entry) -> Result<bool> {
    const std::string host = path.empty() ? directory : directory + "/" + path;
    in_version.insert(path);
    struct stat st;
    if (lstat(host.c_str(), &st) != 0) {
      expect(false, path, "is not on the disk");
      return true;
    }
    if (!S_ISDIR(st.st_mode)) inodes[{st.st_dev, st.st_ino}].push_back(path);
    expect(ModeBits(entry.type) == (st.st_mode & S_IFMT), path, "type");
    expect(entry.mode == (st.st_mode & 07777), path, fmt::format("mode {:o}, not {:o}", entry.mode, st.st_mode));
    expect(entry.uid == st.st_uid && entry.gid == st.st_gid, path, fmt::format("owner {}:{}", entry.uid, entry.gid));
    expect(entry.mtime_sec == st.st_mtim.tv_sec && entry.mtime_nsec == st.st_mtim.tv_nsec, path,
           fmt::format("mtime {}.{:09}, not {}.{:09}", entry.mtime_sec, entry.mtime_nsec, st.st_mtim.tv_sec,
                       st.st_mtim.tv_nsec));
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
      expect(entry.rdev_major == major(st.st_rdev) && entry.rdev_minor == minor(st.st_rdev), path, "rdev");
    }
    ASSIGN_OR_RETURN(const XattrSet xattrs, reader.Xattrs(entry));
    const XattrSet expected = Reader::Xattrs(host);
    for (const auto& [name, value] : expected) {
      expect(xattrs.contains(name) && xattrs.at(name) == value, path, "attribute " + name);
    }
    expect(xattrs.size() == expected.size(), path,
           fmt::format("{} attributes, not {}", xattrs.size(), expected.size()));
    if (S_ISLNK(st.st_mode)) {
      ASSIGN_OR_RETURN(const std::string target, reader.SymlinkTarget(entry));
      expect(target == fs::read_symlink(host).native(), path, "target");
    }
    if (S_ISREG(st.st_mode)) {
      expect(entry.size == static_cast<uint64_t>(st.st_size), path, "size");
      std::string bytes;
      TRY(reader.Read(entry, 0, entry.size, &bytes));
      expect(bytes == Reader::Bytes(host), path, "content");
    }
    return true;
  };
  auto root = check("", manifest.root);
  EXPECT_TRUE(root) << root.error().message;
  auto walked = reader.Walk(manifest.root, [&](const std::string& path, const Entry& entry) -> Result<bool> {
    return path.empty() ? true : check(path, entry);
  });
  EXPECT_TRUE(walked) << walked.error().message;
  for (const std::string& path : on_disk) expect(in_version.contains(path), path, "is not in the version");

  std::map<std::string, std::vector<std::string>> groups;
  for (auto& [inode, paths] : inodes) {
    if (paths.size() < 2) continue;
    std::sort(paths.begin(), paths.end());
    groups[paths.front()] = paths;
  }
  auto links = reader.LinkGroups(manifest.links);
  EXPECT_TRUE(links) << links.error().message;
  if (links) expect(*links == groups, "", fmt::format("{} groups of hard links, not {}", links->size(), groups.size()));
  expect(manifest.file_count == in_version.size() - 1, "", fmt::format("file count {}", manifest.file_count));
  if (entries != nullptr) *entries = in_version.size();
  return differences == 0 && root && walked && links;
}

}  // namespace mirage::testing
