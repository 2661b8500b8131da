// Importing a directory: everything it holds, nothing else, and the library as before when it cannot be done.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>

#include "indexer/directory_source.h"
#include "indexer/importer.h"
#include "tests/indexer/host_tree.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;

class DirectoryImportTest : public LibraryTest {
 protected:
  DirectoryImportTest() { fs::create_directory(source()); }
  std::string source() const { return directory_ / "source"; }
  void Write(const std::string& path, const std::string& bytes) const {
    std::ofstream(source() + "/" + path, std::ios::binary) << bytes;
  }
  ImportOptions Options(const std::string& branch = "b") {
    ImportOptions options;
    options.source = source();
    options.branch = branch;
    options.say = [this](std::string_view line) { said_.emplace_back(line); };
    return options;
  }
  Manifest Head(const std::string& branch = "b") {
    Must(library_->Refresh());
    return Must(ReadManifest(library_->objects(), Must(library_->snapshot()->Branch(branch))->manifest));
  }
  std::vector<std::string> Names(const Manifest& manifest) const {
    std::vector<std::string> names;
    Must(TreeReader(library_).Walk(manifest.root, [&](const std::string& path, const Entry&) -> Result<bool> {
      if (!path.empty()) names.push_back(path);
      return true;
    }));
    return names;
  }
  int ErrorOf(const ImportOptions& options, const std::string& words) {
    const auto report = Import(*library_, options);
    if (report) return 0;
    EXPECT_NE(report.error().message.find(words), std::string::npos) << report.error().message;
    EXPECT_EQ(report.error().message.find('\n'), std::string::npos) << report.error().message;
    EXPECT_TRUE(fs::is_empty(library_->staging_path()));
    return report.error().code;
  }
  std::vector<std::string> said_;
};

TEST_F(DirectoryImportTest, KeepsEverythingThatADirectoryHolds) {
  if (geteuid() != 0) GTEST_SKIP() << "devices, owners and trusted attributes need root";
  FillStrangeTree(source());
  const auto report = Must(Import(*library_, Options()));
  EXPECT_TRUE(report.changed);
  EXPECT_EQ(report.version.tag, "v1");
  EXPECT_TRUE(report.omissions.empty());
  size_t entries = 0;
  EXPECT_TRUE(VersionEqualsDirectory(library_, Head(), source(), &entries));
  EXPECT_EQ(entries, report.files + 1);
  EXPECT_GT(entries, 350u);
  EXPECT_TRUE(said_.empty());
}

TEST_F(DirectoryImportTest, TheSameAgainMakesNoVersion) {
  Write("f", "hello");
  fs::create_directory(source() + "/d");
  ImportOptions options = Options();
  options.message = "first";
  const auto first = Must(Import(*library_, options));
  Must(library_->Refresh());
  const auto again = Must(Import(*library_, options));
  EXPECT_FALSE(again.changed);
  EXPECT_EQ(again.tree, first.tree);
  EXPECT_EQ(again.version.manifest, first.version.manifest);
  EXPECT_EQ(again.version.tag, "v1");
  EXPECT_EQ(Head().message, "first");

  options.allow_empty = true;
  const auto empty = Must(Import(*library_, options));
  EXPECT_TRUE(empty.changed);
  EXPECT_EQ(empty.version.tag, "v2");
  EXPECT_EQ(Head().parents, std::vector<ObjectId>{first.version.manifest});
}

TEST_F(DirectoryImportTest, ALinkAloneIsAChange) {
  Write("a", "same");
  Write("b", "same");
  const timespec times[2] = {{1, 0}, {1, 0}};
  for (const char* name : {"/a", "/b"}) ASSERT_EQ(utimensat(AT_FDCWD, (source() + name).c_str(), times, 0), 0);
  ASSERT_EQ(utimensat(AT_FDCWD, source().c_str(), times, 0), 0);
  const auto first = Must(Import(*library_, Options()));
  Must(library_->Refresh());
  fs::remove(source() + "/b");
  fs::create_hard_link(source() + "/a", source() + "/b");
  ASSERT_EQ(utimensat(AT_FDCWD, source().c_str(), times, 0), 0);
  const auto second = Must(Import(*library_, Options()));
  EXPECT_TRUE(second.changed);
  EXPECT_EQ(second.tree, first.tree);
  EXPECT_FALSE(Head().links.IsZero());
}

