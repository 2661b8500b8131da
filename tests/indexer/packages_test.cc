// Packages: the order of versions against dpkg's and rpm's own, queries, and rpm databases made by rpm itself.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "indexer/importer.h"
#include "indexer/package_version.h"
#include "indexer/recipe.h"
#include "indexer/rpm_database.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;

bool Shell(const std::string& command) { return std::system(("{ " + command + "; } >&2").c_str()) == 0; }
bool Has(const std::string& program) { return Shell("command -v " + program + " >/dev/null"); }

std::string Output(const std::string& command) {
  std::string out;
  FILE* const pipe = popen(command.c_str(), "r");
  for (int c; (c = std::fgetc(pipe)) != EOF;) out += static_cast<char>(c);
  EXPECT_EQ(pclose(pipe), 0) << command;
  return out;
}

// Versions that share most of themselves, so that comparisons go deep.
std::string RandomVersion(std::mt19937& random, bool debian) {
  static const std::vector<std::string> kPieces = {"1", "0", "10", "01", "a",      "rc",
                                                   "Z", ".", "~",  "+",  "3.0.11", "beta"};
  std::string version = std::to_string(random() % 3);
  for (size_t i = random() % 5; i-- > 0;) {
    const std::string& piece = kPieces[random() % kPieces.size()];
    version += piece == "+" && !debian ? "^" : piece;
  }
  if (random() % 3 == 0) version += fmt::format("-{}{}", random() % 3, random() % 2 ? "~deb12u1" : "");
  if (random() % 4 == 0) version = fmt::format("{}:{}", random() % 2, version);
  return version;
}

TEST(PackageVersionTest, OrderIsDpkgs) {
  if (!Has("dpkg")) GTEST_SKIP() << "dpkg is not installed";
  const unsigned seed = std::random_device()();
  std::mt19937 random(seed);
  std::string script;
  std::vector<std::pair<std::string, std::string>> pairs = {{"1.0~rc1", "1.0"},      {"1.0", "1.0-0"},
                                                            {"3.0.9-1", "3.0.11-1"}, {"1:0", "2"},
                                                            {"1.0a", "1.0+"},        {"1-2-3", "1-2.1"}};
  while (pairs.size() < 300) pairs.emplace_back(RandomVersion(random, true), RandomVersion(random, true));
  for (const auto& [a, b] : pairs) {
    script += fmt::format(
        "dpkg --compare-versions '{0}' lt '{1}' && echo '<' || {{ dpkg --compare-versions '{0}' gt '{1}' && "
        "echo '>' || echo '='; }}\n",
        a, b);
  }
  const TemporaryDirectory directory;
  std::ofstream(directory / "script") << script;
  const std::string answers = Output("sh " + (directory / "script") + " 2>/dev/null");
  ASSERT_EQ(answers.size(), 2 * pairs.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    const auto order = CompareDebianVersions(pairs[i].first, pairs[i].second);
    EXPECT_EQ(order < 0   ? '<'
              : order > 0 ? '>'
                          : '=',
              answers[2 * i])
        << pairs[i].first << " and " << pairs[i].second << ", seed " << seed;
    EXPECT_EQ(CompareDebianVersions(pairs[i].second, pairs[i].first) < 0, order > 0);
  }
}

TEST(PackageVersionTest, OrderIsRpms) {
  if (!Has("rpm")) GTEST_SKIP() << "rpm is not installed";
  const unsigned seed = std::random_device()();
  std::mt19937 random(seed);
  std::vector<std::pair<std::string, std::string>> pairs = {{"1.0~rc1", "1.0"},  {"1.0^git", "1.0"}, {"1.0^a", "1.0.1"},
                                                            {"3.0.9", "3.0.11"}, {"1.0a", "1.0.1"},  {"a", "1"}};
  while (pairs.size() < 300) pairs.emplace_back(RandomVersion(random, false), RandomVersion(random, false));
  std::string lua = "%{lua:\n";
  for (auto& [a, b] : pairs) {
    for (std::string* text : {&a, &b}) {  // vercmp knows neither epochs nor releases
      text->erase(0, text->find(':') == std::string::npos ? 0 : text->find(':') + 1);
      text->resize(std::min(text->find('-'), text->size()));
    }
    lua += fmt::format("print(rpm.vercmp('{}', '{}')..' ')\n", a, b);
  }
  const TemporaryDirectory directory;
  std::ofstream(directory / "macro") << lua << "}";
  std::istringstream answers(Output(fmt::format("rpm --eval \"$(cat {})\"", directory / "macro")));
  for (const auto& [a, b] : pairs) {
    int wanted = 2;
    ASSERT_TRUE(answers >> wanted);
    const auto order = CompareRpmVersions(a, b);
    EXPECT_EQ(order < 0 ? -1 : order > 0 ? 1 : 0, wanted) << a << " and " << b << ", seed " << seed;
  }
  EXPECT_TRUE(CompareRpmVersions("9.9-1", "1:0.1-1") < 0);
  EXPECT_TRUE(CompareRpmVersions("1.0-1.el9", "1.0-2.el9") < 0);
  EXPECT_TRUE(CompareRpmVersions("1.0-7.el9", "1.0") == 0);
}

