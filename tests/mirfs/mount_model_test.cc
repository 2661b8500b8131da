// Random operations on an edit mount and on a directory of the host, both through the kernel: each must give the same
// result, and the trees must be equal, entry by entry, while the daemon is unmounted and resumed, or killed and resumed,
// in between, and as a version in the end. MIRAGE_SEED repeats a run.
#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include <cstring>
#include <map>
#include <random>

#include "mirfs/overlay.h"
#include "tests/mirfs/directory_library.h"

namespace mirage::testing {
namespace {

class MountModelTest : public DirectoryLibraryTest {
 protected:
  void SetUp() override {
    if (!HaveFuse()) GTEST_SKIP() << "no /dev/fuse here";
    MustRun("mkdir -p " + mount() + " " + source() + " && cd " + source() + R"( &&
      mkdir -p a/c a/d b/c b/d && for f in a/e a/c/f b/e b/d/f f; do head -c 5000 /dev/urandom > $f; done && head -c 700000 /dev/urandom > b/big &&
      ln a/e b/c/e && ln -s ../e a/c/e && mkfifo a/f)");
    ImportSource("main");
    Mount("edit=main,detach");
  }
  void TearDown() override { RunShell("fusermount3 -uz " + mount()); }
  std::string mount() const { return directory_ / "mount"; }
  void Mount(const std::string& options) const {
    const char* bin = std::getenv("MIRAGE_BIN");
    MustRun(std::string(bin ? bin : ".") + "/mirfs " + path() + " " + mount() + " -o " + options + way_);
  }
  std::string way_;  // further options of every mount
  OverlayInfo Only() { return Must(ListOverlays(*library_)).at(0); }

