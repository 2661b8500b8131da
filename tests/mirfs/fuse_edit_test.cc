// Real work in an edit mount, through the kernel and the mirfs program, and what its version holds afterwards.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <chrono>
#include <random>
#include <set>
#include <thread>

#include "mirfs/committer.h"
#include "mirfs/mount_status.h"
#include "mirfs/overlay.h"
#include "tests/mirfs/directory_library.h"

namespace mirage::testing {
namespace {

// Everything a program can see of the tree in the working directory, but for directories' sizes.
constexpr char kListing[] =
    R"({ find . -mindepth 1 ! -type d -printf '%P %y %m %U %G %n %T@ %l %s\n' -o -mindepth 1 -printf '%P d %m %U %G %n %T@\n'
        find . -type f -exec sha256sum {} +; getfattr -hR -d -m - . ; } 2> /dev/null | sort)";

class EditMountTest : public DirectoryLibraryTest {
 protected:
  void SetUp() override {
    if (!HaveFuse()) GTEST_SKIP() << "no /dev/fuse here";
    MustRun("mkdir -p " + mount());
    MakeSource();
    ImportSource("main");
    Mount("edit=main");
  }
  void TearDown() override { RunShell("fusermount3 -uz " + mount()); }
  std::string mount() const { return directory_ / "mount"; }
  void Mount(const std::string& options) const {
    const char* bin = std::getenv("MIRAGE_BIN");
    MustRun(std::string(bin ? bin : ".") + "/mirfs " + path() + " " + mount() + " -o " + options);
  }
  std::string In(const std::string& line) const { return MustRun("cd " + mount() + " && " + line); }
  std::string OverlayId() {
    const auto overlays = Must(ListOverlays(*library_));
    EXPECT_EQ(1u, overlays.size());
    return overlays.empty() ? "" : overlays[0].id;
  }
  std::optional<Published> Commit() {
    auto result = Must(ControlUnmount(library_->path(), OverlayId(), {}));
    Must(library_->Refresh());
    return result.version;
  }
  // Unmounts; the version then lists as the mount did, from the read-only tree as from a new edit mount.
  void ExpectCommitShowsTheSame() {
    const std::string before = In(kListing);
    const auto version = Commit();
    ASSERT_TRUE(version);
    {
      const InProcessMount versions(path(), directory_ / "versions");
      EXPECT_EQ(before, MustRun("cd " + directory_ / "versions/main/" + version->tag + " && " + kListing));
    }
    Mount("edit=main");
    EXPECT_EQ(before, In(kListing));
    EXPECT_FALSE(Commit()) << "looking is no change";
  }
  // Whether the kernel writes files by itself, and has done so.
  bool Passthrough() const { return !Must(ListMounts(*library_)).at(0).requests_by_kind.contains("write"); }
  void KillDaemon() {
    // The lock's file names the holder.
    const std::string words = MustRun("cat " + path() + "/overlays/" + OverlayId() + "/lock");
    const int daemon = std::atoi(words.c_str());
    ASSERT_GT(daemon, 1) << words;
    kill(daemon, SIGKILL);
    MustRun("for i in $(seq 100); do kill -0 " + std::to_string(daemon) + " 2> /dev/null || exit 0; sleep 0.05; done; exit 1");
    RunShell("fusermount3 -u " + mount());
  }
};

TEST_F(EditMountTest, ShellWork) {
  EXPECT_EQ(MustRun("cd " + source() + " && " + kListing), In(kListing));
  In(R"(mkdir -p new/deep && echo one > new/deep/file && echo two >> new/deep/file && cp -a many new/copy &&
     mv usr/bin new/bin && rm -r same1 && mkdir same1 && echo again > same1/1 && mv same2/7 same2/seven &&
     ln etc/passwd new/passwd && ln -s ../etc new/link && rm etc/dangling && mkfifo new/fifo && chmod 4711 new/deep/file &&
     echo more >> new/bin/big && truncate -s 100 etc/sparse && : > etc/passwd && setfattr -n user.b -v 2 etc/init.d/ssh &&
     touch -d '2001-02-03 04:05:06.700000007' etc/init.d/ssh && mv 'a b' 'c d' && rmdir empty && mv -T same1 empty &&
     sed -i s/1/one/ many/1 many/11 && dd if=/dev/zero of=new/bin/big2 bs=4096 seek=100 count=3 conv=notrunc status=none)");
  EXPECT_EQ("3000005", In("stat -c %s etc/big3"));
  ExpectCommitShowsTheSame();
}

