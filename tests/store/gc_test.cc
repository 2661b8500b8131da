// Collection: what goes and what stays; writers, readers and leases beside it, step by step; processes at random beside it.
#include "store/gc.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "store/fsck.h"
#include "store/mark.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::LibraryTest;
using testing::Must;
using testing::TemporaryDirectory;

std::string Noise(uint32_t seed, size_t size) {
  std::string bytes(size, '\0');
  std::mt19937 random(seed);
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

class GcTest : public LibraryTest {
 protected:
  using Files = std::map<std::string, std::string>;

  void DeleteTag(const std::string& branch, const std::string& tag) {
    Must(library_->Refresh());
    const auto ref = Must(library_->snapshot()->Tag(branch, tag));
    Must(library_->MoveRefs("tag", {{branch + "/" + tag, ref->manifest, ObjectId()}}));
  }
  static GcOptions Quick() {
    GcOptions options;
    options.wait_ms = 0;
    return options;
  }
  GcReport Collect(const GcOptions& options = Quick()) { return Must(CollectGarbage(*library_, options)); }
  size_t Packs() { return Must(Env::Default().List(library_->packs_path())).size(); }

  static std::string Read(const std::shared_ptr<Library>& library, const ObjectId& manifest_id, const std::string& path) {
    const Manifest manifest = Must(ReadManifest(*library->snapshot(), manifest_id));
    const TreeReader reader(library);
    const Entry entry = Must(reader.Find(manifest.root, path));
    std::string bytes;
    Must(reader.Read(entry, 0, entry.size, &bytes));
    return bytes;
  }
  void ExpectSound() {
    const auto fresh = Must(Library::Open(path(), {}));
    const auto report = Must(Fsck(
        *fresh, [](const FsckFinding& f) { ADD_FAILURE() << f.version << " " << f.path << ": " << f.what; }, {}));
    EXPECT_EQ(report.damaged, 0U);
  }
  // A transaction that has staged a flat version and not yet published it.
  struct Staged {
    std::unique_ptr<Transaction> transaction;
    NewVersion version;
  };
  static Staged Stage(const std::shared_ptr<Library>& library, const std::string& branch, const Files& files) {
    Staged staged{Must(library->Begin("import")), {}};
    std::map<std::string, Entry> entries;
    for (const auto& [name, bytes] : files) {
      Entry& entry = entries[name];
      entry.mode = 0644;
      Must(staged.transaction->contents().Put(bytes, [&entry](const ObjectId& id, uint64_t size) {
        entry.id = id;
        entry.size = size;
      }));
    }
    Must(staged.transaction->contents().Flush());
    TreeWriter tree(*staged.transaction);
    Entry root;
    root.type = FileType::kDirectory;
    root.mode = 0755;
    Must(tree.Add("", root));
    for (const auto& [name, entry] : entries) Must(tree.Add(name, entry));
    staged.version.manifest.root = Must(tree.Finish());
    staged.version.manifest.branch = branch;
    return staged;
  }
};

TEST_F(GcTest, WhatNoRefNamesGoesAndHistoryStays) {
  const auto first = Must(Publish(library_, "debian", {{"a", Noise(1, 300'000)}, {"b", Noise(2, 300'000)}}));
  const auto second = Must(Publish(library_, "debian", {{"b", Noise(2, 300'000)}, {"c", Noise(3, 1000)}}));
  EXPECT_EQ(Packs(), 4U);
  GcReport none = Collect();
  EXPECT_EQ(none.dead_objects + none.dead_chunks + none.packs_condemned + none.packs_deleted, 0U);
  const uint64_t sequence = library_->snapshot()->sequence();
  EXPECT_EQ(Collect().dead_objects, 0U);
  EXPECT_EQ(library_->snapshot()->sequence(), sequence) << "a collection of nothing leaves no record";

  DeleteTag("debian", "v1");
  GcOptions dry = Quick();
  dry.dry_run = true;
  const GcReport would = Collect(dry);
  EXPECT_EQ(Packs(), 4U);
  const GcReport report = Collect();
  EXPECT_GT(report.dead_chunks, 10U);
  EXPECT_GE(report.dead_objects, 2U);  // the directory and the list of "a"
  EXPECT_EQ(report.versions_kept, 1U);
  EXPECT_EQ(would.dead_chunks, report.dead_chunks);
  EXPECT_EQ(would.dead_objects, report.dead_objects);
  EXPECT_EQ(would.live_objects, report.live_objects);
  EXPECT_EQ(would.packs_deleted, report.packs_deleted);
  EXPECT_EQ(would.freed_bytes, report.freed_bytes);

  EXPECT_EQ(Read(library_, second.manifest, "b"), Noise(2, 300'000));
  Must(ReadManifest(*library_->snapshot(), first.manifest));  // for `log`
  const auto gone = CheckContents(*library_->snapshot(), first.manifest);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, ENOENT);
  EXPECT_NE(gone.error().message.find("removed by gc"), std::string::npos) << gone.error().message;
  const auto tagged = library_->MoveRefs("tag", {{"debian/again", ObjectId(), first.manifest}});
  ASSERT_FALSE(tagged);
  EXPECT_EQ(tagged.error().code, ENOENT);
  const auto leased = library_->Lease(first.manifest);
  ASSERT_FALSE(leased);
  EXPECT_EQ(leased.error().code, ENOENT);
  ExpectSound();
  // What is gone can come again.
  const auto third = Must(Publish(library_, "debian", {{"a", Noise(1, 300'000)}}));
  EXPECT_EQ(Read(library_, third.manifest, "a"), Noise(1, 300'000));
  ExpectSound();
}

TEST_F(GcTest, PacksWithNothingLiveAreDeleted) {
  Must(Publish(library_, "debian", {{"a", Noise(1, 300'000)}}));
  Must(Publish(library_, "debian", {{"c", Noise(3, 1000)}}));
  EXPECT_EQ(Packs(), 4U);
  DeleteTag("debian", "v1");
  const GcReport report = Collect();
  EXPECT_EQ(report.packs_condemned, 1U);  // the metadata of v1 holds its manifest, which stays
  EXPECT_EQ(report.packs_deleted, 1U);
  EXPECT_GT(report.freed_bytes, 300'000U);
  EXPECT_EQ(Packs(), 3U);
  EXPECT_TRUE(Must(library_->snapshot()->database().Condemned()).size() <= 1);
  Must(library_->Refresh());
  ExpectSound();
  const auto again = Must(Library::Open(path(), {}));
  EXPECT_TRUE(Must(again->snapshot()->database().Condemned()).empty());
  EXPECT_EQ(again->snapshot()->generation(), 1U);
}

TEST_F(GcTest, GarbageOfACrashIsCollected) {
  Must(Publish(library_, "debian", {{"a", "one"}}));
  {
    // Like a process that died between moving its packs and its rows in.
    auto staged = Stage(library_, "other", {{"x", Noise(7, 100'000)}});
    staged.version.expected_head = std::nullopt;
    Must(staged.transaction->Publish(staged.version));
  }
  const auto head = Must(library_->snapshot()->Branch("other"));
  Must(library_->MoveRefs("branch-delete", {{"other", head->manifest, ObjectId()}, {"other/v1", head->manifest, ObjectId()}}));
  const GcReport report = Collect();
  EXPECT_EQ(report.packs_deleted, 2U);
  EXPECT_EQ(Packs(), 2U);
  ExpectSound();
}

TEST_F(GcTest, ALeaseKeepsAVersionAndASessionKeepsPacks) {
  const auto first = Must(Publish(library_, "debian", {{"a", Noise(1, 300'000)}}));
  Must(Publish(library_, "debian", {{"c", "small"}}));
  const auto reader = Must(Library::Open(path(), {.purpose = "a reader"}));
  std::optional<VersionLease> lease = Must(reader->Lease(first.manifest));
  DeleteTag("debian", "v1");
  EXPECT_EQ(Collect().dead_chunks, 0U);
  EXPECT_EQ(Read(reader, first.manifest, "a"), Noise(1, 300'000));
  lease.reset();

  // The reader has not refreshed: the rows go, the pack stays.
  const GcReport report = Collect();
  EXPECT_GT(report.dead_chunks, 0U);
  EXPECT_EQ(report.packs_deleted, 0U);
  EXPECT_EQ(report.packs_waiting, 1U);
  ASSERT_EQ(report.waited_for.size(), 1U);
  EXPECT_NE(report.waited_for[0].find("a reader"), std::string::npos) << report.waited_for[0];
  EXPECT_EQ(Read(reader, first.manifest, "a"), Noise(1, 300'000));
  ExpectSound();
  Must(reader->Refresh());
  EXPECT_FALSE(CheckContents(*reader->snapshot(), first.manifest));
  const GcReport next = Collect();
  EXPECT_EQ(next.packs_deleted, 1U);
  EXPECT_GT(next.freed_bytes, 300'000U);
  ExpectSound();
}

// The race that the generation is for: a writer has taken a chunk, a list and a directory for stored, and they are condemned
// before it publishes.
TEST_F(GcTest, AWriterThatDeduplicatedAgainstWhatIsCondemnedBringsItBack) {
  const Files old{{"a", Noise(1, 300'000)}, {"same", Noise(4, 5000)}};
  Must(Publish(library_, "debian", old));
  Must(Publish(library_, "debian", {{"c", "small"}}));
  DeleteTag("debian", "v1");
  const auto writer = Must(Library::Open(path(), {}));
  auto staged = Stage(writer, "copy", old);
  EXPECT_LT(staged.transaction->staged_bytes(), 5000U) << "the writer should find everything stored already";

  const GcReport report = Collect();
  EXPECT_GT(report.dead_chunks, 0U);
  EXPECT_EQ(report.packs_deleted, 0U);
  EXPECT_EQ(report.packs_waiting, 1U);
  const auto published = Must(staged.transaction->Publish(staged.version));
  staged.transaction.reset();
  EXPECT_EQ(Read(writer, published.manifest, "a"), old.at("a"));
  EXPECT_EQ(Read(writer, published.manifest, "same"), old.at("same"));
  ExpectSound();
  // Now nobody needs the old pack.
  EXPECT_EQ(Collect().packs_deleted, 1U);
  ExpectSound();
  const auto fresh = Must(Library::Open(path(), {}));
  EXPECT_EQ(Read(fresh, published.manifest, "a"), old.at("a"));
}

// The same, but the version comes into being while the collection looks.
TEST_F(GcTest, ARefMovedWhileItIsMarkedIsMarkedToo) {
  const Files old{{"a", Noise(1, 300'000)}};
  Must(Publish(library_, "debian", old));
  Must(Publish(library_, "debian", {{"c", "small"}}));
  DeleteTag("debian", "v1");
  for (const std::string_view at : {"marked", "looked"}) {
    const auto writer = Must(Library::Open(path(), {}));
    const std::string branch = "copy-" + std::string(at);
    bool done = false;
    GcOptions options = Quick();
    options.at_step = [&](std::string_view step) {
      if (step != at || done) return;
      done = true;
      auto staged = Stage(writer, branch, old);
      Must(staged.transaction->Publish(staged.version));
    };
    const GcReport report = Collect(options);
    EXPECT_EQ(report.dead_chunks, 0U);
    Must(writer->Refresh());
    EXPECT_EQ(Read(writer, Must(writer->snapshot()->Branch(branch))->manifest, "a"), old.at("a"));
    ExpectSound();
  }
}

// Rows that no ref names yet, which came while it looked, name what it found dead.
TEST_F(GcTest, ABusyLibraryIsCollectedUnderTheLockInTheEnd) {
  Must(Publish(library_, "debian", {{"a", Noise(1, 300'000)}}));
  Must(Publish(library_, "debian", {{"c", "small"}}));
  DeleteTag("debian", "v1");
  const auto writer = Must(Library::Open(path(), {}));
  int published = 0;
  GcOptions options = Quick();
  options.at_step = [&](std::string_view step) {
    if (step != "looked" || published == 5) return;
    Must(Publish(writer, "busy", {{"n", std::to_string(published++)}}));
  };
  const GcReport report = Collect(options);
  EXPECT_EQ(published, 5);
  EXPECT_GT(report.dead_chunks, 0U);
  Must(writer->Refresh());
  Collect();
  ExpectSound();
}

TEST_F(GcTest, AReaderThatHasCachedAPlaceFindsTheNewOne) {
  const Files old{{"a", Noise(1, 300'000)}};
  const auto first = Must(Publish(library_, "debian", old));
  // The same version again after its chunks had been collected: they lie elsewhere then.
  const auto reader = Must(Library::Open(path(), {.cache_bytes = 1 << 20}));
  EXPECT_EQ(Read(reader, first.manifest, "a"), old.at("a"));
  Must(Publish(library_, "debian", {{"c", "small"}}));
  DeleteTag("debian", "v1");
  Collect();
  const auto again = Must(Publish(library_, "debian", old));
  Must(reader->Refresh());
  Must(library_->Refresh());
  EXPECT_EQ(Collect().packs_deleted, 1U);
  EXPECT_EQ(Read(reader, again.manifest, "a"), old.at("a"));
}

TEST_F(GcTest, OnlyOneAtATime) {
  Must(Publish(library_, "debian", {{"a", "one"}}));
  GcOptions options = Quick();
  bool refused = false;
  options.at_step = [&](std::string_view) {
    const auto second = CollectGarbage(*library_, Quick());
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, EAGAIN);
    EXPECT_NE(second.error().message.find(std::to_string(::getpid())), std::string::npos) << second.error().message;
    refused = true;
  };
  Collect(options);
  EXPECT_TRUE(refused);
}

TEST_F(GcTest, SomethingLiveThatIsMissingStopsItBeforeAnythingIsRemoved) {
  Must(Publish(library_, "debian", {{"a", "one"}}));
  Must(Publish(library_, "debian", {{"a", "two"}}));
  Must(Env::Default().MakeDirectory(library_->overlays_path() + "/0011", 0700));
  Must(WriteFileAtomically(Env::Default(), library_->overlays_path() + "/0011/overlay.json",
                           fmt::format("{{\"base\": \"{}\"}}", HashBytes("nothing").Hex())));
  DeleteTag("debian", "v1");
  const auto result = CollectGarbage(*library_, Quick());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ENOENT);
  Must(WriteFileAtomically(Env::Default(), library_->overlays_path() + "/0011/overlay.json", "{]"));
  EXPECT_EQ(CollectGarbage(*library_, Quick()).error().code, EIO);
  Must(Env::Default().Unlink(library_->overlays_path() + "/0011/overlay.json"));
  EXPECT_GT(Collect().dead_chunks, 0U);
}

TEST_F(GcTest, AnOverlaysBaseIsKept) {
  const auto first = Must(Publish(library_, "debian", {{"a", Noise(1, 300'000)}}));
  Must(Publish(library_, "debian", {{"a", "two"}}));
  Must(Env::Default().MakeDirectory(library_->overlays_path() + "/0011", 0700));
  Must(WriteFileAtomically(Env::Default(), library_->overlays_path() + "/0011/overlay.json",
                           fmt::format("{{\"base\": \"{}\"}}", first.manifest.Hex())));
  DeleteTag("debian", "v1");
  EXPECT_EQ(Collect().dead_chunks, 0U);
  EXPECT_EQ(Read(library_, first.manifest, "a"), Noise(1, 300'000));
}

TEST_F(GcTest, RetentionDeletesTagsFirst) {
  for (int i = 1; i <= 6; ++i) Must(Publish(library_, "debian", {{"a", Noise(static_cast<uint32_t>(i), 50'000)}}, i == 2 ? "golden-2" : ""));
  Must(Publish(library_, "other", {{"a", "other"}}));
  Must(Publish(library_, "other", {{"a", "other two"}}));
  GcOptions options = Quick();
  options.branch = "debian";
  options.retention.last = 2;
  options.retention.tags = {"golden-*"};
  options.dry_run = true;
  const GcReport would = Collect(options);
  options.dry_run = false;
  const GcReport report = Collect(options);
  EXPECT_EQ(report.tags_deleted, (std::vector<std::string>{"debian/v1", "debian/v2", "debian/v3"}));
  EXPECT_EQ(would.tags_deleted, report.tags_deleted);
  EXPECT_EQ(would.dead_chunks, report.dead_chunks);
  EXPECT_EQ(would.dead_objects, report.dead_objects);
  EXPECT_EQ(would.freed_bytes, report.freed_bytes);
  EXPECT_EQ(report.versions_kept, 5U);
  EXPECT_EQ(Must(library_->snapshot()->Tags("debian")).size(), 3U);
  EXPECT_EQ(Must(library_->snapshot()->Tags("other")).size(), 2U);
  ExpectSound();
  options.branch = "nothing";
  EXPECT_EQ(CollectGarbage(*library_, options).error().code, ENOENT);
}

TEST_F(GcTest, CompactionMovesWhatLivesOutOfHalfDeadPacks) {
  const Files keep{{"keep", Noise(2, 100'000)}, {"text", std::string(200'000, 'x') + Noise(8, 100)}};
  Files both = keep;
  both["drop"] = Noise(1, 500'000);
  Must(Publish(library_, "debian", both));
  for (int i = 0; i < 5; ++i) Must(Publish(library_, "small", {{"n", Noise(static_cast<uint32_t>(100 + i), 2000)}}));
  const auto kept = Must(Publish(library_, "debian", keep));
  DeleteTag("debian", "v1");
  const auto reader = Must(Library::Open(path(), {.cache_bytes = 1 << 20}));
  EXPECT_EQ(Read(reader, kept.manifest, "keep"), keep.at("keep"));
  const size_t packs = Packs();
  GcOptions options = Quick();
  options.compact = true;
  options.dry_run = true;
  const GcReport would = Collect(options);
  EXPECT_EQ(Packs(), packs);
  options.dry_run = false;
  const GcReport report = Collect(options);
  EXPECT_EQ(would.packs_rewritten, report.packs_rewritten);
  EXPECT_EQ(would.rewritten_bytes, report.rewritten_bytes);
  EXPECT_EQ(would.dead_chunks, report.dead_chunks);
  EXPECT_LT(report.written_bytes + 400'000, report.rewritten_bytes);
  ExpectSound();
  // The reader's places are the old ones, and still good; refreshed, it finds the new ones.
  EXPECT_GT(report.packs_waiting, 0U);
  EXPECT_EQ(Read(reader, kept.manifest, "text"), keep.at("text"));
  Must(reader->Refresh());
  GcReport next = Collect();
  EXPECT_EQ(next.packs_deleted, report.packs_waiting);
  EXPECT_EQ(Packs(), 2U);
  EXPECT_EQ(Read(reader, kept.manifest, "keep"), keep.at("keep"));
  ExpectSound();
  // What was rewritten is not rewritten again.
  Must(library_->Refresh());
  options.dry_run = true;
  EXPECT_EQ(Collect(options).packs_rewritten, 0U);
}

TEST_F(GcTest, AChunkRevivedWhileItsPackIsRewrittenIsNotLost) {
  const Files old{{"a", Noise(1, 300'000)}}, keep{{"keep", Noise(2, 100'000)}};
  Files both = old;
  both.insert(keep.begin(), keep.end());
  Must(Publish(library_, "debian", both));
  Must(Publish(library_, "debian", keep));
  DeleteTag("debian", "v1");
  const auto writer = Must(Library::Open(path(), {}));
  auto staged = Stage(writer, "copy", old);
  std::optional<Published> published;
  GcOptions options = Quick();
  options.compact = true;
  options.at_step = [&](std::string_view step) {
    if (step == "rewritten" && !published) published = Must(staged.transaction->Publish(staged.version));
  };
  Collect(options);
  ASSERT_TRUE(published);
  staged.transaction.reset();
  EXPECT_EQ(Read(writer, published->manifest, "a"), old.at("a"));
  ExpectSound();
  Collect(options);
  ExpectSound();
  const auto fresh = Must(Library::Open(path(), {}));
  EXPECT_EQ(Read(fresh, published->manifest, "a"), old.at("a"));
}

// The mark is exact whatever its memory: with next to none everything is spilled and merged.
TEST_F(GcTest, MemoryIsBoundedAndScratchIsAsStated) {
  Files files;
  for (int i = 0; i < 3000; ++i) files[fmt::format("file-{}", i)] = fmt::format("content {}", i);
  files["large"] = Noise(5, 4 << 20);
  Must(Publish(library_, "debian", files));
  const auto measure = [&](size_t memory_bytes) {
    TemporaryDirectory directory;
    RecordScratch scratch(Env::Default(), directory.path(), memory_bytes);
    Marker marker(scratch);
    Must(marker.Add(*library_->snapshot(), {Must(library_->snapshot()->Branch("debian"))->manifest}));
    EXPECT_LE(scratch.used_bytes, memory_bytes);
    return std::pair(marker.live().count(), scratch.most_file_bytes);
  };
  const auto [in_memory, no_disk] = measure(32 << 20);
  const auto [on_disk, bytes] = measure(4096);
  EXPECT_EQ(in_memory, on_disk);
  EXPECT_EQ(no_disk, 0U);
  EXPECT_GT(bytes, on_disk * kIdKeyBytes / 2);
  // Twice for what is being merged, and once more for what was named and is not yet sorted.
  EXPECT_LE(bytes, on_disk * kIdKeyBytes * 3);
}

// One process publishes what it published before, one collects, one reads; whatever order it takes, nothing is lost.
TEST_F(GcTest, AtRandomBesideProcesses) {
  const char* given = std::getenv("MIRAGE_SEED");
  const uint32_t seed = given != nullptr ? static_cast<uint32_t>(std::stoul(given)) : std::random_device{}();
  SCOPED_TRACE(fmt::format("MIRAGE_SEED={}", seed));
  constexpr int kRounds = 12, kWriters = 2;
  Must(Publish(library_, "base", {{"a", "one"}}));
  std::vector<pid_t> writers;
  for (int writer = 0; writer < kWriters; ++writer) {
    const pid_t pid = ::fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      try {
        std::mt19937 random(seed + static_cast<uint32_t>(writer));
        const auto library = Must(Library::Open(path(), {}));
        const std::string branch = fmt::format("w{}", writer);
        for (int round = 0; round < kRounds; ++round) {
          // From a few contents, so that what was collected is wanted again.
          Files files;
          for (int i = 0; i < 4; ++i) files[fmt::format("f{}", i)] = Noise(static_cast<uint32_t>(random() % 12), 20'000);
          const auto published = Must(Publish(library, branch, files));
          for (const auto& [name, bytes] : files) {
            if (Read(library, published.manifest, name) != bytes) ::_exit(2);
          }
          // Only the newest version stays, so that the next collection has something to do.
          const auto tags = Must(library->snapshot()->Tags(branch));
          for (const auto& [tag, ref] : tags) {
            if (ref.manifest != published.manifest) Must(library->MoveRefs("tag", {{branch + "/" + tag, ref.manifest, ObjectId()}}));
          }
        }
      } catch (const std::exception& error) {
        std::fprintf(stderr, "writer: %s\n", error.what());
        ::_exit(3);
      }
      ::_exit(0);
    }
    writers.push_back(pid);
  }
  uint64_t collected = 0, deleted = 0;
  size_t running = writers.size();
  for (bool compact = false; running > 0; compact = !compact) {
    GcOptions options = Quick();
    options.compact = compact;
    options.compact_level = 5;
    const GcReport report = Collect(options);
    collected += report.dead_chunks;
    deleted += report.packs_deleted;
    int status = 0;
    while (running > 0 && ::waitpid(-1, &status, WNOHANG) > 0) {
      --running;
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "a writer failed; see its words above";
    }
  }
  Must(library_->Refresh());
  const GcReport last = Collect();
  EXPECT_GT(collected + last.dead_chunks, 0U);
  EXPECT_GT(deleted + last.packs_deleted, 0U);
  ExpectSound();
}

}  // namespace
}  // namespace mirage
