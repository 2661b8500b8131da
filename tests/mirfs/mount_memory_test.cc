// What a daemon's memory does when many versions are walked, told by the daemon itself (mirage mounts).
#include <chrono>

#include "mirfs/mount_status.h"
#include "tests/mirfs/directory_library.h"

namespace mirage::testing {
namespace {

constexpr uint64_t kLimitBytes = uint64_t{400} << 20;
constexpr int kFilesInDirectory = 100;

class MountMemoryTest : public LibraryTest {
 protected:
  void SetUp() override {
    if (!HaveFuse()) GTEST_SKIP() << "no /dev/fuse here";
    // The address sanitizer's allocator would keep 256 MiB of what is freed: resident sizes would say nothing.
    const char* given = std::getenv("ASAN_OPTIONS");
    setenv("ASAN_OPTIONS", (std::string(given ? given : "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=16").c_str(), 1);
  }
  void TearDown() override { RunShell("fusermount3 -uz " + mountpoint()); }
  std::string mountpoint() const { return directory_ / "mount"; }

  // In each version one file of a hundred is newer than in the version before.
  void Publish(int versions, int directories) {
    for (int number = 1; number <= versions; ++number) {
      const auto transaction = Must(library_->Begin("import"));
      TreeWriter tree(*transaction);
      Entry directory, file;
      directory.type = FileType::kDirectory;
      directory.mode = 0755;
      file.mode = 0644;
      file.id = HashBytes("");
      Must(tree.Add("", directory));
      for (int d = 0; d < directories; ++d) {
        const std::string path = fmt::format("directory-{:05}", d);
        Must(tree.Add(path, directory));
        for (int f = 0; f < kFilesInDirectory; ++f) {
          const int since = (number - f % 100 + 100) % 100;
          file.mtime_sec = 1'700'000'000 + std::max(number - since, 0);
          Must(tree.Add(fmt::format("{}/file-{:05}", path, f), file));
        }
      }
      NewVersion version;
      version.manifest.root = Must(tree.Finish());
      version.manifest.branch = "many";
      if (const auto head = Must(library_->snapshot()->Branch("many"))) {
        version.expected_head = head->manifest;
        version.manifest.parents = {head->manifest};
      }
      Must(transaction->Publish(std::move(version)));
      Must(library_->Refresh());
    }
  }
  MountStatus Status() {
    const auto mounts = Must(ListMounts(*library_));
    EXPECT_EQ(mounts.size(), 1u);
    return mounts.empty() ? MountStatus{.mountpoint = "", .shows = ""} : mounts[0];
  }
  void WalkThenForget(int versions, int directories) {
    Publish(versions, directories);
    const char* bin = std::getenv("MIRAGE_BIN");
    MustRun("mkdir " + mountpoint() + " && " + std::string(bin ? bin : ".") + "/mirfs " + path() + " " + mountpoint());
    const uint64_t names = static_cast<uint64_t>(versions) * static_cast<uint64_t>(directories) *
                           static_cast<uint64_t>(kFilesInDirectory + 1);
    EXPECT_EQ(MustRun("find " + mountpoint() + "/many/v* -mindepth 1 -printf '%s\\n' | wc -l"), std::to_string(names));
    const MountStatus walked = Status();
    RecordProperty("memory_mib", static_cast<int>(walked.memory_bytes >> 20));
    RecordProperty("inodes", static_cast<int>(walked.inodes));
    std::printf("%.0f MiB resident, %lu inodes after %lu names\n", static_cast<double>(walked.memory_bytes) / (1 << 20),
                walked.inodes, names);
    EXPECT_GT(walked.inodes, static_cast<uint64_t>(versions * directories));
    EXPECT_LT(walked.memory_bytes, kLimitBytes);
    if (geteuid() != 0) return;
    // What the kernel drops, the daemon drops.
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    uint64_t left = walked.inodes;
    while (left > walked.inodes / 20 && std::chrono::steady_clock::now() < end) {
      MustRun("echo 2 > /proc/sys/vm/drop_caches");
      left = Status().inodes;
    }
    EXPECT_LE(left, walked.inodes / 20);
  }
};

TEST_F(MountMemoryTest, WalkedVersionsAreForgotten) { WalkThenForget(5, 20); }

// Fifty versions of fifty thousand files.
TEST_F(MountMemoryTest, FullFiftyVersionsStayUnderTheLimit) { WalkThenForget(50, 500); }

}  // namespace
}  // namespace mirage::testing