TEST(PackageVersionTest, QueriesAreTakenApart) {
  const auto query = Must(ParsePackageQuery("openssl < 3.0.11"));
  EXPECT_EQ(query.name, "openssl");
  EXPECT_TRUE(query.Matches("3.0.9-1", PackageFamily::kDebian));
  EXPECT_FALSE(query.Matches("3.0.11-1", PackageFamily::kDebian));
  // Without an epoch in the question, upstream's version counts; with one, epochs do.
  EXPECT_TRUE(query.Matches("1:3.0.9-2.fc39", PackageFamily::kRpm));
  EXPECT_FALSE(query.Matches("1:3.0.11-1", PackageFamily::kDebian));
  EXPECT_FALSE(Must(ParsePackageQuery("a<0:3.0.11")).Matches("1:1.0", PackageFamily::kRpm));
  EXPECT_TRUE(Must(ParsePackageQuery("a<1:3.0.11")).Matches("9.9", PackageFamily::kRpm));
  EXPECT_TRUE(Must(ParsePackageQuery("a")).Matches("0", PackageFamily::kRpm));
  EXPECT_TRUE(Must(ParsePackageQuery("a=1.0")).Matches("1.0-7.el9", PackageFamily::kRpm));
  EXPECT_FALSE(Must(ParsePackageQuery("a==1.0")).Matches("1.0-7", PackageFamily::kDebian));
  EXPECT_TRUE(Must(ParsePackageQuery("a>=1.0")).Matches("1.0", PackageFamily::kDebian));
  EXPECT_FALSE(Must(ParsePackageQuery("a>>1.0")).Matches("1.0", PackageFamily::kDebian));
  SystemDescription system;
  system.distro = "unknown";
  system.packages = {{"a", "1", "noarch"}};
  EXPECT_EQ(FamilyOf(system), PackageFamily::kRpm);
  system.packages = {{"a", "1", "all"}, {"b", "1", "amd64"}};
  EXPECT_EQ(FamilyOf(system), PackageFamily::kDebian);
  for (const char* bad : {"", "<1", "a<", "a<>1", "a=<1", "a b", "a<1 2", "a!=1"}) {
    EXPECT_FALSE(ParsePackageQuery(bad)) << bad;
  }
}

class RpmDatabaseTest : public LibraryTest {
 protected:
  // A root with an rpm database of two packages, made by rpm.
  std::string MakeRoot() const {
    const std::string root = directory_ / "root", spec = directory_ / "spec";
    for (const auto& [name, epoch, arch] : {std::tuple("openssl", "1", "noarch"), {"zlib", "", "noarch"}}) {
      std::ofstream(spec) << "Name: " << name
                          << "\nVersion: 3.0.9\nRelease: 7.el9\nSummary: s\nLicense: none\nBuildArch: " << arch << "\n"
                          << (*epoch ? fmt::format("Epoch: {}\n", epoch) : "") << "%description\nnothing\n%files\n";
      EXPECT_TRUE(Shell(fmt::format("rpmbuild --quiet -bb --define '_topdir {}' {} 2>&1", directory_ / "build", spec)));
    }
    EXPECT_TRUE(
        Shell(fmt::format("rpm --root {0} --define '_db_backend sqlite' --define '_dbpath /var/lib/rpm' --initdb && "
                          "rpm --root {0} --define '_db_backend sqlite' --define '_dbpath /var/lib/rpm' -i --justdb "
                          "--nodeps --ignorearch {1}/RPMS/noarch/*.rpm",
                          root, directory_ / "build")));
    return root;
  }
};

