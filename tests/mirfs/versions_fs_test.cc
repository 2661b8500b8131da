// The read-only tree without a mount.
#include "mirfs/versions_fs.h"

#include <functional>
#include <map>
#include <set>

#include "tests/mirfs/directory_library.h"

namespace mirage::testing {
namespace {

class VersionsFsTest : public DirectoryLibraryTest {
 protected:
  void Open(const VersionsFs::Options& options = {}) {
    reader_ = Must(Library::Open(path(), {}));
    fs_ = Must(VersionsFs::Open(reader_, options));
  }
  NodeAttributes At(const std::string& path) {
    NodeAttributes found;
    found.node = kRootNode;
    for (size_t start = 0; start < path.size();) {
      const size_t end = std::min(path.find('/', start), path.size());
      found = Must(fs_->Lookup(found.node, path.substr(start, end - start)));
      taken_.push_back(found.node);
      start = end + 1;
    }
    return found;
  }
  // A whole listing in pieces of `piece` items, by name.
  std::map<std::string, ino_t> List(NodeId node, size_t piece, bool plus) {
    std::map<std::string, ino_t> all;
    uint64_t offset = 0;
    for (bool more = true; more;) {
      size_t taken = 0;
      more = false;
      Must(fs_->ReadDirectory(node, 0, offset, plus, [&](const DirectoryItem& item) {
        if (taken == piece) {
          more = true;
          return false;
        }
        ++taken;
        EXPECT_TRUE(all.emplace(item.name, item.attributes.stat.st_ino).second) << item.name;
        if (item.attributes.node) taken_.push_back(item.attributes.node);
        offset = item.next_offset;
        return true;
      }));
    }
    return all;
  }
  void ForgetAll() {
    for (const NodeId node : taken_) fs_->Forget(node, 1);
    taken_.clear();
  }

