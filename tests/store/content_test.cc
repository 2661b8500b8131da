// Contents: written through the pipeline, read back at any place.
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <thread>

#include "tests/testing/memory_store.h"

namespace mirage {
namespace {

using testing::MemoryStore;
using testing::Must;
using testing::RandomBytes;

ContentWriter::Options TwoThreads() {
  ContentWriter::Options options;
  options.threads = 2;
  return options;
}

struct Written {
  ObjectId id;
  uint64_t size = 0;
};

class ContentTest : public ::testing::Test {
 protected:
  Written Put(std::string bytes) {
    Written written;
    Must(writer_.Put(std::move(bytes), Into(&written)));
    Must(writer_.Flush());
    return written;
  }
  static ContentWriter::Done Into(Written* written) {
    return [written](const ObjectId& id, uint64_t size) { *written = {id, size}; };
  }
  std::string Read(const Written& content, uint64_t offset, size_t length) {
    std::string bytes;
    Must(reader_.Read(content.id, content.size, offset, length, &bytes));
    return bytes;
  }
  void ExpectRoundTrip(const std::string& bytes) {
    const Written content = Put(bytes);
    EXPECT_EQ(content.id, HashBytes(bytes));
    EXPECT_EQ(content.size, bytes.size());
    EXPECT_TRUE(Read(content, 0, bytes.size() + 1) == bytes);
  }