TEST_F(RpmDatabaseTest, IsReadInTheSandboxAndThroughADisk) {
  if (!Has("rpmbuild") || geteuid() != 0) GTEST_SKIP() << "rpmbuild is not installed, or not root";
  const std::string root = MakeRoot();
  const std::string file = root + "/var/lib/rpm/rpmdb.sqlite";
  ASSERT_TRUE(fs::exists(file));
  std::ifstream in(file, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const std::vector<Package> wanted = {{"openssl", "1:3.0.9-7.el9", "noarch"}, {"zlib", "3.0.9-7.el9", "noarch"}};
  auto packages = Must(ReadRpmDatabase(bytes, nullptr));
  std::sort(packages.begin(), packages.end());
  EXPECT_EQ(packages, wanted);
  // Damaged in any place: an error or some list, never a crash of ours, and no silence for long.
  std::mt19937 random(1);
  for (int i = 0; i < 30; ++i) {
    std::string damaged = bytes;
    for (int j = 0; j < 20; ++j) damaged[random() % damaged.size()] = static_cast<char>(random());
    static_cast<void>(ReadRpmDatabase(damaged, nullptr));
  }
  EXPECT_EQ(ReadRpmDatabase("SQLite format 3", nullptr).error().code, EIO);
  EXPECT_EQ(ReadRpmDatabase(std::string(5000, 'x'), nullptr).error().code, EIO);

  for (const char* name : {"etc", "bin", "usr/lib/sysimage"}) fs::create_directories(root + "/" + name);
  std::ofstream(root + "/etc/hosts") << "127.0.0.1 localhost\n";
  std::ofstream(root + "/etc/os-release") << "ID=fedora\nVERSION_ID=39\nPRETTY_NAME='Fedora Linux 39'\n";
  fs::rename(root + "/var/lib/rpm", root + "/usr/lib/sysimage/rpm");  // as Fedora has it
  fs::create_symlink("../../usr/lib/sysimage/rpm", root + "/var/lib/rpm");
  const std::string disk = directory_ / "disk.raw";
  ASSERT_TRUE(Shell(fmt::format("truncate -s 32M {0} && mkfs.ext4 -q -F -d {1} {0}", disk, root)));
  ImportOptions options;
  options.source = disk;
  options.branch = "fedora";
  options.reader = "direct";
  const auto report = Must(Import(*library_, options));
  Must(library_->Refresh());
  const Manifest manifest = Must(ReadManifest(library_->objects(), report.version.manifest));
  const auto system =
      Must(DecodeSystem(Must(library_->objects().ReadObject(ObjectKind::kInspection, manifest.inspection))));
  EXPECT_EQ(system.distro, "fedora");
  EXPECT_EQ(system.packages, wanted);
  EXPECT_TRUE(report.omissions.empty()) << report.omissions.front();
  // What is in a log beside it is not passed over in silence, and neither is a database of another kind.
  std::ofstream(root + "/usr/lib/sysimage/rpm/rpmdb.sqlite-wal") << "log";
  ASSERT_TRUE(Shell(fmt::format("rm {0} && truncate -s 32M {0} && mkfs.ext4 -q -F -d {1} {0}", disk, root)));
  EXPECT_NE(Must(Import(*library_, options)).omissions.at(0).find("in a log beside it"), std::string::npos);
  fs::remove_all(root + "/usr/lib/sysimage/rpm");
  fs::create_directory(root + "/usr/lib/sysimage/rpm");
  std::ofstream(root + "/usr/lib/sysimage/rpm/Packages.db") << "RpmP";
  ASSERT_TRUE(Shell(fmt::format("rm {0} && truncate -s 32M {0} && mkfs.ext4 -q -F -d {1} {0}", disk, root)));
  EXPECT_NE(Must(Import(*library_, options)).omissions.at(0).find("of a kind that is not read"), std::string::npos);
}

TEST(RpmHeaderTest, IsReadWithinItsBounds) {
  const auto number = [](uint32_t n) {
    return std::string{static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8),
                       static_cast<char>(n)};
  };
  const std::string data = std::string(
                               "a\0"
                               "1\0"
                               "2\0",
                               6) +
                           number(3);
  const auto tag = [&](uint32_t id, uint32_t type, uint32_t at) {
    return number(id) + number(type) + number(at) + number(1);
  };
  const std::string tags = tag(1000, 6, 0) + tag(1001, 6, 2) + tag(1002, 6, 4) + tag(1003, 4, 6);
  const std::string header = number(4) + number(10) + tags + data;
  EXPECT_EQ(Must(ParseRpmHeader(header)), (Package{"a", "3:1-2", ""}));
  for (size_t size = 0; size < header.size(); ++size) EXPECT_FALSE(ParseRpmHeader(header.substr(0, size))) << size;
  EXPECT_FALSE(ParseRpmHeader(number(4) + number(10) + tag(1000, 6, 99) + tags.substr(16) + data));
  EXPECT_FALSE(ParseRpmHeader(number(0xffffffff) + number(0xffffffff) + tags + data));
}

