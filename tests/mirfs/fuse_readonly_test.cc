// The read-only tree through a real mount, by the programs people use on it.
#include <chrono>

#include "tests/mirfs/directory_library.h"

namespace mirage::testing {
namespace {

class ReadOnlyMountTest : public DirectoryLibraryTest {
 protected:
  void SetUp() override {
    if (!HaveFuse()) GTEST_SKIP() << "no /dev/fuse here";
    MakeSource();
    ImportSource("debian");
  }
  std::string mountpoint() const { return directory_ / "mount"; }
  std::string v(int number) const { return mountpoint() + "/debian/v" + std::to_string(number); }
  std::unique_ptr<InProcessMount> Mount() { return std::make_unique<InProcessMount>(path(), mountpoint()); }
  // Refs the kernel would believe for an hour: what changes is seen by invalidation or not at all.
  std::unique_ptr<InProcessMount> MountThatRemembers() {
    VersionsFs::Options options;
    options.refs_timeout_s = 3600;
    return std::make_unique<InProcessMount>(path(), mountpoint(), options);
  }
  // Until the line succeeds with this output. On an idle machine it is at once; a busy one is waited for.
  static bool IsSeen(const std::string& line, const std::string& wanted) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    do {
      const Shell shell = RunShell(line);
      if (shell.status == 0 && shell.out == wanted) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    } while (std::chrono::steady_clock::now() < end);
    return false;
  }
};

constexpr char kListing[] =
    R"(find . -printf '%P %y %m %U %G %n %T@ %l\n' | sort; find . ! -type d -printf '%P %s\n' | sort)";

TEST_F(ReadOnlyMountTest, EqualsItsSource) {
  const auto mount = Mount();
  EXPECT_EQ(MustRun("cd " + v(1) + " && " + kListing), MustRun("cd " + source() + " && " + kListing));
  MustRun("cd " + source() + " && find . -type f -exec cmp {} " + v(1) + "/{} ';' > " + mountpoint() +
          ".cmp && ! [ -s " + mountpoint() + ".cmp ]");
  EXPECT_EQ(MustRun("cd " + v(1) + " && getfattr -d etc/passwd"),
            MustRun("cd " + source() + " && getfattr -d etc/passwd"));
  EXPECT_EQ(MustRun("ls -di " + v(1) + "/etc/big3 | cut -d' ' -f1"),
            MustRun("ls -di " + v(1) + "/usr/bin/big | cut -d' ' -f1"));
  EXPECT_EQ(MustRun("ls " + mountpoint() + " " + mountpoint() + "/debian"),
            mountpoint() + ":\ndebian\n\n" + mountpoint() + "/debian:\nlatest\nv1");
}

// The numbers that readdir gives are those of stat, "." and ".." too.
TEST_F(ReadOnlyMountTest, ListedNumbersAreThoseOfStat) {
  const auto mount = Mount();
  for (const std::string directory : {"", "/debian", "/debian/v1", "/debian/v1/usr", "/debian/v1/many"}) {
    MustRun("cd " + mountpoint() + directory + R"sh( && ls -aiU | while read -r number name; do
      [ "$name" = .. ] && [ "$PWD" = )sh" +
            mountpoint() + R"sh( ] && continue
      [ "$number" = "$(stat -c %i "$name")" ] || { echo "$name: $number"; exit 1; }; done)sh");
  }
}

TEST_F(ReadOnlyMountTest, OpensNeedNoMessages) {
  const auto mount = Mount();
  MustRun("cat " + v(1) + "/etc/passwd && cd " + v(1) + " && grep -r zzzz . ; [ $? = 1 ]");
  EXPECT_EQ(mount->Requests("open"), 1u);  // the one that learns that none is needed
  EXPECT_EQ(mount->Requests("opendir"), 1u);
  EXPECT_EQ(mount->Requests("readdir"), 0u);
  EXPECT_EQ(mount->Requests("release"), 0u);
}

TEST_F(ReadOnlyMountTest, AWarmWalkCostsNothing) {
  const auto mount = Mount();
  const std::string walk =
      "cd " + v(1) + " && find . -printf '%i %s %T@\\n' > /dev/null && cat etc/passwd many/* > /dev/null";
  MustRun(walk);
  auto total = [&] {
    uint64_t sum = 0;
    for (const char* name : {"lookup", "getattr", "readdirplus", "readdir", "read", "open", "opendir"})
      sum += mount->Requests(name);
    return sum;
  };
  const uint64_t before = total();
  MustRun(walk);
  EXPECT_LE(total() - before, 4u);  // branch and tag entries, whose second may have run out
}

// What `diff -r` costs is the change. Requests are counted, not times.
TEST_F(ReadOnlyMountTest, DiffOpensNothingEqual) {
  MustRun("cd " + source() + " && echo changed > many/7 && touch -d '2024-02-03 04:05:06' many/7 many");
  ImportSource("debian");
  const auto mount = Mount();
  const Shell diff = RunShell("diff -r " + v(1) + " " + v(2));
  EXPECT_EQ(diff.status, 1) << diff.out;
  EXPECT_NE(diff.out.find("many/7"), std::string::npos) << diff.out;
  EXPECT_EQ(mount->Requests("read"), 2u);  // many/7, twice
  // Listed are the two roots and the two many; nothing else is gone into. A listing takes a call a page or so.
  EXPECT_EQ(mount->filesystem().inode_count() < 2 * 300 + 100, true);
  const uint64_t reads = mount->Requests("read");
  EXPECT_EQ(RunShell("diff -r " + v(1) + "/usr " + v(2) + "/usr").status, 0);
  EXPECT_EQ(mount->Requests("read"), reads);
}

TEST_F(ReadOnlyMountTest, EqualFilesOfAnotherVersionAreWarm) {
  MustRun("cd " + source() + " && echo changed > many/7");
  ImportSource("debian");
  const auto mount = Mount();
  MustRun("cat " + v(1) + "/usr/bin/big > /dev/null");
  const uint64_t reads = mount->Requests("read");
  MustRun("cmp " + v(2) + "/usr/bin/big " + source() + "/usr/bin/big");
  EXPECT_EQ(mount->Requests("read"), reads);
}

TEST_F(ReadOnlyMountTest, NewVersionsAppearWithoutARemount) {
  const auto mount = MountThatRemembers();
  EXPECT_NE(RunShell("ls " + v(2)).status, 0);  // the kernel now remembers that it is missing
  EXPECT_EQ(MustRun("ls " + mountpoint() + "/debian"), "latest\nv1");
  EXPECT_EQ(MustRun("readlink " + mountpoint() + "/debian/latest"), "v1");
  EXPECT_NE(RunShell("ls " + mountpoint() + "/other").status, 0);
  MustRun("echo more >> " + source() + "/etc/passwd");
  ImportSource("debian");
  ImportSource("other", "first");
  EXPECT_TRUE(IsSeen("tail -n1 " + v(2) + "/etc/passwd", "more"));
  EXPECT_TRUE(IsSeen("ls " + mountpoint() + "/debian", "latest\nv1\nv2"));
  EXPECT_TRUE(IsSeen("readlink " + mountpoint() + "/debian/latest", "v2"));
  EXPECT_TRUE(IsSeen("tail -n1 " + mountpoint() + "/debian/latest/etc/passwd", "more"));
  EXPECT_TRUE(IsSeen("ls " + mountpoint() + "/other", "first\nlatest"));
  EXPECT_TRUE(IsSeen("ls " + mountpoint(), "debian\nother"));
  EXPECT_EQ(MustRun("tail -n1 " + v(1) + "/etc/passwd"), "root:x:0:0");
}

TEST_F(ReadOnlyMountTest, ATagThatMovesIsSeenToMove) {
  const ObjectId first = Must(library_->snapshot()->Branch("debian"))->manifest;
  MustRun("echo more >> " + source() + "/etc/passwd");
  const ObjectId second = ImportSource("debian").version.manifest;
  Must(library_->MoveRefs("tag", {{"debian/stable", {}, first}}));
  const auto mount = MountThatRemembers();
  const std::string file = mountpoint() + "/debian/stable/etc/passwd";
  EXPECT_EQ(MustRun("tail -n1 " + file + " && ls " + mountpoint() + "/debian"), "root:x:0:0\nlatest\nstable\nv1\nv2");
  Must(library_->MoveRefs("tag", {{"debian/stable", first, second}}));
  EXPECT_TRUE(IsSeen("tail -n1 " + file, "more"));
  Must(library_->MoveRefs("tag", {{"debian/stable", second, first}}));
  EXPECT_TRUE(IsSeen("tail -n1 " + file, "root:x:0:0"));
}

// Both ways the kernel can hold a name: as one that was there, and as one that was looked for in vain.
TEST_F(ReadOnlyMountTest, ATagComesAgainAfterItWasListedAndAfterItWasMissed) {
  const ObjectId manifest = Must(library_->snapshot()->Branch("debian"))->manifest;
  Must(library_->MoveRefs("tag", {{"debian/extra", {}, manifest}}));
  const auto mount = MountThatRemembers();
  const std::string list = "ls " + mountpoint() + "/debian", look = "cat " + mountpoint() + "/debian/extra/etc/passwd";
  for (int round = 0; round < 2; ++round) {
    EXPECT_TRUE(IsSeen(look, "root:x:0:0"));
    EXPECT_TRUE(IsSeen(list, "extra\nlatest\nv1"));
    Must(library_->MoveRefs("tag", {{"debian/extra", manifest, {}}}));
    EXPECT_TRUE(IsSeen(list, "latest\nv1"));
    EXPECT_TRUE(IsSeen("! " + look + " > /dev/null 2>&1", ""));
    Must(library_->MoveRefs("tag", {{"debian/extra", {}, manifest}}));
  }
}

TEST_F(ReadOnlyMountTest, ABranchComesAgain) {
  MustRun("echo more >> " + source() + "/etc/passwd");
  const auto report = ImportSource("other", "first");
  const ObjectId manifest = report.version.manifest;
  const auto mount = MountThatRemembers();
  EXPECT_EQ(MustRun("ls " + mountpoint() + " " + mountpoint() + "/other/first/etc | grep -c ."), "12");
  Must(library_->MoveRefs("branch", {{"other", manifest, {}}, {"other/first", manifest, {}}}));
  EXPECT_TRUE(IsSeen("ls " + mountpoint(), "debian"));
  Must(library_->MoveRefs("branch", {{"other", {}, manifest}, {"other/second", {}, manifest}}));
  EXPECT_TRUE(IsSeen("ls " + mountpoint() + "/other", "latest\nsecond"));
  EXPECT_TRUE(IsSeen("! stat " + mountpoint() + "/other/first > /dev/null 2>&1", ""));
  EXPECT_TRUE(IsSeen("readlink " + mountpoint() + "/other/latest", "second"));
}

TEST_F(ReadOnlyMountTest, ATagThatGoesDisappears) {
  const auto report = ImportSource("debian", "");
  Must(library_->MoveRefs("tag", {{"debian/extra", {}, report.version.manifest}}));
  const auto mount = MountThatRemembers();
  MustRun("ls " + mountpoint() + "/debian/extra/etc");
  Must(library_->MoveRefs("tag", {{"debian/extra", report.version.manifest, {}}}));
  EXPECT_TRUE(IsSeen("ls " + mountpoint() + "/debian", "latest\nv1"));
  EXPECT_TRUE(IsSeen("! stat " + mountpoint() + "/debian/extra > /dev/null 2>&1", ""));
}

TEST_F(ReadOnlyMountTest, WhoStandsInATagThatGoesReadsOn) {
  const auto report = ImportSource("debian", "");
  Must(library_->MoveRefs("tag", {{"debian/extra", {}, report.version.manifest}}));
  const auto mount = MountThatRemembers();
  const std::string gone = mountpoint() + "/debian/extra";
  const std::string there = directory_ / "there", wait = directory_ / "wait";
  ASSERT_EQ(mkfifo(wait.c_str(), 0600), 0);
  std::thread reader([&] {
    EXPECT_EQ(MustRun("cd " + gone + "/etc && touch " + there + " && cat " + wait + " && cat passwd init.d/ssh"),
              "root:x:0:0\nstart");
  });
  EXPECT_TRUE(IsSeen("ls " + there, there));
  Must(library_->MoveRefs("tag", {{"debian/extra", report.version.manifest, {}}}));
  EXPECT_TRUE(IsSeen("! stat " + gone + " > /dev/null 2>&1", ""));
  MustRun(": > " + wait);
  reader.join();
}

// What a second version shares with one that was read costs no request for it.
TEST_F(ReadOnlyMountTest, GrepOfASecondVersionReadsWhatDiffers) {
  MustRun("cd " + source() + " && echo changed > many/7 && echo new > many/new");
  ImportSource("debian");
  const auto mount = Mount();
  MustRun("grep -r zzzz " + v(1) + "; [ $? = 1 ]");
  const uint64_t reads = mount->Requests("read");
  MustRun("grep -r zzzz " + v(2) + "; [ $? = 1 ]");
  EXPECT_GE(mount->Requests("read"), reads + 1);  // that of many/new is not sent if it was handed over behind many/7
  EXPECT_LE(mount->Requests("read"), reads + 2);
}

// Who reads files in the order of their directory is given the next ones before he asks.
TEST_F(ReadOnlyMountTest, AScanIsGivenFilesBeforeItAsks) {
  MustRun("cd " + source() + " && mkdir scan more && for i in $(seq 1000 1999); do seq $i $((i + i % 900)) > scan/$i; done && "
          "for i in $(seq 1000 1099); do echo $i > more/$i; done && head -c 300000 /dev/urandom > scan/1500x && : > scan/1600x");
  ImportSource("debian");
  const auto mount = Mount();
  const std::string read_all = "cd " + v(2) + " && ls scan more >/dev/null && cat scan/* more/* | sha256sum";
  const std::string truth = MustRun("cd " + source() + " && cat scan/* more/* | sha256sum");
  EXPECT_EQ(MustRun(read_all), truth);
  EXPECT_GT(mount->HandOvers(), 0u);
  EXPECT_LT(mount->Requests("read"), 1100u);  // how many fewer depends on how the threads run
  EXPECT_EQ(MustRun(read_all), truth);
  // What the kernel drops it is given again.
  const uint64_t stored = mount->HandOvers();
  MustRun("sync; echo 1 > /proc/sys/vm/drop_caches 2>/dev/null; sleep 1.2");
  EXPECT_EQ(MustRun(read_all), truth);
  if (access("/proc/sys/vm/drop_caches", W_OK) == 0) {
    EXPECT_GT(mount->HandOvers(), stored);
  }
}

TEST_F(ReadOnlyMountTest, WhoReadsHereAndThereIsGivenNothing) {
  const auto mount = Mount();
  MustRun("cd " + v(1) + " && ls many >/dev/null && cat many/40 many/7 many/200 many/3 many/100 many/51");
  EXPECT_EQ(mount->HandOvers(), 0u);
  EXPECT_EQ(mount->Requests("read"), 6u);
}

// Reads of a page each, all over a file of several blocks, give the same bytes as the file, in far fewer requests.
TEST_F(ReadOnlyMountTest, WhoComesBackToAPlaceIsGivenWhatIsAroundIt) {
  MustRun("head -c 12000000 /dev/urandom > " + source() + "/usr/bin/base && echo end >> " + source() + "/usr/bin/base");
  ImportSource("debian");
  const auto mount = Mount();
  // 23 windows of 512 KiB: one look into each of two; a second one into one of them; looks into all.
  const auto look = [](const std::string& file, const std::string& pages) {
    return "for page in " + pages + "; do dd if=" + file + " bs=4096 skip=$page count=1 status=none; done | sha256sum";
  };
  const std::string base = v(2) + "/usr/bin/base", truth = source() + "/usr/bin/base";
  const std::string once = "200 328", all = "$(for i in 5 70 33 99 1; do seq $i 128 2929; done) 2929";
  EXPECT_EQ(MustRun(look(base, once)), MustRun(look(truth, once)));
  EXPECT_EQ(mount->HandOvers(), 0u);
  // On a machine that is busy elsewhere a look may come so late that it counts as the first.
  for (int page = 201; page < 230 && mount->HandOvers() == 0; ++page) {
    const std::string one = std::to_string(page);
    EXPECT_EQ(MustRun(look(base, one)), MustRun(look(truth, one)));
    usleep(50'000);
  }
  EXPECT_EQ(mount->HandOvers(), 1u);
  const uint64_t reads = mount->Requests("read");
  const std::string neighbours = "240 241 242 250";
  EXPECT_EQ(MustRun(look(base, neighbours)), MustRun(look(truth, neighbours)));
  EXPECT_EQ(mount->Requests("read"), reads);
  EXPECT_EQ(MustRun(look(base, all)), MustRun(look(truth, all)));
  MustRun("cmp " + base + " " + truth);
}

// An eighth of the windows, rounded up.
TEST_F(ReadOnlyMountTest, WhoLooksAllOverALongFileIsGivenIt) {
  MustRun("head -c 12000000 /dev/urandom > " + source() + "/usr/bin/base");
  ImportSource("debian");
  const auto mount = Mount();
  const std::string base = v(2) + "/usr/bin/base", truth = source() + "/usr/bin/base";
  const auto look = [](const std::string& file, int page) {
    return "dd if=" + file + " bs=4096 count=1 status=none skip=" + std::to_string(page) + " | sha256sum";
  };
  int windows = 0;
  for (; windows < 22 && mount->HandOvers() == 0; ++windows) {
    const int page = 128 * (windows * 7 % 22 + 1) + 9;
    EXPECT_EQ(MustRun(look(base, page)), MustRun(look(truth, page)));
    if (windows >= 2) usleep(300'000);
  }
  EXPECT_GE(windows, 3);  // two looks are here and there
  for (int waited = 0; waited < 1200 && mount->HandOvers() < 23; ++waited) usleep(50'000);
  EXPECT_EQ(mount->HandOvers(), 23u);
  const uint64_t reads = mount->Requests("read");
  MustRun("cmp " + base + " " + truth);
  EXPECT_EQ(mount->Requests("read"), reads);
}

TEST_F(ReadOnlyMountTest, ExecutesMapsAndReadsDirect) {
  MustRun("cp /bin/sh " + source() + "/usr/bin/shell");
  ImportSource("debian");
  const auto mount = Mount();
  EXPECT_EQ(MustRun(v(2) + "/usr/bin/shell -c 'echo executed'"), "executed");  // its pages are mapped
  MustRun("dd if=" + v(2) + "/usr/bin/big iflag=direct bs=64k status=none | cmp - " + source() + "/usr/bin/big");
  MustRun("dd if=" + v(2) + "/usr/bin/big iflag=direct bs=4k skip=17 count=3 status=none > " + directory_ / "part" +
          " && dd if=" + source() + "/usr/bin/big bs=4k skip=17 count=3 status=none | cmp - " + directory_ / "part");
}

TEST_F(ReadOnlyMountTest, TellsHolesToWhoSeeksThem) {
  MustRun("cd " + source() + R"( && head -c 1000000 /dev/urandom > holes && truncate -s 9M holes && head -c 1000000 /dev/urandom >> holes &&
          truncate -s 20M holes)");
  ImportSource("debian");
  const auto mount = Mount();
  for (const char* file : {"holes", "etc/sparse", "usr/bin/big", "etc/empty"}) {
    const uint64_t size = std::stoull(MustRun("stat -c %s " + source() + "/" + file));
    for (const uint64_t from : {uint64_t{0}, uint64_t{500}, uint64_t{2} << 20, uint64_t{9500000}, uint64_t{15} << 20, size, size + 1}) {
      const std::string said = DataAndHole(v(2) + "/" + file, from);
      if (from >= size) {
        EXPECT_EQ("- -", said) << file << " " << from;
        continue;
      }
      // No data is called a hole, and most of each hole is known as one.
      const auto number = [&](const std::string& text) { return text == "-" ? size : std::stoull(text); };
      const auto split = [&](const std::string& two) {
        return std::pair(number(two.substr(0, two.find(' '))), number(two.substr(two.find(' ') + 1)));
      };
      const auto [data, hole] = split(said);
      const auto [host_data, host_hole] = split(DataAndHole(source() + "/" + file, from));
      constexpr uint64_t kSlack = 1 << 20, kBlock = 4096;  // zeros in a block of the host may be a hole here
      EXPECT_TRUE(data < host_data + kBlock && data + kSlack >= host_data) << file << " " << from << ": " << said;
      EXPECT_TRUE(hole + kBlock > host_hole && hole <= host_hole + kSlack) << file << " " << from << ": " << said;
    }
  }
  EXPECT_GT(mount->Requests("lseek"), 0u);
}

TEST_F(ReadOnlyMountTest, StatfsTellsThatNothingCanBeAdded) {
  const auto mount = Mount();
  EXPECT_EQ(MustRun("stat -f -c '%a %f %d %l %T' " + v(1)), "0 0 0 255 fuseblk");
}

// A directory is one place: going into another version's does not move who stands in this one's.
TEST_F(ReadOnlyMountTest, DirectoriesStayWhereTheyAre) {
  MustRun("echo more >> " + source() + "/etc/passwd");
  ImportSource("debian");
  const auto mount = Mount();
  EXPECT_EQ(MustRun("cd " + v(1) + "/usr/bin && ls " + v(2) + "/usr/bin > /dev/null && /bin/pwd"), v(1) + "/usr/bin");
}

TEST_F(ReadOnlyMountTest, CommonToolsWork) {
  const auto mount = Mount();
  const std::string copy = directory_ / "copy", tar = directory_ / "t.tar";
  MustRun("cp -a " + v(1) + " " + copy);
  EXPECT_EQ(MustRun("cd " + copy + " && " + kListing), MustRun("cd " + source() + " && " + kListing));
  MustRun("tar -C " + v(1) + " -cf " + tar + " . && tar -df " + tar + " -C " + source());
  EXPECT_EQ(MustRun("stat -c %h " + v(1) + "/usr/bin/big"), "3");
  MustRun("find " + v(1) + " -ls > /dev/null && du -s " + v(1) + " > /dev/null && df " + mountpoint() + " > /dev/null");
}

TEST_F(ReadOnlyMountTest, NothingCanBeChanged) {
  const auto mount = Mount();
  EXPECT_NE(RunShell("echo x > " + v(1) + "/new").out.find("Read-only file system"), std::string::npos);
  EXPECT_NE(RunShell("rm " + v(1) + "/etc/passwd").out.find("Read-only file system"), std::string::npos);
  EXPECT_NE(RunShell("chmod 777 " + v(1) + "/etc").out.find("Read-only file system"), std::string::npos);
  EXPECT_NE(RunShell("mkdir " + mountpoint() + "/branch").out.find("Read-only file system"), std::string::npos);
}

TEST_F(ReadOnlyMountTest, IsFoundInTheMountTable) {
  const auto mount = Mount();
  const auto found = Must(FindMount(mountpoint() + "/."));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->library, path());
  EXPECT_EQ(found->overlay_id, "");
  EXPECT_FALSE(Must(FindMount(directory_.path())));
}

}  // namespace
}  // namespace mirage::testing