TEST_F(DirectoryImportTest, ASmallChangeAddsLittle) {
  std::string bytes;
  for (uint32_t i = 0; bytes.size() < (8 << 20); ++i) bytes += fmt::format("{:x} ", i * 2654435761u);
  Write("large", bytes);
  for (int i = 0; i < 200; ++i) Write("f" + std::to_string(i), bytes.substr(static_cast<size_t>(i) * 1000, 900));
  const auto first = Must(Import(*library_, Options()));
  Must(library_->Refresh());
  bytes.insert(bytes.size() / 2, "changed");
  Write("large", bytes);
  const auto second = Must(Import(*library_, Options()));
  EXPECT_TRUE(second.changed);
  EXPECT_LT(second.new_bytes * 20, first.new_bytes);
}

TEST_F(DirectoryImportTest, FollowsNoLinkOut) {
  fs::create_directory(directory_ / "outside");
  std::ofstream(directory_ / "outside/secret") << "secret";
  fs::create_directory_symlink(directory_ / "outside", source() + "/link");
  Must(Import(*library_, Options()));
  EXPECT_EQ(Names(Head()), std::vector<std::string>{"link"});
}

TEST_F(DirectoryImportTest, LeavesTheLibraryItselfOut) {
  Write("f", "1");
  ImportOptions options = Options();
  options.source = directory_.path();
  const auto report = Must(Import(*library_, options));
  EXPECT_EQ(Names(Head()), (std::vector<std::string>{"source", "source/f"}));
  ASSERT_EQ(report.omissions.size(), 1u);
  EXPECT_EQ(Head().omissions, report.omissions);
  options.source = path();
  EXPECT_EQ(ErrorOf(options, "library itself"), EINVAL);
}

TEST_F(DirectoryImportTest, ExcludesWithAllThatIsBelow) {
  fs::create_directories(source() + "/var/cache/deep");
  Write("var/cache/deep/f", "1");
  Write("var/keep", "2");
  Write("a.pyc", "3");
  fs::create_hard_link(source() + "/a.pyc", source() + "/b");
  fs::create_hard_link(source() + "/a.pyc", source() + "/c");
  ImportOptions options = Options();
  options.exclude = {"/var/cache", "*.pyc"};
  const auto report = Must(Import(*library_, options));
  EXPECT_EQ(Names(Head()), (std::vector<std::string>{"b", "c", "var", "var/keep"}));
  EXPECT_EQ(Must(TreeReader(library_).LinkGroups(Head().links)),
            (std::map<std::string, std::vector<std::string>>{{"b", {"b", "c"}}}));
  EXPECT_EQ(report.omissions.size(), 2u);
  options.exclude = {"relative"};
  EXPECT_EQ(ErrorOf(options, "must begin with"), EINVAL);
}

TEST_F(DirectoryImportTest, GoesAsDeepAsDirectoriesGo) {
  // Deeper than descriptors are kept open, and than PATH_MAX.
  int at = open(source().c_str(), O_RDONLY | O_DIRECTORY);
  constexpr int kDepth = 300;
  for (int i = 0; i < kDepth; ++i) {
    const std::string name(20, static_cast<char>('a' + i % 26));
    ASSERT_EQ(mkdirat(at, name.c_str(), 0755), 0);
    const int next = openat(at, name.c_str(), O_RDONLY | O_DIRECTORY);
    close(at);
    at = next;
  }
  close(openat(at, "bottom", O_CREAT | O_WRONLY, 0644));
  close(at);
  EXPECT_EQ(Must(Import(*library_, Options())).files, kDepth + 1u);
  EXPECT_TRUE(Names(Head()).back().ends_with("/bottom"));
}

// Drops what it is given, and meddles with the source: between a directory's listing and the look at a child, and between
// that and the reading of a file.
class MeddlingSink final : public ImportSink {
 public:
  using Meddle = std::function<void(std::string_view path)>;
  MeddlingSink(Meddle listed, Meddle looked_at) : listed_(std::move(listed)), looked_at_(std::move(looked_at)) {}
  bool Excluded(std::string_view path) const override {
    if (listed_) listed_(path);
    return false;
  }
  Status Add(std::string path, Entry, const XattrSet&, std::string) override {
    paths_.push_back(std::move(path));
    return {};
  }
  Status AddFile(std::string, Entry, const XattrSet&, std::string bytes) override {
    taken_ += bytes.size();
    return {};
  }
  Status BeginFile(std::string, Entry, const XattrSet&) override { return {}; }
  Status AppendFile(std::string_view bytes) override {
    taken_ += bytes.size();
    return {};
  }
  Status AppendHole(uint64_t) override { return {}; }
  Status EndFile() override { return {}; }
  Status AddLink(std::string, std::string) override { return {}; }
  Status AddStored(std::string, Entry) override { return {}; }
  std::optional<LikelyContent> Likely(const std::string& path, const Entry&, uint64_t) override {
    if (looked_at_) looked_at_(path);
    return std::nullopt;
  }
  void Expect(uint64_t) override {}
  void Stage(std::string_view) override {}
  void Omit(std::string sentence) override { omissions_.push_back(std::move(sentence)); }
  void Say(std::string_view) override {}