TEST(RecipeTest, IsReadStrictly) {
  const auto entries =
      Must(ParseRecipe("defaults:\n  exclude: [/tmp/*]\n  reader: direct\nimages:\n"
                       "  - source: a.raw\n    version: web/v1\n    message: one\n    exclude: ['*.o']\n"
                       "  - {source: /b.raw, version: db, reader: auto, paranoid: true}\n",
                       "r.yaml", "/recipes"));
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].options.source, "/recipes/a.raw");
  EXPECT_EQ(entries[0].options.branch, "web");
  EXPECT_EQ(entries[0].options.tag, "v1");
  EXPECT_EQ(entries[0].options.reader, "direct");
  EXPECT_EQ(entries[0].options.exclude, (std::vector<std::string>{"/tmp/*", "*.o"}));
  EXPECT_EQ(entries[1].options.source, "/b.raw");
  EXPECT_EQ(entries[1].options.reader, "auto");
  EXPECT_TRUE(entries[1].options.paranoid);
  EXPECT_EQ(entries[1].line, 9);
  const auto machine =
      Must(ParseRecipe("defaults: {keys: ['all:file:common'], skip_unreadable: true}\nimages:\n"
                       "  - disks: [a.raw, /b.raw]\n    version: m/v1\n"
                       "    keys: ['/dev/sda2:key:a:b', 'UUID:file:/k']\n"
                       "  - {source: app.tar, version: app, image: web, platform: linux/arm64, layers: true, "
                       "skip_unreadable: false}\n",
                       "r.yaml", "/recipes"));
  EXPECT_EQ(machine[0].options.source, "/recipes/a.raw");
  EXPECT_EQ(machine[0].options.more_disks, std::vector<std::string>{"/b.raw"});
  EXPECT_EQ(SourceName(machine[0].options), "/recipes/a.raw, /b.raw");
  EXPECT_EQ(machine[0].options.keys,
            (std::vector<std::string>{"all:file:/recipes/common", "/dev/sda2:key:a:b", "UUID:file:/k"}));
  EXPECT_TRUE(machine[0].options.skip_unreadable);
  EXPECT_EQ(machine[1].options.image, "web");
  EXPECT_EQ(machine[1].options.platform, "linux/arm64");
  EXPECT_TRUE(machine[1].options.layers);
  EXPECT_FALSE(machine[1].options.skip_unreadable);
  if (const char* const top = std::getenv("MIRAGE_SOURCE")) {
    const std::string file = std::string(top) + "/examples/recipe.yaml";
    EXPECT_EQ(Must(ParseRecipe(Must(ReadWholeFile(Env::Default(), file, kMaxRecipeBytes)), file, ".")).size(), 6U);
  }
  const std::pair<const char*, const char*> bad[] = {
      {"", "line 1"},
      {"images: []", "must be a list"},
      {"image:\n  - {source: a, version: b}\n", "line 1: unknown setting \"image\""},
      {"images:\n  - source: a\n", "line 2: an image without a version"},
      {"images:\n  - version: a\n", "line 2: an image without a source"},
      {"images:\n  - source: a\n    version: b\n    tga: c\n", "line 4: unknown setting \"tga\""},
      {"images:\n  - source: a\n    version: ../b\n", "line 3: "},
      {"images:\n  - source: a\n    version: b/latest\n", "line 3: "},
      {"images:\n  - source: a\n    version: b\n    exclude: c\n", "line 4: exclude must be a list"},
      {"images:\n  - source: a\n    version: b\n    reader: fast\n", "line 4: reader must be"},
      {"images:\n  - source: a\n    version: b/1\n  - source: c\n    version: b/1\n", "line 4: b/1 is that of line 2"},
      {"images:\n  - source: a\n    source: b\n    version: c\n", "comes twice"},
      {"defaults:\n  source: a\n", "line 2: unknown setting \"source\" of defaults"},
      {"images:\n  - source: [a\n", "line "},
      {"images:\n  - source: '-'\n    version: a\n", "standard input"},
      {"images:\n  - {source: a, disks: [b], version: c}\n", "line 2: source or disks, not both"},
      {"images:\n  - disks: []\n    version: c\n", "line 2: disks must be a list"},
      {"images:\n  - source: a\n    version: b\n    keys: ['all:secret']\n", "line 4: keys: write ID:key:KEY"},
      {"images:\n  - source: a\n    version: b\n    layers: yes\n", "line 4: layers must be true or false"},
  };
  for (const auto& [yaml, words] : bad) {
    const auto parsed = ParseRecipe(yaml, "r.yaml", ".");
    ASSERT_FALSE(parsed) << yaml;
    EXPECT_TRUE(parsed.error().message.starts_with("r.yaml: line ")) << parsed.error().message;
    EXPECT_NE(parsed.error().message.find(words), std::string::npos) << parsed.error().message;
  }
}

}  // namespace
}  // namespace mirage::testing