  // What the kernel holds goes to the daemon; the daemon dies; nothing that was answered may be lost.
  void KillAndResume() {
    const int root = open(mount().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_EQ(0, syncfs(root));
    close(root);
    const std::string id = Only().id;
    const int daemon = std::atoi(MustRun("cat " + path() + "/overlays/" + id + "/lock").c_str());
    ASSERT_GT(daemon, 1);
    kill(daemon, SIGKILL);
    MustRun("umount " + mount() + " || fusermount3 -u " + mount());
    // The dead process's lock is free when it is gone.
    Mount("resume=" + id);
  }
  void UnmountAndResume() {
    const std::string id = Only().id;
    EXPECT_TRUE(Must(ControlUnmount(library_->path(), id, {})).kept);
    Mount("resume=" + id);
  }

  // One random operation in the directory open as `root`: its errno, or what it gave.
  long Apply(int root, uint32_t seed) const {
    std::mt19937 random(seed);
    const auto path = [&] {
      std::string text;
      for (size_t depth = 1 + random() % 3; depth > 0; --depth) text += (text.empty() ? "" : "/") + std::string(1, "abcdef"[random() % 6]);
      return text == "b/f" ? std::string("b/big") : text;
    };
    const auto result = [](long value) { return value < 0 ? -static_cast<long>(errno) : value; };
    const auto bytes = [&](size_t most) {
      std::string text(1 + random() % most, '\0');
      for (char& byte : text) byte = static_cast<char>(random());
      return text;
    };
    const std::string one = path();
    // Runs `body` on the file opened with `flags`.
    const auto with = [&](int flags, const std::function<long(int)>& body) {
      const int file = openat(root, one.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0644);
      if (file < 0) return result(-1);
      const long value = result(body(file));
      close(file);
      return value;
    };
    switch (random() % 20) {
      case 0:
      case 1: return with(O_WRONLY | O_CREAT, [&](int file) {
        const std::string text = bytes(9000);
        return pwrite(file, text.data(), text.size(), static_cast<off_t>(random() % 20000));
      });
      case 2: return with(O_WRONLY | O_APPEND, [&](int file) {
        const std::string text = bytes(100);
        return write(file, text.data(), text.size());
      });
      case 3: return with(O_WRONLY | O_TRUNC, [](int) { return 0L; });
      case 4: return with(O_WRONLY, [&](int file) { return ftruncate(file, static_cast<off_t>(random() % 800000)); });
      case 5: return with(O_WRONLY, [&](int file) {
        return fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(random() % 700000), 1 + static_cast<off_t>(random() % 50000));
      });
      case 6: return with(O_RDWR, [&](int file) -> long {
        struct stat st {};
        if (fstat(file, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) return 0;
        auto* map = static_cast<char*>(mmap(nullptr, static_cast<size_t>(st.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
        if (map == MAP_FAILED) return -1;
        std::memset(map + random() % static_cast<size_t>(st.st_size), 'm', 1);
        return munmap(map, static_cast<size_t>(st.st_size));
      });
      case 7: return result(mkdirat(root, one.c_str(), 0755));
      case 8: return result(unlinkat(root, one.c_str(), AT_REMOVEDIR));
      case 9: return result(unlinkat(root, one.c_str(), 0));
      case 10:
      case 11:
      case 12: {
        constexpr unsigned kFlags[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
        const std::string two = path();
        return result(renameat2(root, one.c_str(), root, two.c_str(), kFlags[random() % 4]));
      }
      case 13:
      case 14: return result(linkat(root, one.c_str(), root, path().c_str(), 0));
      case 15: return result(symlinkat(path().c_str(), root, one.c_str()));
      case 16: return with(O_RDONLY, [&](int file) { return fchmod(file, random() % 01000); });
      case 17: return with(O_RDONLY, [&](int file) { return fsetxattr(file, random() % 2 ? "user.a" : "user.b", "value", random() % 5, 0); });
      case 18: return with(O_RDONLY, [&](int file) { return fremovexattr(file, "user.a"); });
      default: return with(O_RDWR, [&](int file) {  // goes on while it has no name
        if (unlinkat(root, one.c_str(), 0) != 0) return -1L;
        return pwrite(file, "gone", 4, 10);
      });
    }
  }

  static void List(const std::string& directory, const std::string& prefix, std::map<ino_t, std::string>* inodes,
                   std::map<std::string, std::string>* out) {
    DIR* listing = opendir(directory.c_str());
    if (!listing) return;
    std::vector<std::string> names;
    while (const dirent* entry = readdir(listing)) {
      if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) names.push_back(entry->d_name);
    }
    closedir(listing);
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      const std::string whole = directory + "/" + name, path = prefix + name;
      struct stat st {};
      if (lstat(whole.c_str(), &st) != 0) {
        (*out)[path] = "listed, but not there";
        continue;
      }
      std::string text = fmt::format("{:o} {} {} {}", st.st_mode, st.st_uid, st.st_gid, st.st_nlink);
      if (!S_ISDIR(st.st_mode)) text += fmt::format(" {} = {}", st.st_size, inodes->emplace(st.st_ino, path).first->second);
      if (S_ISREG(st.st_mode)) {
        const int file = open(whole.c_str(), O_RDONLY | O_CLOEXEC);
        std::string bytes(static_cast<size_t>(st.st_size) + 1, '\0');
        const ssize_t got = file < 0 ? -1 : pread(file, bytes.data(), bytes.size(), 0);
        if (file >= 0) close(file);
        bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
        text += fmt::format(" {} {:x}", got, std::hash<std::string>()(bytes));
      }
      if (S_ISLNK(st.st_mode)) {
        char target[4096];
        const ssize_t got = readlink(whole.c_str(), target, sizeof target);
        text += " -> " + std::string(target, got < 0 ? 0 : static_cast<size_t>(got));
      }
      char value[64];
      for (const char* attribute : {"user.a", "user.b"}) {
        const ssize_t got = lgetxattr(whole.c_str(), attribute, value, sizeof value);
        if (got >= 0) text += fmt::format(" {}={}", attribute, std::string(value, static_cast<size_t>(got)));
      }
      (*out)[path] = text;
      if (S_ISDIR(st.st_mode)) List(whole, path + "/", inodes, out);
    }
  }
  static std::string Difference(const std::string& expected, const std::string& actual) {
    std::map<std::string, std::string> one, other;
    std::map<ino_t, std::string> ones, others;
    List(expected, "", &ones, &one);
    List(actual, "", &others, &other);
    std::string text;
    for (const auto& [path, line] : one) {
      const auto found = other.find(path);
      if (found == other.end() || found->second != line) text += fmt::format("{}: {} | {}\n", path, line, found == other.end() ? "missing" : found->second);
    }
    for (const auto& [path, line] : other) {
      if (!one.contains(path)) text += fmt::format("{}: not there | {}\n", path, line);
    }
    return text;
  }

  void Run(int steps) {
    const char* given = std::getenv("MIRAGE_SEED");
    const uint32_t seed = given ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10)) : std::random_device()();
    SCOPED_TRACE(fmt::format("MIRAGE_SEED={}", seed));
    std::mt19937 random(seed);
    int model = open(source().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int root = -1;
    for (int step = 0; step < steps && !HasFailure(); ++step) {
      if (root < 0) root = open(mount().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      const uint32_t operation = static_cast<uint32_t>(random());
      EXPECT_EQ(Apply(model, operation), Apply(root, operation)) << "step " << step << ", operation " << operation;
      const auto event = random() % 600;
      if (event < 20) {
        EXPECT_EQ("", Difference(source(), mount())) << "step " << step;
      } else if (event < 24) {
        close(std::exchange(root, -1));
        event % 2 ? UnmountAndResume() : KillAndResume();
        EXPECT_EQ("", Difference(source(), mount())) << "resumed behind step " << step;
      }
    }
    if (root >= 0) close(root);
    close(model);
    EXPECT_EQ("", Difference(source(), mount()));
    const auto version = Must(ControlUnmount(library_->path(), Only().id, {.message = "", .tag = "", .discard = false, .author = "", .commit = true})).version;
    ASSERT_TRUE(version);
    Mount("edit=main");
    EXPECT_EQ("", Difference(source(), mount()));
  }
};

TEST_F(MountModelTest, Short) { Run(1000); }
// With the kernel's write-back cache, as for users who are not root and kernels before 6.9.
class MountModelWithoutPassthroughTest : public MountModelTest {
 protected:
  void SetUp() override {
    way_ = ",nopassthrough";
    MountModelTest::SetUp();
  }
};
TEST_F(MountModelWithoutPassthroughTest, Short) { Run(1000); }
TEST_F(MountModelWithoutPassthroughTest, Long) { Run(10000); }
TEST_F(MountModelTest, Long) { Run(40000); }

}  // namespace
}  // namespace mirage::testing
