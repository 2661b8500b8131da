// The publish protocol: a thousand publishes by one process while three others reopen and read everything they see.
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "store/fsck.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::LibraryTest;
using testing::Must;

constexpr int kPublishes = 1000;
constexpr int kReaders = 3;

size_t OpenDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& item : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

std::string FileText(int version, int file) { return fmt::format("content of file {} at {}", file, version / (file + 1)); }

// Reads until the last version has been seen; exit code 0, or 1 with the reason on stderr.
int ReadEverything(const std::string& path) {
  auto opened = Library::Open(path, {});
  if (!opened) return std::fprintf(stderr, "open: %s\n", opened.error().message.c_str()), 1;
  const auto library = *opened;
  const TreeReader reader(library);
  size_t reopened = 0, descriptors = 0;
  while (true) {
    if (const auto refreshed = library->Refresh(); !refreshed) {
      return std::fprintf(stderr, "refresh: %s\n", refreshed.error().message.c_str()), 1;
    } else if (*refreshed) {
      ++reopened;
    } else {
      ::usleep(2000);
    }
    const auto snapshot = library->snapshot();
    const auto head = snapshot->Branch("debian");
    if (!head) return std::fprintf(stderr, "branch: %s\n", head.error().message.c_str()), 1;
    if (!*head) continue;
    const auto manifest = ReadManifest(*snapshot, (*head)->manifest);
    if (!manifest) return std::fprintf(stderr, "manifest: %s\n", manifest.error().message.c_str()), 1;
    const int version = std::stoi(manifest->message);
    const auto entries = reader.List(manifest->root.id);
    if (!entries) return std::fprintf(stderr, "list: %s\n", entries.error().message.c_str()), 1;
    for (const NamedEntry& named : *entries) {
      std::string bytes;
      if (const auto read = reader.Read(named.entry, 0, named.entry.size, &bytes); !read) {
        return std::fprintf(stderr, "read: %s\n", read.error().message.c_str()), 1;
      }
      if (bytes != FileText(version, std::stoi(named.name))) return std::fprintf(stderr, "wrong bytes\n"), 1;
    }
    descriptors = std::max(descriptors, OpenDescriptors());
    if (version == kPublishes - 1) break;
  }
  if (descriptors > 250) return std::fprintf(stderr, "%zu descriptors open\n", descriptors), 1;
  if (reopened < 20) return std::fprintf(stderr, "reopened only %zu times\n", reopened), 1;
  return 0;
}

TEST_F(LibraryTest, AThousandPublishesUnderThreeReaders) {
  std::vector<pid_t> readers;
  for (int i = 0; i < kReaders; ++i) {
    const pid_t pid = ::fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) ::_exit(ReadEverything(path()));
    readers.push_back(pid);
  }
  uint64_t most_level0 = 0, most_files = 0;
  for (int version = 0; version < kPublishes; ++version) {
    const auto transaction = Must(library_->Begin("import"));
    std::vector<Entry> entries(8);
    for (int file = 0; file < 8; ++file) {
      Entry& entry = entries[static_cast<size_t>(file)];
      entry.mode = 0644;
      Must(transaction->contents().Put(FileText(version, file), [&entry](const ObjectId& id, uint64_t size) {
        entry.id = id;
        entry.size = size;
      }));
    }
    Must(transaction->contents().Flush());
    TreeWriter tree(*transaction);
    Entry root;
    root.type = FileType::kDirectory;
    root.mode = 0755;
    Must(tree.Add("", root));
    for (int file = 0; file < 8; ++file) Must(tree.Add(std::to_string(file), entries[static_cast<size_t>(file)]));
    NewVersion next;
    next.manifest.root = Must(tree.Finish());
    next.manifest.branch = "debian";
    next.manifest.message = std::to_string(version);
    if (const auto head = Must(library_->snapshot()->Branch("debian"))) next.expected_head = head->manifest;
    Must(transaction->Publish(std::move(next)));
    const auto shape = library_->snapshot()->database().shape();
    most_level0 = std::max(most_level0, shape.level0_files);
    most_files = std::max(most_files, shape.files);
  }
  for (const pid_t pid : readers) {
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "reader " << pid << " failed; see its words above";
  }
  EXPECT_LE(most_level0, 16U);
  EXPECT_LE(most_files, 64U);
  RecordProperty("most_level0_files", static_cast<int>(most_level0));
  RecordProperty("most_files", static_cast<int>(most_files));
  EXPECT_EQ(Must(library_->snapshot()->Tags("debian")).size(), static_cast<size_t>(kPublishes));
  const auto report = Must(Fsck(
      *library_, [](const FsckFinding& f) { ADD_FAILURE() << f.version << " " << f.path << ": " << f.what; }, {}));
  EXPECT_EQ(report.versions, static_cast<uint64_t>(kPublishes));
}

}  // namespace
}  // namespace mirage
