#include "indexer/tar_source.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "indexer/importer.h"
#include "tests/indexer/host_tree.h"
#include "tests/indexer/tar_bytes.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;

bool Shell(const std::string& command) { return std::system(("{ " + command + "; } >&2").c_str()) == 0; }

class TarImportTest : public LibraryTest {
 protected:
  ImportOptions Options(const std::string& source, const std::string& branch = "tar") {
    ImportOptions options;
    options.source = source;
    options.branch = branch;
    return options;
  }
  Manifest Head(const std::string& branch) {
    Must(library_->Refresh());
    return Must(ReadManifest(library_->objects(), Must(library_->snapshot()->Branch(branch))->manifest));
  }
  Result<ImportReport> ImportBytes(const std::string& bytes) {
    std::ofstream(directory_ / "archive", std::ios::binary | std::ios::trunc) << bytes;
    ImportOptions options = Options(directory_ / "archive");
    options.format = "tar";
    return Import(*library_, options);
  }
  std::string ErrorOf(const std::string& bytes) {
    const auto report = ImportBytes(bytes);
    EXPECT_TRUE(fs::is_empty(library_->staging_path()));
    return report ? "" : report.error().message;
  }
  std::string ReadFile(const std::string& path) {
    const TreeReader reader(library_);
    const Entry entry = Must(reader.Find(Head("tar").root, path));
    std::string bytes;
    Must(reader.Read(entry, 0, entry.size, &bytes));
    return bytes;
  }
};

TEST_F(TarImportTest, AnArchiveEqualsItsDirectory) {
  if (geteuid() != 0) GTEST_SKIP() << "devices and trusted attributes need root";
  const std::string tree = directory_ / "tree", archive = directory_ / "archive";
  fs::create_directory(tree);
  FillStrangeTree(tree);
  for (const char* socket : {"deep/sock", "tmp/sock2", "sock3"}) fs::remove(tree + "/" + socket);  // tar has none
  // tar(1) takes fifos and devices with several names for several; so does its reader.
  for (const char* link : {"fifo2", "chr2"}) fs::remove(tree + "/" + link);
  const auto from_directory = Must(Import(*library_, Options(tree, "directory")));
  for (const char* how : {"", "--sparse --sparse-version=0.0 --gzip", "--sparse --sparse-version=0.1 --bzip2",
                          "--sparse --sparse-version=1.0 --zstd", "--xz"}) {
    ASSERT_TRUE(Shell(fmt::format("tar -C {} --format=pax --xattrs --xattrs-include='*' --numeric-owner {} -cf {} .",
                                  tree, how, archive)));
    const auto report = Must(Import(*library_, Options(archive)));
    EXPECT_EQ(report.tree, from_directory.tree) << how;
    EXPECT_EQ(Head("tar").links, Head("directory").links) << how;
    EXPECT_TRUE(report.omissions.empty()) << how;
  }
}

