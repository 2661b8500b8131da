// MOUNT/.mirage and the attributes that are answered on request, through a real mount.
#include <filesystem>
#include <random>
#include <set>

#include "store/diff.h"
#include "store/revision.h"
#include "tests/mirfs/directory_library.h"

namespace mirage::testing {
namespace {

class VersionViewsTest : public DirectoryLibraryTest {
 protected:
  void SetUp() override {
    if (!HaveFuse()) GTEST_SKIP() << "no /dev/fuse here";
    MakeSource();
    ImportSource("debian");
    MustRun("cd " + source() + R"( && echo new > etc/new && mkdir -p srv/www && echo page > srv/www/index &&
      rm -r same2 etc/empty && echo changed >> etc/passwd && chmod 700 etc/init.d/ssh &&
      rm etc/fifo && echo 'was a fifo' > etc/fifo && echo 300 more >> many/300)");
    ImportSource("debian");
  }
  std::string mountpoint() const { return directory_ / "mount"; }
  std::string range() const { return mountpoint() + "/.mirage/diff/debian/v1..debian/v2"; }
  std::unique_ptr<InProcessMount> Mount() { return std::make_unique<InProcessMount>(path(), mountpoint()); }
  ObjectId Id(const std::string& version) { return Must(ResolveVersion(*library_->snapshot(), version)).id; }
};

TEST_F(VersionViewsTest, ShowsWhatTwoVersionsDifferIn) {
  const auto mount = Mount();
  EXPECT_EQ(MustRun("cd " + range() + " && find . ! -type d | sort | grep -v /same2/"),
            "./added/etc/fifo\n./added/etc/new\n./added/srv/www/index\n./modified/etc/init.d/ssh\n"
            "./modified/etc/passwd\n./modified/many/300\n./removed/etc/empty\n./removed/etc/fifo");
  EXPECT_EQ(MustRun("find " + range() + "/removed/same2 -type f | wc -l"), "300");
  EXPECT_EQ(MustRun("find " + range() + " -type d -empty"), "");  // directories are there on the way to something
  EXPECT_EQ(MustRun("cd " + range() + " && cat added/etc/new modified/etc/passwd && stat -c %a modified/etc/init.d/ssh"),
            "new\nroot:x:0:0\nchanged\n700");
  EXPECT_EQ(MustRun("grep -rl changed " + range() + "/added " + range() + "/modified"), range() + "/modified/etc/passwd");
  EXPECT_EQ(MustRun("stat -c %F " + range() + "/removed/etc/fifo"), "fifo");
  // A range ends in a branch's head too, and runs the other way.
  EXPECT_EQ(MustRun("ls " + mountpoint() + "/.mirage/diff/debian~1..debian/added/etc"), "fifo\nnew");
  EXPECT_EQ(MustRun("ls " + mountpoint() + "/.mirage/diff/debian/v2..debian/v1/added/etc"), "empty\nfifo");
  EXPECT_EQ(MustRun("ls " + mountpoint() + "/.mirage/diff/debian/v1..debian/v1"), "added\nmodified\nremoved");
  EXPECT_EQ(MustRun("find " + mountpoint() + "/.mirage/diff/debian/v1..debian/v1 ! -type d"), "");
  for (const char* none : {"none", "debian/v1", "debian/v9..debian", "debian..none", "..", "@zz..@yy"}) {
    if (std::string(none) == "..") continue;
    EXPECT_NE(RunShell("stat " + mountpoint() + "/.mirage/diff/" + none).status, 0) << none;
  }
}

TEST_F(VersionViewsTest, IsInNoListingAndNoWalk) {
  const auto mount = Mount();
  EXPECT_EQ(MustRun("ls -A " + mountpoint()), "debian");
  MustRun("ls " + mountpoint() + "/.mirage/by-id " + range());  // though the kernel knows them now
  EXPECT_EQ(MustRun("find " + mountpoint() + " -name '.mirage*'"), "");
  EXPECT_EQ(MustRun("ls " + mountpoint() + "/.mirage"), "by-id\ndiff");
  EXPECT_EQ(MustRun("ls -A " + mountpoint() + "/.mirage/by-id " + mountpoint() + "/.mirage/diff"),
            mountpoint() + "/.mirage/by-id:\n\n" + mountpoint() + "/.mirage/diff:");
}

TEST_F(VersionViewsTest, AVersionIsThereByItsId) {
  const auto mount = Mount();
  const std::string id = Id("debian/v1").Hex(), by_id = mountpoint() + "/.mirage/by-id/";
  MustRun("diff -r --no-dereference " + mountpoint() + "/debian/v1/etc/init.d " + by_id + id + "/etc/init.d");
  EXPECT_EQ(MustRun("cat " + by_id + id.substr(0, 10) + "/etc/passwd"), "root:x:0:0");
  // Two spellings are two places: nobody who stands in one is moved to the other.
  EXPECT_EQ(MustRun("cd " + by_id + id + "/etc && ls " + by_id + id.substr(0, 10) + "/etc > /dev/null && /bin/pwd"),
            by_id + id + "/etc");
  EXPECT_NE(RunShell("stat " + by_id + std::string(64, '0')).status, 0);
  EXPECT_NE(RunShell("stat " + by_id + "passwd").status, 0);
}

// What a scanner read in the delta is warm in the version, and the other way round.
TEST_F(VersionViewsTest, SharesPagesWithTheVersions) {
  const auto mount = Mount();
  MustRun("cat " + range() + "/modified/etc/passwd " + range() + "/removed/same2/* > /dev/null");
  const uint64_t reads = mount->Requests("read");
  MustRun("cat " + mountpoint() + "/debian/v2/etc/passwd " + mountpoint() + "/debian/v1/same2/* > /dev/null");
  EXPECT_EQ(mount->Requests("read"), reads);
}

TEST_F(VersionViewsTest, AnswersAttributesThatNoListNames) {
  const auto mount = Mount();
  const std::string v1 = mountpoint() + "/debian/v1/", v2 = mountpoint() + "/debian/v2/";
  const auto get = [](const std::string& name, const std::string& file) {
    return MustRun("getfattr --absolute-names --only-values -n user.mirage." + name + " '" + file + "'");
  };
  EXPECT_EQ(get("sha256", v2 + "etc/passwd"), MustRun("sha256sum < " + source() + "/etc/passwd").substr(0, 64));
  EXPECT_EQ(get("version", v2 + "etc/passwd"), "debian/v2");
  EXPECT_EQ(get("version", v1 + "etc"), "debian/v1");
  EXPECT_EQ(get("version", mountpoint() + "/debian/latest/."), "debian/v2");
  EXPECT_EQ(get("version", range() + "/removed/etc"), "debian/v1");
  EXPECT_EQ(get("version", mountpoint() + "/.mirage/by-id/" + Id("debian/v1").Hex()), "debian/v1");
  EXPECT_EQ(get("introduced", v2 + "etc/passwd"), "debian/v2");
  EXPECT_EQ(get("introduced", v2 + "usr/bin/big"), "debian/v1");
  EXPECT_EQ(get("introduced", v2 + "etc/init.d/ssh"), "debian/v1");  // its mode changed, its bytes did not
  EXPECT_EQ(get("introduced", v2 + "same1"), "debian/v1");
  EXPECT_EQ(get("introduced", v2 + "many"), "debian/v2");
  EXPECT_EQ(MustRun("getfattr --absolute-names -d -m - " + v1 + "etc/passwd | grep -c user"), "1");  // user.note
  EXPECT_EQ(RunShell("getfattr --absolute-names -d -m - " + v1 + "etc").out, "");
  EXPECT_NE(RunShell("getfattr -n user.mirage.sha256 " + v1 + "etc").status, 0);
  EXPECT_NE(RunShell("getfattr -n user.mirage.version " + mountpoint() + "/debian").status, 0);
  MustRun("cp -a " + v2 + "etc/passwd " + directory_ / "copy");
  EXPECT_EQ(MustRun("getfattr --absolute-names -d -m - " + directory_ / "copy" + " | grep -c user.mirage; true"), "0");
}

// A file that is the same in two versions is one file: it is of the version in which the kernel looked it up last.
TEST_F(VersionViewsTest, ASharedFileIsOfTheVersionItWasLookedUpInLast) {
  const auto mount = Mount();
  // Who has the file of v1 open keeps its name in the kernel, which does not look it up again.
  const auto run = [&](const std::string& file, const std::string& line) {
    return MustRun("cd " + mountpoint() + "/debian && exec 3< v1/" + file + " && version() { " +
                   "getfattr --only-values -n user.mirage.version $1/" + file + " && echo; } && " + line);
  };
  EXPECT_EQ(run("usr/bin/big", "version v1 && version v2 && version v1"), "debian/v1\ndebian/v2\ndebian/v2");
  // A listing looks up what it lists.
  EXPECT_EQ(run("many/7", "version v1 && ls v2/many > /dev/null && version v1"), "debian/v1\ndebian/v2");
  EXPECT_EQ(run("many/7", "getfattr --only-values -n user.mirage.version v1/many"), "debian/v1");  // directories are not shared
}

// The views against the list that `mirage diff` prints, on trees that a seed makes.
TEST_F(VersionViewsTest, ShowsWhatDiffTells) {
  const char* given = std::getenv("MIRAGE_SEED");
  const uint64_t seed = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  SCOPED_TRACE("MIRAGE_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  namespace fs = std::filesystem;
  const fs::path root = source();
  const auto mutate = [&] {
    std::vector<fs::path> all;
    for (const auto& item : fs::recursive_directory_iterator(root)) all.push_back(item.path());
    for (int i = 0; i < 30; ++i) {
      const fs::path victim = all[random() % all.size()];
      std::error_code ignored;
      switch (random() % 5) {
        case 0: fs::remove_all(victim, ignored); break;
        case 1: std::ofstream(victim / ("n" + std::to_string(random() % 50))) << random(); break;
        case 2: std::ofstream(victim, std::ios::app) << random(); break;
        case 3: fs::remove_all(victim, ignored); fs::create_directories(victim / "d" / "e", ignored); break;
        default: fs::permissions(victim, fs::perms(0700 + random() % 64), ignored);
      }
    }
  };
  MustRun("find " + source() + " -type p -delete");  // a writer would wait for a reader
  ImportSource("random");
  mutate();
  ImportSource("random");
  const auto mount = Mount();
  const TreeReader reader(library_);
  const Version before = Must(ResolveVersion(*library_->snapshot(), "random/v1"));
  const Version after = Must(ResolveVersion(*library_->snapshot(), "random/v2"));
  std::map<std::string, std::set<std::string>> wanted;
  Must(DiffVersions(reader, before.manifest, after.manifest, "", [&](const Change& change) -> Status {
    const bool replaced = change.kind == ChangeKind::kType;
    if (replaced || change.kind == ChangeKind::kAdded) wanted["added"].insert(change.path);
    if (replaced || change.kind == ChangeKind::kDeleted) wanted["removed"].insert(change.path);
    if (change.before && change.after && !replaced && !change.after->is_directory() &&
        *change.before != *change.after) {
      wanted["modified"].insert(change.path);
    }
    return {};
  }));
  EXPECT_FALSE(wanted["added"].empty());
  for (const std::string part : {"added", "modified", "removed"}) {
    std::set<std::string> found;
    std::istringstream lines(
        MustRun("cd " + mountpoint() + "/.mirage/diff/random/v1..random/v2/" + part + " && find . -mindepth 1 -printf '%P\\n'"));
    for (std::string line; std::getline(lines, line);) found.insert(line);
    for (const std::string& path : wanted[part]) EXPECT_TRUE(found.contains(path)) << part << ": " << path;
    for (const std::string& path : found) {
      const auto below = wanted[part].lower_bound(path + "/");
      const bool on_the_way = below != wanted[part].end() && below->starts_with(path + "/");
      EXPECT_TRUE(on_the_way || wanted[part].contains(path)) << part << " shows " << path;
    }
  }
}

}  // namespace
}  // namespace mirage::testing