TEST_F(EditMountTest, TarInAndOutIsEqual) {
  In("mkdir copy && tar -cf - --exclude ./copy --xattrs --sparse . | tar -xf - --xattrs -C copy");
  MustRun("tar -cf - --xattrs -C " + mount() + "/copy . | { mkdir " + directory_ / "out" + " && tar -xf - --xattrs -C " +
          directory_ / "out" + "; }");
  EXPECT_EQ(MustRun("cd " + source() + " && " + kListing), MustRun("cd " + directory_ / "out" + " && " + kListing));
  ExpectCommitShowsTheSame();
}

TEST_F(EditMountTest, Git) {
  if (RunShell("command -v git").status != 0) GTEST_SKIP() << "no git here";
  In(R"sh(git init -q repository && cd repository && cp -a ../many ../etc . && git add -A &&
     git -c user.name=n -c user.email=e commit -qm one && git fsck --strict && git gc -q &&
     cd .. && git clone -q --local repository clone && cd clone && echo x > many/1 && git -c user.name=n -c user.email=e commit -qam two &&
     git fsck --strict && git checkout -q HEAD~1 && [ -z "$(git status --porcelain)" ])sh");
  ExpectCommitShowsTheSame();
}

TEST_F(EditMountTest, MappedAndUnlinkedFiles) {
  const int big = open((mount() + "/usr/bin/big").c_str(), O_RDWR);
  ASSERT_GE(big, 0);
  char* map = static_cast<char*>(mmap(nullptr, 3000000, PROT_READ | PROT_WRITE, MAP_SHARED, big, 0));
  ASSERT_NE(MAP_FAILED, map);
  std::memcpy(map + 1000000, "mapped", 6);
  std::memcpy(map + 2999994, "at end", 6);
  munmap(map, 3000000);
  close(big);
  EXPECT_EQ("mapped", In("tail -c +1000001 etc/big3 | head -c 6"));  // another name of it
  EXPECT_EQ("at end", In("tail -c 6 usr/bin/big2"));

  const int gone = open((mount() + "/etc/passwd").c_str(), O_RDWR);
  In("rm etc/passwd && echo another > etc/passwd");
  EXPECT_EQ(4, pwrite(gone, "ROOT", 4, 0));
  char bytes[9] = {};
  EXPECT_EQ(8, pread(gone, bytes, 8, 0));
  EXPECT_STREQ("ROOT:x:0", bytes);
  struct stat st {};
  EXPECT_EQ(0, fstat(gone, &st));
  EXPECT_EQ(0u, st.st_nlink);
  close(gone);
  ExpectCommitShowsTheSame();
}

TEST_F(EditMountTest, HolesAreToldWhereTheKernelHasThePagesOfTheHostsFile) {
  for (const bool passthrough : {true, false}) {
    if (!passthrough) {
      (void)Commit();
      Mount("edit=main,nopassthrough");
    }
    const std::string make = "truncate -s 8M holes && printf middle | dd of=holes bs=1 seek=3000000 conv=notrunc status=none";
    MustRun("cd " + directory_ / "" + " && " + make);
    In(make);
    const std::string ours = DataAndHole(mount() + "/holes", 0), host = DataAndHole(directory_ / "holes", 0);
    const bool told = passthrough && Passthrough();
    EXPECT_EQ(told ? host : "0 8388608", ours);
    EXPECT_EQ("- -", DataAndHole(mount() + "/holes", 8388608));
    if (told) {
      EXPECT_EQ(DataAndHole(directory_ / "holes", 4000000), DataAndHole(mount() + "/holes", 4000000));
      In("cp --sparse=auto holes copy && cmp holes copy && [ $(du -k copy | cut -f1) -lt 100 ]");
    }
    // A lower file may be dirty anywhere in the kernel's pages.
    EXPECT_EQ("5 10485763", DataAndHole(mount() + "/etc/sparse", 5));
    const int sparse = open((mount() + "/etc/sparse").c_str(), O_RDWR);
    char* map = static_cast<char*>(mmap(nullptr, 10 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, sparse, 0));
    ASSERT_NE(MAP_FAILED, map);
    map[5 << 20] = 'm';
    EXPECT_EQ("0 10485763", DataAndHole(mount() + "/etc/sparse", 0));
    In("cp --sparse=auto etc/sparse copy && cmp etc/sparse copy");
    munmap(map, 10 << 20);
    close(sparse);
    EXPECT_EQ("- -", DataAndHole(mount() + "/etc/empty", 0));
  }
}