TEST_F(TarImportTest, GnuSparseMembersKeepTheirHoles) {
  const std::string tree = directory_ / "tree", archive = directory_ / "archive";
  fs::create_directory(tree);
  std::ofstream(tree + "/few") << "x";
  fs::resize_file(tree + "/few", 100'000'000);
  std::ofstream many(tree + "/many");
  for (int i = 0; i < 100; ++i) many.seekp(i * 20'000).put('y');
  many.close();
  ASSERT_TRUE(Shell(fmt::format("tar -C {} --format=gnu --sparse -cf {} .", tree, archive)));
  const auto report = Must(Import(*library_, Options(archive)));
  EXPECT_EQ(report.bytes, 100'000'000 + 99 * 20'000 + 1);
  std::ifstream in(tree + "/many");
  EXPECT_TRUE(ReadFile("/many") == std::string(std::istreambuf_iterator<char>(in), {}));
}

TEST_F(TarImportTest, DirectoriesThatDoNotComeAreMade) {
  Must(ImportBytes(Header("/a/b/file", '0', 2) + Padded("hi") + Header("a/", '5', 0) + kEnd));
  const TreeReader reader(library_);
  const Entry root = Head("tar").root;
  EXPECT_EQ(root.mode, 0755);
  EXPECT_EQ(Must(reader.Find(root, "/a")).mode, 0644);  // the header's own, though it came late
  EXPECT_EQ(Must(reader.Find(root, "/a/b")).mode, 0755);
  EXPECT_EQ(ReadFile("/a/b/file"), "hi");
}

TEST_F(TarImportTest, TheLastOfANameHolds) {
  Must(ImportBytes(Header("a", '0', 2) + Padded("v1") + Header("b", '0', 1) + Padded("b") + Header("a", '0', 2) +
                   Padded("v2") + kEnd));
  EXPECT_EQ(ReadFile("/a"), "v2");
  EXPECT_EQ(Head("tar").file_count, 2u);
}

TEST_F(TarImportTest, LinksOfLinksAreOneGroup) {
  const auto link = [](const std::string& name, const std::string& target) {
    return Extended(Record("linkpath", target)) + Header(name, '1', 0);
  };
  Must(ImportBytes(Header("a", '0', 1) + Padded("a") + link("b", "a") + link("c", "./b") + link("a", "b") + kEnd));
  const TreeReader reader(library_);
  const auto groups = Must(reader.LinkGroups(Head("tar").links));
  EXPECT_EQ(groups, (std::map<std::string, std::vector<std::string>>{{"a", {"a", "b", "c"}}}));
}

TEST_F(TarImportTest, RefusesWhatIsNoTree) {
  const auto link = [](const std::string& name, const std::string& target) {
    return Extended(Record("linkpath", target)) + Header(name, '1', 0);
  };
  const std::string file = Header("a", '0', 1) + Padded("a");
  const auto symlink = Extended(Record("linkpath", "/etc")) + Header("a", '2', 0);
  EXPECT_NE(ErrorOf(Header("../a", '0', 0) + kEnd).find("impossible name"), std::string::npos);
  EXPECT_NE(ErrorOf(Header("a/../../b", '0', 0) + kEnd).find("impossible name"), std::string::npos);
  EXPECT_NE(ErrorOf(symlink + Header("a/passwd", '0', 0) + kEnd).find("no directory in the archive"),
            std::string::npos);
  EXPECT_NE(ErrorOf(file + Header("a/b", '0', 0) + kEnd).find("no directory in the archive"), std::string::npos);
  EXPECT_NE(ErrorOf(file + Header("a/", '5', 0) + kEnd).find("comes twice"), std::string::npos);
  EXPECT_NE(ErrorOf(file + link("b", "a") + file + kEnd).find("has hard links"), std::string::npos);
  EXPECT_NE(ErrorOf(link("b", "a") + file + kEnd).find("does not come before it"), std::string::npos);
  EXPECT_NE(ErrorOf(link("b", "../../etc/shadow") + kEnd).find("impossible name"), std::string::npos);
  EXPECT_NE(ErrorOf(Header("", '0', 0) + kEnd).find("without a name"), std::string::npos);
  EXPECT_NE(ErrorOf(kEnd).find("no files"), std::string::npos);
  EXPECT_NE(ErrorOf("").find("empty"), std::string::npos);
  EXPECT_NE(ErrorOf(std::string(2000, 'x')).find("does not check"), std::string::npos);
  EXPECT_NE(ErrorOf(file).find("ends too early"), std::string::npos);
  EXPECT_NE(ErrorOf("\x1f\x8b\x08" + std::string(100, 'x')).find("damaged"), std::string::npos);
  EXPECT_FALSE(Must(library_->Refresh()));
}

TEST_F(TarImportTest, HolesHaveALimitTogether) {
  std::ofstream(path() + "/mirage.yaml") << "max_hole_bytes: 100000000\n";
  library_ = Must(Library::Open(path(), {}));
  const auto sparse = [](const std::string& name, uint64_t size) {
    return Extended(Record("GNU.sparse.size", std::to_string(size)) + Record("GNU.sparse.map", "0,1")) +
           Header(name, '0', 1) + Padded("x");
  };
  Must(ImportBytes(sparse("a", 60'000'000) + sparse("b", 40'000'002) + kEnd));
  const std::string error = ErrorOf(sparse("a", 60'000'000) + sparse("b", 40'000'003) + kEnd);
  EXPECT_NE(error.find("more than 100000000 bytes in holes"), std::string::npos) << error;
  EXPECT_NE(error.find("max_hole_bytes"), std::string::npos) << error;
  // In a directory of the host too, where the filesystem tells of them.
  const std::string tree = directory_ / "tree";
  fs::create_directory(tree);
  std::ofstream(tree + "/a") << "x";
  fs::resize_file(tree + "/a", 200'000'000);
  const auto report = Import(*library_, Options(tree, "directory"));
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, E2BIG);
}

TEST_F(TarImportTest, NamesTakeBoundedMemory) {
  std::string many;
  for (int i = 0; i < 3000; ++i) many += Header(fmt::format("{:0100}", i), '0', 0);
  std::string links = Header("a", '0', 0);
  for (int i = 0; i < 300; ++i) links += Extended(Record("linkpath", "a")) + Header(fmt::format("{:0100}", i), '1', 0);
  for (const std::string& bytes : {many, links}) {
    std::ofstream(directory_ / "archive", std::ios::binary | std::ios::trunc) << bytes << kEnd;
    ImportOptions options = Options(directory_ / "archive");
    options.format = "tar";
    for (const uint64_t enough : {1U << 16, 1U << 20}) {
      options.name_bytes = enough;
      const auto report = Import(*library_, options);
      EXPECT_EQ(report.has_value(), enough == 1 << 20) << enough;
      EXPECT_TRUE(report || report.error().code == E2BIG);
    }
  }
}

TEST_F(TarImportTest, ACompressedArchiveThatIsCutOffIsNoVersion) {
  const std::string archive = directory_ / "archive";
  std::ofstream(archive + ".tar", std::ios::binary)
      << Header("a", '0', 100'000) + Padded(std::string(100'000, 'a')) + kEnd;
  ASSERT_TRUE(Shell(fmt::format("gzip -c {0}.tar > {0}", archive)));
  Must(Import(*library_, Options(archive)));
  const auto size = fs::file_size(archive);
  for (const auto left : {size - 1, size - 6, size / 2}) {
    fs::resize_file(archive, left);
    EXPECT_FALSE(Import(*library_, Options(archive, "cut"))) << left;
  }
}

TEST_F(TarImportTest, AclsThatCameAsTextAreNamed) {
  const auto report =
      Must(ImportBytes(Extended(Record("SCHILY.acl.access", "user::rw-,group::r--,other::r--")) + Header("a", '0', 0) +
                       Extended(Record("RHT.security.selinux", "label")) + Header("b", '0', 0) + kEnd));
  ASSERT_EQ(report.omissions.size(), 1u);
  EXPECT_EQ(report.omissions[0], "POSIX ACLs of 1 files, which the archive has as text");
  const TreeReader reader(library_);
  EXPECT_EQ(Must(reader.Xattrs(Must(reader.Find(Head("tar").root, "/b")))),
            (XattrSet{{"security.selinux", std::string("label\0", 6)}}));
}

}  // namespace
}  // namespace mirage::testing