  MemoryStore store_;
  ContentWriter writer_{store_, store_, TwoThreads()};
  ContentReader reader_{store_, store_.chunks()};
};

std::string SparseBytes() {
  std::string bytes;
  for (uint64_t i = 0; i < 40; ++i) {
    bytes += RandomBytes(1000 + i * 3000, i);
    bytes.append(500 + i * 2500, '\0');
  }
  return bytes;
}

TEST_F(ContentTest, RoundTrips) {
  ExpectRoundTrip("");
  ExpectRoundTrip("x");
  ExpectRoundTrip(RandomBytes(4096, 1));
  ExpectRoundTrip(std::string(4095, '\0'));
  ExpectRoundTrip(std::string(4096, '\0'));
  ExpectRoundTrip(std::string(1'000'001, '\0'));
  ExpectRoundTrip(std::string(300'000, 'x'));
  ExpectRoundTrip(RandomBytes(1'000'000, 2));
  ExpectRoundTrip(RandomBytes(9'000'000, 3));
  ExpectRoundTrip(SparseBytes());
}

TEST_F(ContentTest, NothingAndOneChunkHaveNoList) {
  EXPECT_EQ(Put("").id, kEmptyContentId);
  EXPECT_TRUE(store_.index.empty());
  Put("hello");
  EXPECT_EQ(store_.index.size(), 1U);
  EXPECT_TRUE(store_.objects.empty());
  Put(std::string(4096, '\0'));
  EXPECT_EQ(store_.index.size(), 1U);
  EXPECT_EQ(store_.objects.size(), 1U);
}

TEST_F(ContentTest, ReadsAtAnyPlace) {
  const std::string bytes = SparseBytes();
  const Written content = Put(bytes);
  const std::string random = RandomBytes(8 * 500, 5);
  for (size_t i = 0; i < 500; ++i) {
    uint32_t numbers[2];
    std::memcpy(numbers, random.data() + 8 * i, sizeof numbers);
    const size_t offset = numbers[0] % bytes.size(), length = numbers[1] % 200'000;
    ASSERT_TRUE(Read(content, offset, length) == bytes.substr(offset, length)) << offset << " " << length;
  }
  EXPECT_EQ(Read(content, bytes.size(), 10), "");
  EXPECT_EQ(Read(content, ~uint64_t{0}, 10), "");
  std::string appended = "before";
  Must(reader_.Read(content.id, content.size, 0, 3, &appended));
  EXPECT_EQ(appended, "before" + bytes.substr(0, 3));
}

TEST_F(ContentTest, SegmentsTellHolesFromData) {
  std::string bytes = RandomBytes(10'000, 1);
  bytes.resize(12'288, 'x');
  bytes.append(40'960, '\0');
  bytes += "end";
  const Written content = Put(bytes);
  uint64_t at = 100, holes = 0;
  Must(reader_.VisitSegments(content.id, content.size, at, [&](uint64_t offset, uint64_t length, bool hole) {
    EXPECT_EQ(offset, at);
    at += length;
    if (hole) {
      EXPECT_EQ(offset, 12'288U);
      holes += length;
    }
    return true;
  }));
  EXPECT_EQ(at, bytes.size());
  EXPECT_EQ(holes, 40'960U);
}

TEST_F(ContentTest, AStreamGivesWhatAPutGives) {
  const std::string bytes = SparseBytes();
  const Written put = Put(bytes);
  const auto objects = store_.objects;
  for (const size_t step : {777U, 65536U, 5'000'000U}) {
    Written streamed;
    Must(writer_.Begin(Into(&streamed)));
    for (size_t at = 0; at < bytes.size(); at += step) Must(writer_.Append(std::string_view(bytes).substr(at, step)));
    Must(writer_.End());
    Must(writer_.Flush());
    EXPECT_EQ(streamed.id, put.id);
    EXPECT_EQ(streamed.size, put.size);
  }
  EXPECT_EQ(store_.objects, objects) << "the same list, however the bytes came";
}

TEST_F(ContentTest, ZerosInAStreamAreLikeZeroBytes) {
  const std::string head = RandomBytes(5000, 1), tail = RandomBytes(3'000'000, 2);
  const std::string bytes = head + std::string(100'000, '\0') + tail + std::string(5'000, '\0');
  const Written put = Put(bytes);
  const auto objects = store_.objects;
  Written streamed;
  Must(writer_.Begin(Into(&streamed)));
  Must(writer_.Append(head));
  Must(writer_.AppendZeros(50'000));
  Must(writer_.AppendZeros(0));
  Must(writer_.AppendZeros(50'000));
  Must(writer_.Append(tail));
  Must(writer_.AppendZeros(5'000));
  Must(writer_.End());
  Must(writer_.Flush());
  EXPECT_EQ(streamed.id, put.id);
  EXPECT_EQ(store_.objects, objects);
}

TEST_F(ContentTest, HugeHolesTakeNoRoom) {
  const uint64_t hole = uint64_t{200} << 20;
  Written content;
  Must(writer_.Begin(Into(&content)));
  Must(writer_.AppendZeros(hole));
  Must(writer_.Append("end"));
  Must(writer_.End());
  Must(writer_.Flush());
  EXPECT_EQ(content.size, hole + 3);
  EXPECT_EQ(Read(content, hole - 2, 100), std::string("\0\0end", 5));
  EXPECT_LT(store_.pack().size_bytes(), 1000U);
}

TEST_F(ContentTest, LongListsAreCutIntoNodes) {
  // Sparse, so that 6,000 segments take little time; the blocks differ.
  std::string bytes(24 << 20, '\0');
  for (size_t at = 0; at < bytes.size(); at += 8192) {
    std::memcpy(bytes.data() + at, &at, sizeof at);
    bytes[at + 9] = 1;
  }
  const Written content = Put(bytes);
  EXPECT_GT(store_.objects.size(), 10U);
  for (const auto& [key, encoding] : store_.objects) {
    const ContentNode node = Must(DecodeContentNode(encoding));
    EXPECT_LE(node.segments.size(), 1024U);
  }
  EXPECT_TRUE(Read(content, 0, bytes.size()) == bytes);
  const auto before = store_.objects.size();
  bytes.replace(12 << 20, 5, "hello");
  Put(bytes);
  EXPECT_LE(store_.objects.size(), before + 5) << "a change writes the nodes on its way";
}

TEST_F(ContentTest, EqualChunksAreStoredOnce) {
  const std::string bytes = RandomBytes(2'000'000, 1);
  Must(writer_.Put(bytes, {}));
  Must(writer_.Put(bytes, {}));
  Must(writer_.Put(bytes + "x", {}));
  Must(writer_.Flush());
  const auto first = writer_.statistics();
  EXPECT_EQ(first.bytes_in, 6'000'001U);
  EXPECT_LT(first.new_chunk_bytes, 2'100'000U);
  EXPECT_GT(first.chunks, 2 * first.new_chunks);
  Put(bytes);
  EXPECT_EQ(writer_.statistics().new_chunks, first.new_chunks);
}

TEST_F(ContentTest, OrderIsTheOrderGiven) {
  std::vector<ObjectId> given, done;
  for (uint64_t i = 0; i < 3000; ++i) {
    // Now and then a larger one, that takes its worker longer.
    std::string bytes = RandomBytes(i % 50 == 0 ? 4000 : 1 + i % 700, i + 1) + std::to_string(i);
    given.push_back(HashBytes(bytes));
    Must(writer_.Put(std::move(bytes), [&](const ObjectId& id, uint64_t) { done.push_back(id); }));
  }
  Must(writer_.Flush());
  EXPECT_EQ(done, given);
  EXPECT_EQ(store_.order, given);
}

TEST_F(ContentTest, AnAbortedStreamLeavesNoContent) {
  for (const size_t size : {1000U, 6'000'000U}) {
    Must(writer_.Begin([](const ObjectId&, uint64_t) { ADD_FAILURE() << "it was aborted"; }));
    Must(writer_.Append(RandomBytes(size, 1)));
    Must(writer_.AbortStream());
  }
  Must(writer_.AbortStream());
  ExpectRoundTrip(RandomBytes(6'000'000, 2));
}

TEST_F(ContentTest, CallsOutOfOrderAreRefused) {
  EXPECT_EQ(writer_.Append("x").error().code, EINVAL);
  EXPECT_EQ(writer_.AppendZeros(1).error().code, EINVAL);
  EXPECT_EQ(writer_.End().error().code, EINVAL);
  Must(writer_.Begin({}));
  EXPECT_EQ(writer_.Begin({}).error().code, EINVAL);
  EXPECT_EQ(writer_.Put("x", {}).error().code, EINVAL);
  EXPECT_EQ(writer_.Flush().error().code, EINVAL);
  EXPECT_EQ(writer_.AppendZeros(~uint64_t{0}).error().code, EFBIG);
  Must(writer_.End());
  Must(writer_.Flush());
}

TEST_F(ContentTest, TheFirstErrorStays) {
  store_.blocks_until_failure = 3;
  std::atomic<int> done = 0;
  Status status;
  for (uint64_t i = 0; status && i < 1000; ++i) {
    status = writer_.Put(RandomBytes(200'000, i), [&](const ObjectId&, uint64_t) { ++done; });
  }
  const Status flushed = writer_.Flush();
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().code, ENOSPC);
  const int before = done;
  EXPECT_EQ(writer_.Put("x", [&](const ObjectId&, uint64_t) { ++done; }).error().code, ENOSPC);
  EXPECT_EQ(writer_.Begin({}).error().code, ENOSPC);
  EXPECT_EQ(writer_.Flush().error().code, ENOSPC);
  EXPECT_EQ(done, before);
}

// A sink that takes nothing until it is told to.
class SlowSink final : public ContentWriter::Sink {
 public:
  Result<bool> HasChunk(const ObjectId&) override {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [&] { return open_; });
    return false;
  }
  Status AppendBlock(CompressedBlock) override { return {}; }
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    opened_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
};

TEST(ContentWriterQueue, IsBounded) {
  SlowSink sink;
  MemoryStore store;
  ContentWriter::Options options = TwoThreads();
  options.queue_bytes = 4 << 20;
  ContentWriter writer(sink, store, options);
  std::atomic<int> given = 0;
  std::jthread caller([&] {
    for (uint64_t i = 0; i < 100; ++i, ++given) Must(writer.Put(RandomBytes(256 << 10, i), {}));
    Must(writer.Begin({}));
    Must(writer.Append(RandomBytes(9 << 20, 1000)));
    Must(writer.End());
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LE(given, 16);
  sink.Open();
  caller.join();
  Must(writer.Flush());
  EXPECT_EQ(writer.statistics().bytes_in, (100 * 256 << 10) + (9U << 20));
}

TEST(ContentWriterQueue, AQueueSmallerThanAContentLetsItIn) {
  MemoryStore store;
  ContentWriter::Options options = TwoThreads();
  options.queue_bytes = 1;
  ContentWriter writer(store, store, options);
  for (uint64_t i = 0; i < 20; ++i) Must(writer.Put(RandomBytes(200'000, i), {}));
  Must(writer.Put(RandomBytes(6'000'000, 99), {}));
  Must(writer.Flush());
  EXPECT_EQ(writer.statistics().new_chunk_bytes, 10'000'000U);
}

// Or a Flush would wait for hours, deaf to an interrupt.
TEST(ContentWriterQueue, ZerosWaitForRoomToo) {
  MemoryStore store;
  ContentWriter::Options options = TwoThreads();
  options.queue_bytes = 512 << 10;
  ContentWriter writer(store, store, options);
  constexpr uint64_t kHole = 4 << 20, kHoles = 40;
  Must(writer.Begin({}));
  for (uint64_t i = 0; i < kHoles; ++i) Must(writer.AppendZeros(kHole));
  EXPECT_GE(writer.statistics().bytes_in, (kHoles - 6) * kHole);  // four are in the queue, one out of it
  Must(writer.End());
  Must(writer.Flush());
  EXPECT_EQ(writer.statistics().bytes_in, kHoles * kHole);
}

TEST(ContentWriterQueue, IsAbandonedByTheDestructor) {
  MemoryStore store;
  ContentWriter writer(store, store, TwoThreads());
  for (uint64_t i = 0; i < 100; ++i) Must(writer.Put(RandomBytes(200'000, i), {}));
  Must(writer.Begin({}));
  Must(writer.AppendZeros(uint64_t{1} << 50));  // days of hashing
}

TEST_F(ContentTest, ReadersShareOneDecoding) {
  const std::string bytes = RandomBytes(200'000, 1);
  const Written content = Put(bytes);
  std::vector<std::jthread> readers;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&] {
      for (int n = 0; n < 50; ++n) EXPECT_TRUE(Read(content, 1000, 150'000) == bytes.substr(1000, 150'000));
    });
  }
  readers.clear();
  EXPECT_EQ(store_.chunks().statistics().misses, 1U);
}

TEST_F(ContentTest, WhatLiesBehindTheLastReadIsFoundWithoutTheIndex) {
  std::vector<std::string> bytes;
  std::vector<Written> contents(200);
  for (uint64_t i = 0; i < contents.size(); ++i) {
    bytes.push_back(RandomBytes(2000, i + 1));
    Must(writer_.Put(bytes.back(), Into(&contents[i])));
  }
  Must(writer_.Flush());
  EXPECT_EQ(Read(contents[0], 0, 2000), bytes[0]);
  EXPECT_EQ(Read(contents[100], 0, 2000), bytes[100]);
  store_.index.clear();
  for (size_t i = 1; i < 100; ++i) {  // two readers in turn
    ASSERT_TRUE(Read(contents[i], 0, 2000) == bytes[i]) << i;
    ASSERT_TRUE(Read(contents[i], 500, 100) == bytes[i].substr(500, 100)) << i;
    ASSERT_TRUE(Read(contents[100 + i], 0, 2000) == bytes[100 + i]) << i;
  }
  std::string out;
  for (const size_t elsewhere : {0, 50, 150}) {
    const Status status = reader_.Read(contents[elsewhere].id, 2000, 0, 2000, &out);
    ASSERT_FALSE(status) << elsewhere;
    EXPECT_EQ(status.error().code, ENOENT);
  }
}

TEST(ChunkStoreCache, KeepsItsLimit) {
  MemoryStore store(1 << 20);
  ContentWriter writer(store, store, TwoThreads());
  const std::string bytes = RandomBytes(8 << 20, 1);
  Must(writer.Put(bytes, {}));
  Must(writer.Flush());
  const ContentReader reader(store, store.chunks());
  std::string out;
  Must(reader.Read(HashBytes(bytes), bytes.size(), 0, bytes.size(), &out));
  EXPECT_TRUE(out == bytes);
  EXPECT_LE(store.chunks().statistics().cached_bytes, 1U << 20);
  EXPECT_GT(store.chunks().statistics().cached_bytes, 1U << 19);
}

TEST_F(ContentTest, WhatDoesNotCheckIsNeverRead) {
  const std::string bytes = RandomBytes(200'000, 1);
  const Written content = Put(bytes), small = Put("hello");
  std::string out = "kept";
  const auto code = [&](const Written& c, uint64_t size) {
    const ContentReader fresh(store_, store_.chunks());
    const Status status = fresh.Read(c.id, size, 0, 1 << 20, &out);
    return status ? 0 : status.error().code;
  };
  EXPECT_EQ(code(content, content.size + 1), EIO);
  EXPECT_EQ(code(content, content.size - 1), EIO);
  EXPECT_EQ(code(small, 4), EIO);
  EXPECT_EQ(code({HashBytes("never written"), 13}, 13), ENOENT);

  const ContentNode root = Must(DecodeContentNode(store_.objects.at({ObjectKind::kContent, content.id})));
  const ObjectId first = root.segments[0].id, second = root.segments[1].id;
  const Location right = store_.index.at(first);
  store_.index[first] = store_.index.at(second);  // the index lies
  EXPECT_EQ(code(content, content.size), EIO);
  store_.index[first].slot = 60'000;
  EXPECT_EQ(code(content, content.size), EIO);
  store_.index[first].pack ^= 1;  // a pack that is not there, and the index does not know better
  EXPECT_EQ(code(content, content.size), EIO);
  store_.index.erase(first);
  EXPECT_EQ(code(content, content.size), EIO);
  EXPECT_EQ(out, "kept");
  store_.index[first] = right;
  EXPECT_EQ(code(content, content.size), 0);
}

TEST_F(ContentTest, ADamagedBlockIsNotRead) {
  const Written content = Put(RandomBytes(200'000, 1));
  const auto file = Must(Env::Default().Open(store_.pack_path(), OpenMode::kReadWrite));
  Must(file->WriteAt(100'000, "damage"));
  std::string out;
  const Status status = reader_.Read(content.id, content.size, 0, 10, &out);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, EIO);
}

TEST_F(ContentTest, StagedPacksAreFoundBeforeAndAfterTheyMove) {
  const Written content = Put(RandomBytes(200'000, 1));
  const testing::TemporaryDirectory elsewhere;
  ChunkStore chunks(Env::Default(), elsewhere.path(), {.cache_bytes = 1, .max_open_packs = 1});
  chunks.AddPack(MemoryStore::kPack, store_.pack_path());
  const ContentReader staged(store_, chunks);
  std::string out;
  Must(staged.Read(content.id, content.size, 0, 10, &out));
  const ChunkStore moved(Env::Default(), elsewhere.path(), {});
  ChunkStore later(Env::Default(), elsewhere.path(), {});
  later.AddPack(MemoryStore::kPack, store_.pack_path());
  Must(Env::Default().Rename(store_.pack_path(), elsewhere / PackFileName(MemoryStore::kPack)));
  for (const ChunkStore* store : {&std::as_const(chunks), &moved, &std::as_const(later)}) {
    Must(ContentReader(store_, *store).Read(content.id, content.size, 0, 10, &out));
  }
}

}  // namespace
}  // namespace mirage
