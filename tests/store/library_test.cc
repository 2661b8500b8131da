// Libraries: made, opened, published to; refs and their compare-and-swap; what is refused.
#include "store/library.h"

#include <fstream>
#include <thread>

#include "store/content_splitter.h"
#include "store/fsck.h"
#include "store/revision.h"
#include "tests/testing/memory_store.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::LibraryTest;
using testing::Must;

std::string ReadFile(const std::shared_ptr<Library>& library, const ObjectId& manifest_id, const std::string& path) {
  const Manifest manifest = Must(ReadManifest(*library->snapshot(), manifest_id));
  const TreeReader reader(library);
  const Entry entry = Must(reader.Find(manifest.root, path));
  std::string bytes;
  Must(reader.Read(entry, 0, entry.size, &bytes));
  return bytes;
}

void ExpectSound(Library& library) {
  const auto report = Must(Fsck(
      library, [](const FsckFinding& f) { ADD_FAILURE() << f.version << " " << f.path << ": " << f.what; }, {}));
  EXPECT_EQ(report.damaged, 0U);
}

TEST_F(LibraryTest, PublishesAndReadsBack) {
  const auto first = Must(Publish(library_, "debian", {{"a", "one"}, {"b", std::string(1 << 20, 'x')}}));
  EXPECT_EQ(first.tag, "v1");
  const auto second = Must(Publish(library_, "debian", {{"a", "two"}, {"b", std::string(1 << 20, 'x')}}));
  EXPECT_EQ(second.tag, "v2");
  EXPECT_EQ(ReadFile(library_, first.manifest, "a"), "one");
  EXPECT_EQ(ReadFile(library_, second.manifest, "a"), "two");
  EXPECT_EQ(ReadFile(library_, second.manifest, "b"), std::string(1 << 20, 'x'));
  ExpectSound(*library_);

  // Another process would see the same.
  const auto other = Must(Library::Open(path(), {}));
  EXPECT_EQ(Must(other->snapshot()->Branch("debian"))->manifest, second.manifest);
  EXPECT_EQ(Must(other->snapshot()->LatestTag("debian")), "v2");
  EXPECT_EQ(ReadFile(other, first.manifest, "a"), "one");
}

TEST_F(LibraryTest, ReaderSeesNewVersionsAfterRefreshOnly) {
  const auto reader = Must(Library::Open(path(), {}));
  const auto before = reader->snapshot();
  Must(Publish(library_, "debian", {{"a", "one"}}));
  EXPECT_FALSE(Must(reader->snapshot()->Branch("debian")));
  EXPECT_TRUE(reader->LogHasGrown());
  EXPECT_TRUE(Must(reader->Refresh()));
  EXPECT_TRUE(Must(reader->snapshot()->Branch("debian")));
  EXPECT_FALSE(Must(before->Branch("debian")));
  EXPECT_FALSE(Must(reader->Refresh()));
}

TEST_F(LibraryTest, LosingARaceOnARefIsReported) {
  Must(Publish(library_, "debian", {{"a", "one"}}));
  const auto other = Must(Library::Open(path(), {}));
  const auto head = Must(library_->snapshot()->Branch("debian"))->manifest;
  Must(Publish(other, "debian", {{"a", "two"}}));

  const auto late = Must(library_->Begin("import"));
  NewVersion version;
  version.manifest = Must(ReadManifest(*library_->snapshot(), head));
  version.expected_head = head;
  const auto result = late->Publish(version);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, EAGAIN);
  // The same transaction goes through against the head as it is.
  version.expected_head = Must(other->snapshot()->Branch("debian"))->manifest;
  EXPECT_EQ(Must(late->Publish(version)).tag, "v3");
}

TEST_F(LibraryTest, ATakenTagIsRefusedAndANumberIsNeverGivenTwice) {
  Must(Publish(library_, "debian", {{"a", "one"}}, "v7"));
  const auto taken = Publish(library_, "debian", {{"a", "two"}}, "v7");
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, EEXIST);
  const auto next = Must(Publish(library_, "debian", {{"a", "two"}}));
  EXPECT_EQ(next.tag, "v8");
  Must(Publish(library_, "debian", {{"a", "three"}}, "golden"));
  Must(library_->MoveRefs("tag", {{"debian/v8", next.manifest, ObjectId()}}));
  EXPECT_FALSE(Must(library_->snapshot()->Tag("debian", "v8")));
  EXPECT_EQ(Must(Publish(library_, "debian", {{"a", "four"}})).tag, "v9");
}