  std::shared_ptr<Library> reader_;
  std::unique_ptr<VersionsFs> fs_;
  std::vector<NodeId> taken_;
};

TEST_F(VersionsFsTest, EqualFilesShareNumbersAndPagesBetweenVersions) {
  MakeSource();
  ImportSource("debian");
  MustRun("cd " + source() + " && echo changed > many/7 && touch -d @1700000000 many");
  ImportSource("debian");
  Open();
  const auto same1 = At("debian/v1/etc/passwd"), same2 = At("debian/v2/etc/passwd");
  EXPECT_EQ(same1.stat.st_ino, same2.stat.st_ino);
  EXPECT_EQ(same1.node, same2.node);
  EXPECT_NE(At("debian/v1/many/7").stat.st_ino, At("debian/v2/many/7").stat.st_ino);
  EXPECT_EQ(At("debian/v1/many/8").node, At("debian/v2/many/8").node);
  // Directories: equal subtrees look equal, and are two inodes to the kernel.
  const auto etc1 = At("debian/v1/etc"), etc2 = At("debian/v2/etc");
  EXPECT_EQ(etc1.stat.st_ino, etc2.stat.st_ino);
  EXPECT_NE(etc1.node, etc2.node);
  EXPECT_NE(At("debian/v1/many").stat.st_ino, At("debian/v2/many").stat.st_ino);
  EXPECT_NE(At("debian/v1").stat.st_ino, At("debian/v2").stat.st_ino);
  EXPECT_EQ(same1.stat.st_ctim.tv_nsec, 789012345);
  EXPECT_EQ(same1.stat.st_ctim.tv_sec, same1.stat.st_mtim.tv_sec);
}

TEST_F(VersionsFsTest, EqualDirectoriesInOneVersionDiffer) {
  MakeSource();
  ImportSource("debian");
  Open();
  EXPECT_NE(At("debian/v1/same1").stat.st_ino, At("debian/v1/same2").stat.st_ino);
  EXPECT_NE(At("debian/v1/same1/5").stat.st_ino, At("debian/v1/same2/5").stat.st_ino);
}

TEST_F(VersionsFsTest, TwoTagsOfOneVersionHaveDirectoriesOfTheirOwn) {
  MakeSource();
  const auto report = ImportSource("debian");
  Must(library_->MoveRefs("tag", {{"debian/release", {}, report.version.manifest}}));
  Open();
  EXPECT_NE(At("debian/v1").node, At("debian/release").node);
  EXPECT_NE(At("debian/v1/etc").node, At("debian/release/etc").node);
  EXPECT_EQ(At("debian/v1/etc/passwd").node, At("debian/release/etc/passwd").node);
}

TEST_F(VersionsFsTest, LinkCounts) {
  MakeSource();
  ImportSource("debian");
  Open();
  const auto big = At("debian/v1/usr/bin/big"), big2 = At("debian/v1/usr/bin/big2"), big3 = At("debian/v1/etc/big3");
  EXPECT_EQ(big.stat.st_nlink, 3u);
  EXPECT_EQ(big.node, big2.node);
  EXPECT_EQ(big.node, big3.node);
  EXPECT_EQ(big.stat.st_ino, big3.stat.st_ino);
  EXPECT_EQ(At("debian/v1/usr").stat.st_nlink, 4u);
  EXPECT_EQ(At("debian/v1/empty").stat.st_nlink, 2u);
  EXPECT_EQ(At("debian/v1/etc/passwd").stat.st_nlink, 1u);
  EXPECT_EQ(big.stat.st_blocks, (3000000 + 511) / 512);
}

// Link tables beyond the limit are loaded again, and say the same.
TEST_F(VersionsFsTest, LinkTablesGiveWay) {
  MakeSource();
  ImportSource("debian");
  MustRun("cd " + source() + " && ln etc/big3 etc/big4");
  ImportSource("debian");
  VersionsFs::Options options;
  options.link_tables_bytes = 1;
  Open(options);
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(At("debian/v1/etc/big3").stat.st_nlink, 3u);
    EXPECT_EQ(At("debian/v2/etc/big3").stat.st_nlink, 4u);
    ForgetAll();
  }
}

// A link added to the group changes its number, and so does one taken away: `diff -r` must look at them.
TEST_F(VersionsFsTest, ANewMemberChangesTheGroupsNumber) {
  MakeSource();
  ImportSource("debian");
  MustRun("cd " + source() + " && ln etc/big3 etc/big4 && touch -d '2024-02-03 04:05:06.789012345' etc");
  ImportSource("debian");
  Open();
  EXPECT_NE(At("debian/v1/etc/big3").stat.st_ino, At("debian/v2/etc/big3").stat.st_ino);
  EXPECT_EQ(At("debian/v2/etc/big3").stat.st_nlink, 4u);
  EXPECT_EQ(At("debian/v1/etc/big3").stat.st_nlink, 3u);
}

TEST_F(VersionsFsTest, ListsInPiecesWhatLookupFinds) {
  MakeSource();
  ImportSource("debian");
  ImportSource("other");
  Open();
  for (const bool plus : {false, true}) {
    for (const std::string path : {"", "debian", "debian/v1", "debian/v1/many"}) {
      const NodeId node = path.empty() ? kRootNode : At(path).node;
      const auto whole = List(node, 100000, plus);
      EXPECT_EQ(List(node, 1, plus), whole);
      EXPECT_EQ(List(node, 7, plus), whole);
      for (const auto& [name, number] : whole) {
        if (name == "." || name == "..") continue;
        EXPECT_EQ(At(path.empty() ? name : path + "/" + name).stat.st_ino, number) << path << "/" << name;
      }
      EXPECT_EQ(whole.at("."), Must(fs_->GetAttributes(node)).stat.st_ino);
    }
  }
  EXPECT_EQ(List(At("debian/v1/many").node, 100, true).size(), 302u);
  EXPECT_EQ(List(At("debian/v1/many").node, 100, true).at(".."), At("debian/v1").stat.st_ino);
  EXPECT_EQ(List(At("debian/v1").node, 100, true).at(".."), At("debian").stat.st_ino);
  EXPECT_EQ(List(At("debian").node, 100, true).at(".."), 1u);
  EXPECT_TRUE(List(At("debian").node, 100, true).contains("latest"));
}

// Every hash of this filesystem falls on one of four numbers: all that is told apart is told apart by looking.
TEST_F(VersionsFsTest, CollidingHashesShowTheSameTree) {
  MakeSource();
  ImportSource("debian");
  MustRun("cd " + source() + " && echo changed > many/7 && rm etc/big3");
  ImportSource("debian");
  VersionsFs::Options options;
  options.hash = [](std::string_view bytes, uint64_t seed) { return (std::hash<std::string_view>()(bytes) ^ seed) & 3; };
  Open(options);
  const auto plain = Must(VersionsFs::Open(reader_, {}));
  size_t files = 0;
  std::set<NodeId> nodes;
  const std::function<void(NodeId, NodeId, const std::string&)> compare = [&](NodeId a, NodeId b,
                                                                             const std::string& path) {
    std::map<std::string, std::pair<NodeAttributes, NodeAttributes>> children;
    const auto list = [&](VersionsFs& fs, NodeId node, auto member) {
      // Directories of versions only: the offsets among the refs are hashes.
      Must(fs.ReadDirectory(node, 0, 2, true, [&](const DirectoryItem& item) {
        children[std::string(item.name)].*member = item.attributes;
        return true;
      }));
    };
    list(*fs_, a, &std::pair<NodeAttributes, NodeAttributes>::first);
    list(*plain, b, &std::pair<NodeAttributes, NodeAttributes>::second);
    for (const auto& [name, both] : children) {
      const auto& [one, two] = both;
      ASSERT_NE(one.node, 0u) << path << "/" << name;
      ASSERT_NE(two.node, 0u) << path << "/" << name;
      EXPECT_EQ(one.stat.st_mode, two.stat.st_mode) << path << "/" << name;
      EXPECT_EQ(one.stat.st_nlink, two.stat.st_nlink) << path << "/" << name;
      EXPECT_EQ(one.stat.st_size, two.stat.st_size) << path << "/" << name;
      if (S_ISDIR(one.stat.st_mode)) {
        EXPECT_TRUE(nodes.insert(one.node).second) << path << "/" << name << ": two directories with one number";
        compare(one.node, two.node, path + "/" + name);
      } else if (S_ISREG(one.stat.st_mode)) {
        std::string ours, theirs;
        Must(fs_->Read(one.node, 0, 0, 1 << 20, &ours));
        Must(plain->Read(two.node, 0, 0, 1 << 20, &theirs));
        EXPECT_EQ(ours, theirs) << path << "/" << name;
        ++files;
      }
    }
  };
  for (const std::string version : {"v1", "v2"}) {
    const NodeId here = At("debian/" + version).node;
    const NodeId there = Must(plain->Lookup(Must(plain->Lookup(kRootNode, "debian")).node, version)).node;
    compare(here, there, version);
  }
  EXPECT_GT(files, 1800u);
  EXPECT_NE(At("debian/v1/many/7").node, At("debian/v2/many/7").node);
  EXPECT_NE(At("debian/v1/many/7").stat.st_ino, At("debian/v1/many/8").stat.st_ino);
}

TEST_F(VersionsFsTest, ForgetsGiveBackEverything) {
  MakeSource();
  ImportSource("debian");
  Open();
  At("debian/v1/etc/passwd");
  List(At("debian/v1/many").node, 50, true);
  EXPECT_GT(fs_->inode_count(), 300u);
  const NodeId node = At("debian/v1/etc").node;
  ForgetAll();
  EXPECT_EQ(fs_->inode_count(), 0u);
  EXPECT_EQ(fs_->GetAttributes(node).error().code, ESTALE);
}

// Of a version in use nothing is collected, whatever becomes of its tag; one that was only listed holds nothing.
TEST_F(VersionsFsTest, AVersionIsLeasedWhileItIsUsed) {
  MakeSource();
  const ObjectId v1 = ImportSource("debian").version.manifest;
  Must(library_->MoveRefs("tag", {{"debian/extra", {}, v1}}));
  Open();
  const auto leases = [&] {
    return RunShell("ls " + path() + "/locks/sessions | grep -c -- -l" + v1.Hex()).out;
  };
  List(At("debian").node, 100, true);
  EXPECT_EQ(leases(), "0");
  const NodeId passwd = At("debian/extra/etc/passwd").node;
  EXPECT_EQ(leases(), "1");
  Must(library_->MoveRefs("tag", {{"debian/extra", v1, {}}}));
  Must(reader_->Refresh());
  EXPECT_EQ(leases(), "1");
  std::string bytes;
  Must(fs_->Read(passwd, 0, 0, 100, &bytes));
  EXPECT_EQ(bytes, "root:x:0:0\n");
  ForgetAll();
  EXPECT_EQ(leases(), "0");
}

// Somebody stands in a version and has asked for no name in it: it is leased as soon as it loses its own.
TEST_F(VersionsFsTest, AVersionThatLosesItsNameIsLeased) {
  MakeSource();
  const ObjectId v1 = ImportSource("debian").version.manifest;
  Must(library_->MoveRefs("tag", {{"debian/extra", {}, v1}}));
  MustRun("echo x >> " + source() + "/etc/passwd");
  const ObjectId v2 = ImportSource("debian").version.manifest;
  Open();
  const auto leases = [&](const ObjectId& version) {
    return RunShell("ls " + path() + "/locks/sessions | grep -c -- -l" + version.Hex()).out;
  };
  class : public Invalidator {
    void InvalidateEntry(NodeId, std::string_view) override {}
    void InvalidateInode(NodeId) override {}
  } kernel;
  const NodeId root = At("debian/extra").node;
  At("debian/v2");
  EXPECT_EQ(leases(v1), "0");
  const auto before = reader_->snapshot();
  Must(library_->MoveRefs("tag", {{"debian/extra", v1, {}}}));
  Must(reader_->Refresh());
  fs_->InvalidateChanges(*before, *reader_->snapshot(), kernel);
  EXPECT_EQ(leases(v1), "1");
  EXPECT_EQ(leases(v2), "0");
  fs_->Forget(Must(fs_->Lookup(root, "etc")).node, 1);
  ForgetAll();
  EXPECT_EQ(leases(v1), "0");
}

TEST_F(VersionsFsTest, TimeoutsFollowWhatCanChange) {
  MakeSource();
  ImportSource("debian");
  Open();
  EXPECT_EQ(At("debian").entry_timeout_s, 1);
  EXPECT_EQ(At("debian").attribute_timeout_s, 1);
  EXPECT_EQ(At("debian/v1").entry_timeout_s, 1);
  EXPECT_GT(At("debian/v1").attribute_timeout_s, 1e6);
  EXPECT_GT(At("debian/v1/etc").entry_timeout_s, 1e6);
  EXPECT_EQ(fs_->NegativeTimeout(kRootNode), 1);
  EXPECT_EQ(fs_->NegativeTimeout(At("debian").node), 1);
  EXPECT_GT(fs_->NegativeTimeout(At("debian/v1").node), 1e6);
}

TEST_F(VersionsFsTest, LatestIsTheHeadsFirstTag) {
  MakeSource();
  ImportSource("debian");
  Open();
  const auto first = At("debian/latest");
  EXPECT_TRUE(S_ISLNK(first.stat.st_mode));
  EXPECT_EQ(Must(fs_->ReadLink(first.node)), "v1");
  MustRun("echo x >> " + source() + "/etc/passwd");
  ImportSource("debian", "release");
  Must(reader_->Refresh());
  const auto second = At("debian/latest");
  EXPECT_EQ(Must(fs_->ReadLink(second.node)), "release");
  EXPECT_NE(first.node, second.node);
}

TEST_F(VersionsFsTest, ErrorsAreTheKernels) {
  MakeSource();
  ImportSource("debian");
  Open();
  const NodeId version = At("debian/v1").node, passwd = At("debian/v1/etc/passwd").node;
  EXPECT_EQ(fs_->Lookup(kRootNode, "missing").error().code, ENOENT);
  EXPECT_EQ(fs_->Lookup(At("debian").node, "v9").error().code, ENOENT);
  EXPECT_EQ(fs_->Lookup(version, "missing").error().code, ENOENT);
  EXPECT_EQ(fs_->Lookup(passwd, "x").error().code, ENOTDIR);
  EXPECT_EQ(fs_->GetXattr(passwd, "user.none").error().code, ENODATA);
  EXPECT_EQ(fs_->GetXattr(version, "user.none").error().code, ENODATA);
  EXPECT_EQ(Must(fs_->GetXattr(passwd, "user.note")), "hello");
  EXPECT_EQ(Must(fs_->ListXattrs(passwd)), std::vector<std::string>{"user.note"});
  EXPECT_EQ(fs_->MakeNode(version, "x", S_IFREG | 0644, 0, {}).error().code, EROFS);
  EXPECT_EQ(fs_->GetAttributes(0x1234567).error().code, ESTALE);
  std::string bytes;
  Must(fs_->Read(passwd, 0, 5, 3, &bytes));
  EXPECT_EQ(bytes, "x:0");
  bytes.clear();
  Must(fs_->Read(passwd, 0, 1000, 3, &bytes));
  EXPECT_EQ(bytes, "");
}

TEST_F(VersionsFsTest, ReadsOfWhatIsDamagedFailAndNeverGiveWrongBytes) {
  MakeSource();
  ImportSource("debian");
  const std::vector<std::string> names = {"etc/passwd", "etc/sparse", "usr/bin/big", "usr/share/doc/copy", "many/7"};
  // A mount of its own each time: nothing is cached.
  const auto read_all = [&] {
    const auto library = Must(Library::Open(path(), {}));
    const auto mounted = Must(VersionsFs::Open(library, {}));
    VersionsFs& fs = *mounted;
    std::map<std::string, Result<std::string>> all;
    for (const std::string& name : names) {
      NodeAttributes at;
      at.node = kRootNode;
      const std::string whole = "debian/v1/" + name;
      for (size_t start = 0; start < whole.size();) {
        const size_t end = std::min(whole.find('/', start), whole.size());
        at = Must(fs.Lookup(at.node, whole.substr(start, end - start)));
        start = end + 1;
      }
      std::string bytes;
      const Status status = fs.Read(at.node, 0, 0, static_cast<size_t>(at.stat.st_size), &bytes);
      all.emplace(name, status ? Result<std::string>(bytes) : tl::make_unexpected(status.error()));
    }
    return all;
  };
  const auto before = read_all();
  size_t failed = 0, right = 0;
  for (const std::string& name : Must(Env::Default().List(path() + "/packs"))) {
    const std::string pack = path() + "/packs/" + name;
    const std::string bytes = Must(ReadWholeFile(Env::Default(), pack, 1 << 30));
    for (size_t at = 60; at < bytes.size(); at += bytes.size() / 4) {
      std::string damaged = bytes;
      damaged[at] ^= 8;
      Must(WriteFileAtomically(Env::Default(), pack, damaged));
      for (const auto& [file, now] : read_all()) {
        if (now) {
          EXPECT_TRUE(*now == *before.at(file)) << file << ": wrong bytes";
          ++right;
        } else {
          EXPECT_EQ(now.error().code, EIO) << now.error().message;
          ++failed;
        }
      }
    }
    Must(WriteFileAtomically(Env::Default(), pack, bytes));
  }
  EXPECT_GT(failed, 0U);
  EXPECT_GT(right, 0U);
}

struct Recorder final : Invalidator {
  std::set<std::pair<NodeId, std::string>> entries;
  std::set<NodeId> inodes;
  void InvalidateEntry(NodeId parent, std::string_view name) override { entries.emplace(parent, name); }
  void InvalidateInode(NodeId node) override { inodes.insert(node); }
};

TEST_F(VersionsFsTest, InvalidatesWhatDiffersAndNothingElse) {
  MakeSource();
  ImportSource("debian");
  ImportSource("still");
  Open();
  const NodeId debian = At("debian").node, still = At("still").node;
  const auto before = reader_->snapshot();
  MustRun("echo x >> " + source() + "/etc/passwd");
  ImportSource("debian");
  ImportSource("fresh");
  ASSERT_TRUE(Must(reader_->Refresh()));
  Recorder recorder;
  fs_->InvalidateChanges(*before, *reader_->snapshot(), recorder);
  EXPECT_TRUE(recorder.entries.contains({kRootNode, "fresh"}));
  EXPECT_TRUE(recorder.entries.contains({debian, "v2"}));
  EXPECT_TRUE(recorder.entries.contains({debian, "latest"}));
  EXPECT_FALSE(recorder.entries.contains({debian, "v1"}));
  EXPECT_EQ(recorder.inodes, (std::set<NodeId>{kRootNode, debian}));
  EXPECT_FALSE(recorder.inodes.contains(still));
}

}  // namespace
}  // namespace mirage::testing