  const Meddle listed_, looked_at_;
  std::vector<std::string> paths_;  // but of regular files
  uint64_t taken_ = 0;              // bytes of these
  std::vector<std::string> omissions_;
};

TEST_F(DirectoryImportTest, AFileThatGrowsMeanwhileIsNamed) {
  for (const uint64_t size : {uint64_t{100}, kWholeFileBytes + 1}) {
    SCOPED_TRACE(size);
    Write("log", std::string(static_cast<size_t>(size), 'x'));
    MeddlingSink sink({}, [&](std::string_view) { std::ofstream(source() + "/log", std::ios::app) << "more"; });
    Must(DirectorySource(source(), "", nullptr).Read(sink));
    EXPECT_EQ(sink.taken_, size) << "a log that grows has an end";
    ASSERT_EQ(sink.omissions_.size(), 1u);
    EXPECT_NE(sink.omissions_[0].find("/log changed while it was being read"), std::string::npos);
  }
}

TEST_F(DirectoryImportTest, WhatGoesOrIsReplacedMeanwhileIsNamed) {
  for (const char* name : {"file-goes", "file-becomes-directory", "file-becomes-link", "kept"}) Write(name, "1");
  for (const char* name : {"link-goes", "link-becomes-file"}) fs::create_symlink("target", source() + "/" + name);
  MeddlingSink sink(
      [&](std::string_view name) {
        const fs::path path = fs::path(source()) / name;
        if (name != "kept") fs::remove(path);
        if (name == "file-becomes-directory") fs::create_directory(path);
        if (name == "file-becomes-link") fs::create_symlink("/etc/passwd", path);
        if (name == "link-becomes-file") std::ofstream(path) << "2";
      },
      {});
  Must(DirectorySource(source(), "", nullptr).Read(sink));
  EXPECT_EQ(sink.paths_, std::vector<std::string>{""});
  EXPECT_EQ(sink.taken_, 1u) << "of the one that is kept";
  std::string said;
  for (const std::string& omission : sink.omissions_) said += omission.substr(source().size() + 1) + "\n";
  EXPECT_EQ(said,
            "file-becomes-directory was replaced while it was being read, and was left out\n"
            "file-becomes-link went away while it was being read\n"
            "file-goes went away while it was being read\n"
            "link-becomes-file was replaced while it was being read, and was left out\n"
            "link-goes went away while it was being read\n");
}

TEST_F(DirectoryImportTest, RefusesInOneLine) {
  Write("f", "1");
  ImportOptions options = Options();
  options.source = directory_ / "nowhere";
  EXPECT_EQ(ErrorOf(options, "nowhere: No such file"), ENOENT);
  options = Options();
  options.branch = "-bad";
  EXPECT_NE(ErrorOf(options, "-bad"), 0);
  options = Options();
  options.format = "qcow2";
  EXPECT_EQ(ErrorOf(options, "directory"), EISDIR);
  options = Options();
  options.source += "/f";
  options.format = "directory";
  EXPECT_EQ(ErrorOf(options, "Not a directory"), ENOTDIR);
  options = Options();
  options.parent = "none";
  EXPECT_EQ(ErrorOf(options, "none"), ENOENT);
  options = Options();
  options.tag = "t";
  Must(Import(*library_, options));
  Must(library_->Refresh());
  EXPECT_EQ(ErrorOf(options, "taken"), EEXIST);
  std::atomic<bool> interrupted{true};
  options = Options();
  options.interrupted = &interrupted;
  EXPECT_EQ(ErrorOf(options, "interrupted"), EINTR);
}

TEST_F(DirectoryImportTest, AnotherParentMakesABranch) {
  Write("f", "1");
  const auto first = Must(Import(*library_, Options()));
  Must(library_->Refresh());
  ImportOptions options = Options("c");
  options.parent = "b/v1";
  EXPECT_TRUE(Must(Import(*library_, options)).changed);
  EXPECT_EQ(Head("c").parents, std::vector<ObjectId>{first.version.manifest});
  Write("f", "2");
  Must(Import(*library_, Options()));
  Must(library_->Refresh());
  options.parent = "b";
  EXPECT_EQ(ErrorOf(options, "head of its own"), EINVAL);
}

}  // namespace
}  // namespace mirage::testing