TEST_F(LibraryTest, RefsMoveTogetherOrNotAtAll) {
  const auto first = Must(Publish(library_, "debian", {{"a", "one"}}));
  const auto result = library_->MoveRefs(
      "branch", {{"copy", ObjectId(), first.manifest}, {"debian", HashBytes("elsewhere"), first.manifest}});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, EAGAIN);
  EXPECT_FALSE(Must(library_->snapshot()->Branch("copy")));
}

TEST_F(LibraryTest, AnAbandonedTransactionLeavesNothing) {
  {
    const auto transaction = Must(library_->Begin("import"));
    Must(transaction->contents().Put("bytes", [](const ObjectId&, uint64_t) {}));
    Must(transaction->contents().Flush());
  }
  EXPECT_TRUE(Must(Env::Default().List(library_->staging_path())).empty());
  EXPECT_TRUE(Must(Env::Default().List(library_->packs_path())).empty());
}

TEST_F(LibraryTest, StagingOfADeadProcessIsSwept) {
  Must(Env::Default().MakeDirectory(library_->staging_path() + "/00", 0700));
  std::ofstream(library_->staging_path() + "/00/junk") << "x";
  const auto alive = Must(library_->Begin("import"));
  const auto second = Must(library_->Begin("import"));
  EXPECT_EQ(Must(Env::Default().List(library_->staging_path())).size(), 2U);
}

TEST_F(LibraryTest, RefsSurviveWithoutTheDatabaseHavingCaughtUp) {
  const auto version = Must(Publish(library_, "debian", {{"a", "one"}}));
  for (int i = 0; i < 200; ++i) {
    Must(library_->MoveRefs("tag", {{fmt::format("debian/t{}", i), ObjectId(), version.manifest}}));
  }
  Must(Publish(library_, "debian", {{"a", "two"}}));  // catches up
  const auto other = Must(Library::Open(path(), {}));
  EXPECT_EQ(Must(other->snapshot()->Tags("debian")).size(), 202U);
  EXPECT_EQ(other->snapshot()->sequence(), 202U);
  ExpectSound(*other);
}

TEST_F(LibraryTest, AnUncommittedRecordIsCutOff) {
  Must(Publish(library_, "debian", {{"a", "one"}}));
  {
    std::ofstream log(path() + "/refs.log", std::ios::app | std::ios::binary);
    log << "2\t17.000000000\tsomebo";
  }
  const auto other = Must(Library::Open(path(), {}));
  EXPECT_EQ(other->snapshot()->sequence(), 1U);
  EXPECT_EQ(Must(Publish(other, "debian", {{"a", "two"}})).tag, "v2");
  EXPECT_EQ(Must(Library::Open(path(), {}))->snapshot()->sequence(), 2U);
}

TEST_F(LibraryTest, DamageInsideTheLogIsNeverARollback) {
  for (const char* text : {"one", "two", "three"}) Must(Publish(library_, "debian", {{"a", text}}));
  std::fstream log(path() + "/refs.log", std::ios::in | std::ios::out | std::ios::binary);
  std::string all((std::istreambuf_iterator<char>(log)), {});
  const size_t second = all.find("\n2\t") + 10;
  log.clear();
  log.seekp(static_cast<std::streamoff>(second));
  log.put(static_cast<char>(all[second] ^ 1));
  log.close();
  const auto result = Library::Open(path(), {});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, EIO);
}

