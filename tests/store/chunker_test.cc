// Cuts: where they fall, that they stay, and that holes are found wherever the bytes come from.
#include "store/chunker.h"

#include <algorithm>
#include <bit>
#include <set>

#include "store/content_splitter.h"
#include "tests/testing/memory_store.h"

namespace mirage {
namespace {

using testing::RandomBytes;

std::vector<size_t> Cuts(std::string_view data, const ChunkingParameters& parameters = {}) {
  const Chunker chunker(parameters);
  std::vector<size_t> ends;
  for (size_t at = 0; at < data.size();) {
    at += chunker.Cut(data.substr(at, parameters.max_bytes));
    ends.push_back(at);
  }
  return ends;
}

TEST(Chunker, LengthsKeepTheirBounds) {
  const std::string data = RandomBytes(8 << 20, 1);
  const auto ends = Cuts(data);
  size_t start = 0;
  for (size_t i = 0; i + 1 < ends.size(); ++i) {
    EXPECT_GE(ends[i] - start, 4096U);
    EXPECT_LE(ends[i] - start, 65536U);
    start = ends[i];
  }
  const size_t average = data.size() / ends.size();
  EXPECT_GT(average, 12U << 10);
  EXPECT_LT(average, 24U << 10);
}

// Cuts decide what is deduplicated against what older programs stored: they never move.
TEST(Chunker, CutsStayWhereTheyAre) {
  const auto ends = Cuts(RandomBytes(200'000, 7));
  const std::vector<size_t> expected = {17842, 34743, 51404, 72216, 87635, 104149, 123794, 143994, 162282, 179394,
                                        200000};
  EXPECT_EQ(ends, expected);
}

// FORMAT.md's words, byte by byte.
size_t CutAsWritten(std::string_view data, const ChunkingParameters& p) {
  const int bits = std::countr_zero(p.average_bytes);
  const auto highest = [](int count) { return ~uint64_t{0} << (64 - count); };
  const size_t left = std::min<size_t>(data.size(), p.max_bytes);
  if (left <= p.min_bytes) return left;
  uint64_t h = 0;
  for (size_t i = p.min_bytes - 64; i < left; ++i) {
    const ObjectId gear = HashBytes(std::string("mirage gear") + data[i]);
    uint64_t number = 0;
    for (size_t byte = 8; byte-- > 0;) number = number << 8 | gear.bytes[byte];
    h = (h << 1) + number;
    const size_t n = i + 1;
    if (n >= p.min_bytes && (h & highest(n < p.average_bytes ? bits + 2 : bits - 2)) == 0) return n;
  }
  return left;
}

TEST(Chunker, CutsAsTheFormatSays) {
  for (const ChunkingParameters& p :
       {ChunkingParameters{}, {64, 64, 100}, {64, 64, 64}, {65, 128, 1000}, {127, 256, 259}, {300, 1024, 5001}}) {
    const Chunker chunker(p);
    const std::string data = RandomBytes(p.average_bytes > 4096 ? 150'000 : 40'000, p.min_bytes);
    for (size_t at = 0; at < data.size();) {
      const std::string_view rest = std::string_view(data).substr(at);
      const size_t length = chunker.Cut(rest);
      ASSERT_EQ(length, CutAsWritten(rest, p)) << at << " with " << p.min_bytes << "/" << p.average_bytes;
      at += length;
    }
  }
}

TEST(Chunker, ShortAndUniformData) {
  EXPECT_EQ(Cuts("x"), std::vector<size_t>{1});
  EXPECT_EQ(Cuts(std::string(4096, 'x')), std::vector<size_t>{4096});
  EXPECT_EQ(Cuts(std::string(65537, 'x')), (std::vector<size_t>{65536, 65537}));
}

TEST(Chunker, ResumesAfterAnInsertion) {
  const std::string data = RandomBytes(2 << 20, 2);
  const auto before = Cuts(data);
  const size_t inserted_at = 1 << 20, inserted = 37;
  const auto after =
      Cuts(data.substr(0, inserted_at) + RandomBytes(inserted, 3) + data.substr(inserted_at));
  std::set<size_t> expected(before.begin(), before.end());
  size_t lost = 0;
  for (const size_t end : after) lost += !expected.contains(end <= inserted_at ? end : end - inserted);
  EXPECT_LE(lost, 5U);
}

TEST(Chunker, OtherParametersAreChecked) {
  EXPECT_TRUE(CheckChunkingParameters({}));
  EXPECT_TRUE(CheckChunkingParameters({.min_bytes = 64, .average_bytes = 64, .max_bytes = 64}));
  EXPECT_FALSE(CheckChunkingParameters({.min_bytes = 63}));
  EXPECT_FALSE(CheckChunkingParameters({.average_bytes = 10'000}));
  EXPECT_FALSE(CheckChunkingParameters({.average_bytes = 128 << 10}));
  EXPECT_FALSE(CheckChunkingParameters({.max_bytes = kMaxChunkBytes + 1}));
  const std::string data = RandomBytes(100'000, 4);
  for (const size_t end : Cuts(data, {.min_bytes = 64, .average_bytes = 64, .max_bytes = 64})) {
    EXPECT_TRUE(end % 64 == 0 || end == data.size());
  }
}

TEST(Chunker, ZeroRuns) {
  std::string bytes(5000, '\0');
  EXPECT_TRUE(IsZeroRun(""));
  EXPECT_TRUE(IsZeroRun(bytes));
  for (const size_t at : {0, 1, 63, 64, 4999}) {
    bytes[at] = 1;
    EXPECT_FALSE(IsZeroRun(bytes)) << at;
    bytes[at] = 0;
  }
}

std::vector<Piece> SplitWhole(std::string_view bytes) {
  std::vector<Piece> pieces;
  EXPECT_EQ(SplitContent(Chunker({}), bytes, 0, true, &pieces), bytes.size());
  return pieces;
}

TEST(ContentSplitter, HolesAreWholeAlignedBlocks) {
  EXPECT_TRUE(SplitWhole("").empty());
  EXPECT_EQ(SplitWhole(std::string(4095, '\0')), (std::vector<Piece>{{0, 4095, false}}));
  EXPECT_EQ(SplitWhole(std::string(4096, '\0')), (std::vector<Piece>{{0, 4096, true}}));
  EXPECT_EQ(SplitWhole(std::string(10'000, '\0')), (std::vector<Piece>{{0, 8192, true}, {8192, 1808, false}}));
  // 8191 zeros, none of them a whole aligned block... but for the second.
  EXPECT_EQ(SplitWhole("x" + std::string(8191, '\0') + "y"),
            (std::vector<Piece>{{0, 4096, false}, {4096, 4096, true}, {8192, 1, false}}));
}

TEST(ContentSplitter, WindowsOfAnySizeGiveTheSamePieces) {
  const Chunker chunker({});
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::string bytes;
    for (uint64_t i = 0; i < 12; ++i) {
      const std::string random = RandomBytes(3, seed * 100 + i);
      const size_t length = 1 + static_cast<uint8_t>(random[0]) * 400U + static_cast<uint8_t>(random[1]) % 7 * 4096U;
      bytes += random[2] & 1 ? std::string(length, '\0') : RandomBytes(length, seed * 1000 + i);
    }
    std::vector<Piece> windows;
    size_t at = 0;
    for (size_t window = 70'000; at < bytes.size(); window += 1001) {
      std::vector<Piece> pieces;
      const bool last = at + window >= bytes.size();
      const size_t used = SplitContent(chunker, std::string_view(bytes).substr(at, window), at, last, &pieces);
      for (Piece piece : pieces) {
        piece.offset += at;
        if (piece.hole && !windows.empty() && windows.back().hole) {
          windows.back().length += piece.length;
        } else {
          windows.push_back(piece);
        }
      }
      at += used;
    }
    EXPECT_EQ(windows, SplitWhole(bytes)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace mirage
