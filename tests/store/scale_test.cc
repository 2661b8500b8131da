// What does not grow with the library: the bytes that a change writes into a large directory, and the objects that are
// read to look up a path and to compare neighbours. Counted, not timed; the benchmark has the times.
#include <filesystem>

#include "store/tree_reader.h"
#include "store/tree_writer.h"
#include "tests/testing/library_generator.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::GenerateLibrary;
using testing::GeneratedPath;
using testing::LibraryShape;
using testing::LibraryTest;
using testing::Must;

// A snapshot's objects, counted as they are read.
class CountingReader final : public ObjectReader {
 public:
  explicit CountingReader(std::shared_ptr<const Snapshot> snapshot) : snapshot_(std::move(snapshot)) {}
  Result<std::string> ReadObject(ObjectKind kind, const ObjectId& id) const override {
    auto object = snapshot_->ReadObject(kind, id);
    if (object) {
      ++reads;
      bytes += object->size();
    }
    return object;
  }
  mutable size_t reads = 0, bytes = 0;

 private:
  std::shared_ptr<const Snapshot> snapshot_;
};

class ScaleTest : public LibraryTest {
 protected:
  uint64_t LibraryBytes() const {
    uint64_t bytes = 0;
    for (const char* directory : {"/packs", "/db"}) {
      for (const auto& file : std::filesystem::directory_iterator(path() + directory)) bytes += file.file_size();
    }
    return bytes;
  }
  Manifest Version(const std::string& branch, int number) const {
    const auto ref = Must(library_->snapshot()->Tag(branch, fmt::format("v{}", number)));
    return Must(ReadManifest(library_->objects(), ref.value().manifest));
  }
  // One entry of a directory of `files` changed: bytes that the publish adds to packs and database.
  uint64_t BytesOfOneChange(int files) {
    LibraryShape shape{.versions = 1, .directories = 1, .files = files, .changes = 1};
    Must(GenerateLibrary(library_, "large", shape));
    const Manifest before = Version("large", 1);
    const auto transaction = Must(library_->Begin("change"));
    const auto directory = Must(TreeReader(library_).Lookup(before.root.id, "directory-00000"));
    Entry changed = Must(TreeReader(library_).Find(before.root, GeneratedPath(0, files / 2)));
    changed.mode = 0600;
    const std::string name = GeneratedPath(0, files / 2).substr(std::string("directory-00000/").size());
    Entry parent = directory.value();
    parent.id = Must(EditTree(*transaction, library_->trees(), parent.id, 0, {{name, changed}})).id;
    NewVersion version;
    version.manifest = before;
    version.manifest.time_sec = 0;
    version.manifest.root.id =
        Must(EditTree(*transaction, library_->trees(), before.root.id, 1, {{"directory-00000", parent}})).id;
    version.expected_head = Must(library_->snapshot()->Branch("large")).value().manifest;
    version.manifest.parents = {*version.expected_head};
    const uint64_t bytes_before = LibraryBytes();
    Must(transaction->Publish(std::move(version)));
    EXPECT_EQ(Must(TreeReader(library_).Find(Version("large", 2).root, GeneratedPath(0, files / 2))).mode, 0600);
    return LibraryBytes() - bytes_before;
  }

  struct Reads {
    size_t lookup, lookup_bytes, difference, difference_bytes, changes = 0;
  };
  // Each with nothing in any cache, near the end of a branch of that shape.
  Reads Count(const std::string& branch, const LibraryShape& shape) {
    Must(GenerateLibrary(library_, branch, shape));
    const Manifest last = Version(branch, shape.versions), before = Version(branch, shape.versions - 1);
    Reads reads{};
    {
      const CountingReader objects(library_->snapshot());
      const MapReader trees(objects, ObjectKind::kTree, 1 << 20);
      const std::string path = GeneratedPath(shape.directories / 2, shape.files / 2);
      const size_t slash = path.find('/');
      const Entry directory = Must(DecodeEntry(Must(trees.Find(last.root.id, path.substr(0, slash))).value()));
      EXPECT_TRUE(Must(trees.Find(directory.id, path.substr(slash + 1))));
      reads.lookup = objects.reads;
      reads.lookup_bytes = objects.bytes;
    }
    const CountingReader objects(library_->snapshot());
    const MapReader trees(objects, ObjectKind::kTree, 1 << 20);
    Must(trees.Difference(before.root.id, last.root.id, [&](std::string_view, auto left, auto right) -> Status {
      ASSIGN_OR_RETURN(const Entry a, DecodeEntry(*left));
      ASSIGN_OR_RETURN(const Entry b, DecodeEntry(*right));
      return trees.Difference(a.id, b.id, [&](std::string_view, auto, auto) -> Status {
        ++reads.changes;
        return {};
      });
    }));
    reads.difference = objects.reads;
    reads.difference_bytes = objects.bytes;
    return reads;
  }
  void ExpectTheSame(const Reads& small, const Reads& large) {
    EXPECT_EQ(large.lookup, small.lookup);
    EXPECT_GT(large.changes, 0U);
    EXPECT_LE(large.changes, 5U);
    // A root node on either side, and two nodes for each of the five directories; one more level at the most.
    EXPECT_LE(large.difference, small.difference + 4);
    EXPECT_LE(large.lookup_bytes, 4 * kMapNodeMaxBytes);
  }
};

TEST_F(ScaleTest, OneEntryOfALargeDirectoryWritesKilobytes) {
  EXPECT_LT(BytesOfOneChange(20'000), 200U << 10);
}

TEST_F(ScaleTest, WhatIsReadDoesNotGrowWithVersions) {
  const Reads small = Count("small", {.versions = 2, .directories = 50, .files = 20});
  const Reads large = Count("large", {.versions = 40, .directories = 50, .files = 20, .seed = 2});
  ExpectTheSame(small, large);
}

class ScaleFullTest : public ScaleTest {};

TEST_F(ScaleFullTest, OneEntryOfAMillionWritesKilobytes) { EXPECT_LT(BytesOfOneChange(1'000'000), 200U << 10); }

TEST_F(ScaleFullTest, WhatIsReadDoesNotGrowWithAThousandVersionsOfFiftyThousandFiles) {
  const Reads small = Count("small", {.versions = 2});
  const Reads large = Count("large", {.versions = 1'000, .seed = 2});
  ExpectTheSame(small, large);
}

}  // namespace
}  // namespace mirage