TEST_F(LibraryTest, RefusesWhatIsNoLibraryOrANewerOne) {
  EXPECT_EQ(Library::Open(path() + "-missing", {}).error().code, ENOENT);
  EXPECT_EQ(Library::Create(path(), {}).error().code, EEXIST);
  std::string text = Must(ReadWholeFile(Env::Default(), path() + "/FORMAT", 1 << 16));
  const std::string original = text;
  text.replace(text.find("version: 1"), 10, "version: 9");
  text.resize(text.rfind("checksum: "));
  text += "checksum: " + HashBytes(text).Hex() + "\n";
  Must(WriteFileAtomically(Env::Default(), path() + "/FORMAT", text));
  EXPECT_EQ(Library::Open(path(), {}).error().code, EPROTONOSUPPORT);
  text = original;
  text[text.find("uuid") + 8] ^= 1;
  Must(WriteFileAtomically(Env::Default(), path() + "/FORMAT", text));
  EXPECT_EQ(Library::Open(path(), {}).error().code, EIO);
}

TEST_F(LibraryTest, APolicyThatCannotBeReadIsAnErrorAndAMissingOneIsNot) {
  Must(WriteFileAtomically(Env::Default(), path() + "/mirage.yaml", "compression_level: [\n"));
  EXPECT_EQ(Library::Open(path(), {}).error().code, EINVAL);
  Must(WriteFileAtomically(Env::Default(), path() + "/mirage.yaml", "exclude: [/tmp/*]\ncompression_level: 9\n"));
  EXPECT_EQ(Must(Library::Open(path(), {}))->policy().exclude, std::vector<std::string>{"/tmp/*"});
  Must(WriteFileAtomically(Env::Default(), path() + "/mirage.yaml", "compresion_level: 9\n"));
  EXPECT_NE(Library::Open(path(), {}).error().message.find("compresion_level"), std::string::npos);
  Must(Env::Default().Unlink(path() + "/mirage.yaml"));
  EXPECT_EQ(Must(Library::Open(path(), {}))->policy().compression_level, 2);
}

TEST_F(LibraryTest, AWriterThatWaitsInVainNamesTheHolder) {
  const auto held = Must(FileLock::Acquire(Env::Default(), path() + "/locks/publish", LockMode::kExclusive, 0, "a long test"));
  const auto result = Library::Open(path(), {.lock_timeout_ms = 50});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, EAGAIN);
  EXPECT_NE(result.error().message.find(std::to_string(::getpid())), std::string::npos) << result.error().message;
  EXPECT_NE(result.error().message.find("a long test"), std::string::npos) << result.error().message;
}