TEST_F(EditMountTest, ManyWritersAtOnce) {
  In(R"(for w in 1 2 3 4; do (mkdir w$w; for i in $(seq 100); do echo $w $i > w$w/$i; mv w$w/$i w$w/m$i; ln w$w/m$i w$w/l$i;
       chmod 600 w$w/l$i; rm w$w/m$i; find many > /dev/null; done) & done; wait)");
  EXPECT_EQ("400", In("find w? -type f | wc -l"));
  ExpectCommitShowsTheSame();
}

TEST_F(EditMountTest, AKilledDaemonLosesNothingThatWasSynced) {
  In(R"(echo new > etc/new && mv many renamed && rm -r same1 && chmod 700 usr && echo appended >> usr/bin/big &&
     dd if=/dev/urandom of=usr/bin/big bs=5000 count=3 seek=7 conv=notrunc status=none && echo tail >> etc/init.d/ssh &&
     sync etc/new usr/bin/big etc/init.d/ssh)");
  const std::string before = In(kListing), id = OverlayId();
  KillDaemon();
  EXPECT_FALSE(Must(ListOverlays(*library_)).at(0).mounted);
  Mount("resume=" + id);
  EXPECT_EQ(before, In(kListing));
  In("echo later > etc/later && sync etc/later");
  const std::string later = In(kListing);
  KillDaemon();
  // And without a mount.
  const auto version = Must(CommitOverlay(*library_, id, {}));
  ASSERT_TRUE(version);
  Must(library_->Refresh());
  const InProcessMount versions(path(), directory_ / "versions");
  EXPECT_EQ(later, MustRun("cd " + directory_ / "versions/main/" + version->tag + " && " + kListing));
}

// Changes names and attributes, one after the other and none of them synced, until one is not answered.
class Changer {
 public:
  explicit Changer(std::string root) : root_(std::move(root)) {}
  using State = std::set<std::string>;  // "path mode links"

  void Run(const std::atomic<bool>& stop) {
    for (int i = 0; !stop; ++i) {
      const std::string d = "d" + std::to_string(i), file = d + "/file", moved = d + "/moved", link = d + "/link";
      if (!Step({}, {d + " 755 2"}, [&] { return mkdir(At(d), 0755); })) return;
      if (!Step({}, {file + " 644 1"}, [&] {
            const int made = open(At(file), O_CREAT | O_EXCL | O_WRONLY, 0644);
            return made < 0 ? -1 : close(made);
          })) return;
      if (!Step({file + " 644 1"}, {file + " 604 1"}, [&] { return chmod(At(file), 0604); })) return;
      if (!Step({file + " 604 1"}, {moved + " 604 1"}, [&] { return rename(At(file), At(moved)); })) return;
      if (!Step({moved + " 604 1"}, {moved + " 604 2", link + " 604 2"}, [&] { return ::link(At(moved), At(link)); })) return;
      if (i % 3 == 0 && !Step({moved + " 604 2", link + " 604 2"}, {link + " 604 1"}, [&] { return unlink(At(moved)); })) return;
    }
  }
  // What was answered, and the same with what was asked for last.
  const State& answered() const { return answered_; }
  const State& asked() const { return asked_; }

 private:
  template <typename Call>
  bool Step(const State& gone, const State& come, const Call& call) {
    for (const std::string& line : gone) asked_.erase(line);
    asked_.insert(come.begin(), come.end());
    if (call() != 0) return false;
    answered_ = asked_;
    return true;
  }
  const char* At(const std::string& path) {
    auto& kept = paths_[path];
    kept = root_ + "/" + path;
    return kept.c_str();
  }
  const std::string root_;
  std::map<std::string, std::string> paths_;
  State answered_, asked_;
};

TEST_F(EditMountTest, WhatWasAnsweredSurvivesAKillInMidOperation) {
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 8; ++round) {
    const std::string id = OverlayId(), place = "round" + std::to_string(round);
    In("mkdir " + place);
    Changer changer(mount() + "/" + place);
    std::atomic<bool> stop{false};
    std::thread thread([&] { changer.Run(stop); });
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 300));
    KillDaemon();
    stop = true;
    thread.join();
    Mount("resume=" + id);
    Changer::State found;
    std::istringstream listing(In("cd " + place + " && find . -mindepth 1 -printf '%P %m %n\n'"));
    for (std::string line; std::getline(listing, line);) found.insert(line);
    EXPECT_TRUE(found == changer.answered() || found == changer.asked())
        << found.size() << " names, of " << changer.answered().size() << " that were answered";
  }
}

}  // namespace
}  // namespace mirage::testing