TEST_F(LibraryTest, FsckFindsAFlippedByteAndNamesThePath) {
  std::string noise(100'000, '\0');
  uint32_t state = 7;
  for (char& c : noise) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  Must(Publish(library_, "debian", {{"a", "one"}, {"noise", noise}}));
  for (const std::string& name : Must(Env::Default().List(library_->packs_path()))) {
    const auto file = Must(Env::Default().Open(library_->packs_path() + "/" + name, OpenMode::kReadWrite));
    const uint64_t size = Must(file->Size());
    if (size < 50'000) continue;
    std::string byte;
    Must(file->ReadAt(size / 2, 1, &byte));
    byte[0] ^= 0x10;
    Must(file->WriteAt(size / 2, byte));
  }
  const auto fresh = Must(Library::Open(path(), {}));
  bool named = false;
  const auto report =
      Must(Fsck(*fresh, [&](const FsckFinding& f) { named |= f.path == "/noise" && f.version == "debian/v1"; }, {}));
  EXPECT_GT(report.damaged, 0U);
  EXPECT_TRUE(named);
}

TEST_F(LibraryTest, RevisionsResolve) {
  const auto first = Must(Publish(library_, "debian", {{"a", "one"}}));
  const auto second = Must(Publish(library_, "debian", {{"a", "two"}}));
  const auto snapshot = library_->snapshot();
  EXPECT_EQ(Must(ResolveVersion(*snapshot, "debian")).id, second.manifest);
  EXPECT_EQ(Must(ResolveVersion(*snapshot, "debian/v1")).id, first.manifest);
  EXPECT_EQ(Must(ResolveVersion(*snapshot, "debian~1")).id, first.manifest);
  EXPECT_EQ(Must(ResolveVersion(*snapshot, "@" + first.manifest.Hex().substr(0, 10))).id, first.manifest);
  EXPECT_EQ(*Must(ResolveVersionPath(*snapshot, "debian/v1:/etc//passwd")).path, "/etc/passwd");
  EXPECT_EQ(ResolveVersion(*snapshot, "debian~2").error().code, ENOENT);
  EXPECT_EQ(ResolveVersion(*snapshot, "rhel").error().code, ENOENT);
}

// Names on either side of a slash, in refs.log alone and in the database (which follows in steps of 64 records).
TEST_F(LibraryTest, BranchesAreFoundAmongManyTags) {
  const std::vector<std::string> names = {"a", "a-b", "a.b", "a0", "ab", "b"};
  for (const std::string& name : names) Must(Publish(library_, name, {{"file", name}}));
  for (int i = 0; i < 70; ++i) {
    const ObjectId head = Must(library_->snapshot()->Branch("a")).value().manifest;
    Must(library_->MoveRefs("tag", {{fmt::format("a/tag-{}", i), ObjectId(), head}}));
  }
  Must(Publish(library_, "late", {{"file", "late"}}));
  Must(library_->MoveRefs("branch", {{"b", Must(library_->snapshot()->Branch("b")).value().manifest, ObjectId()}}));
  std::vector<std::string> found;
  for (const auto& [name, head] : Must(library_->snapshot()->Branches())) found.push_back(name);
  EXPECT_EQ(found, (std::vector<std::string>{"a", "a-b", "a.b", "a0", "ab", "late"}));
  EXPECT_EQ(Must(library_->snapshot()->database().Branches()).size(), 6U);
}

TEST_F(LibraryTest, AContentTheLibraryHasIsNotCutAgain) {
  const std::string many_chunks = testing::RandomBytes(500'000, 1), one_chunk = testing::RandomBytes(3'000, 2);
  Must(Publish(library_, "debian", {{"long", many_chunks}, {"short", one_chunk}}));
  const auto transaction = Must(library_->Begin("again"));
  std::map<ObjectId, uint64_t> sizes;
  const auto done = [&](const ObjectId& id, uint64_t size) { sizes[id] = size; };
  Must(transaction->contents().Put(many_chunks, done));
  Must(transaction->contents().Put(one_chunk, done));
  Must(transaction->contents().Flush());
  EXPECT_EQ(sizes, (std::map<ObjectId, uint64_t>{{HashBytes(many_chunks), 500'000}, {HashBytes(one_chunk), 3'000}}));
  EXPECT_EQ(transaction->contents().statistics().chunks, 0U);
  EXPECT_EQ(transaction->contents().statistics().bytes_in, 503'000U);
  EXPECT_EQ(transaction->staged_bytes(), 0U);
}

// As after a repair that found a list but not its chunks.
TEST_F(LibraryTest, AContentWithAMissingChunkIsCutAgainAndHealed) {
  const std::string bytes = testing::RandomBytes(500'000, 3);
  const ObjectId content = HashBytes(bytes);
  std::vector<Piece> pieces;
  SplitContent(Chunker(library_->format().chunking), bytes, 0, true, &pieces);
  ContentNode node;
  for (const Piece& piece : pieces) node.segments.push_back({piece.length, HashBytes(bytes.substr(piece.offset, piece.length))});
  const auto publish = [&](const std::string& branch, bool with_chunks) {
    const auto transaction = Must(library_->Begin("test"));
    Must(transaction->WriteContentList(content, EncodeContentNode(node)));
    if (with_chunks) {
      Must(transaction->contents().Put(bytes, {}));
      Must(transaction->contents().Flush());
      EXPECT_EQ(transaction->contents().statistics().new_chunks, pieces.size());
    }
    TreeWriter tree(*transaction);
    Entry root;
    root.type = FileType::kDirectory;
    root.mode = 0755;
    Must(tree.Add("", root));
    NewVersion version;
    version.manifest.root = Must(tree.Finish());
    version.manifest.branch = branch;
    Must(transaction->Publish(std::move(version)));
  };
  publish("damaged", false);
  std::string out;
  EXPECT_EQ(library_->contents().Read(content, bytes.size(), 0, bytes.size(), &out).error().code, EIO);
  publish("healed", true);
  Must(library_->contents().Read(content, bytes.size(), 0, bytes.size(), &out));
  EXPECT_TRUE(out == bytes);
}

}  // namespace
}  // namespace mirage
