#include "indexer/tar_stream.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/indexer/tar_bytes.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

// Feeds seven bytes at a time, as a pipe might.
TarStream Stream(const std::string& bytes) {
  return TarStream([bytes, at = size_t{0}](char* out, size_t size) mutable -> Result<size_t> {
    const size_t n = std::min({size, size_t{7}, bytes.size() - at});
    std::memcpy(out, bytes.data() + at, n);
    at += n;
    return n;
  });
}

TEST(TarStreamTest, ReadsMembersAndSkipsTheirData) {
  auto stream = Stream(Header("./", '5', 0) + Header("./a", '0', 5) + Padded("hello") + Header("./b/", '5', 0) +
                       Header("./c", '0', 600) + Padded(std::string(600, 'c')) + kEnd);
  EXPECT_EQ(Must(stream.Next())->path, "");
  const auto a = Must(stream.Next());
  EXPECT_EQ(a->path, "a");
  EXPECT_EQ(a->entry.uid, 1000u);
  EXPECT_EQ(a->entry.mtime_sec, 7);
  EXPECT_EQ(Must(stream.ReadData(3)), "hel");
  EXPECT_EQ(Must(stream.Next())->entry.type, FileType::kDirectory);
  const auto c = Must(stream.Next());
  EXPECT_EQ(Must(stream.ReadData(1000)), std::string(600, 'c'));
  EXPECT_EQ(Must(stream.ReadData(1000)), "");
  EXPECT_FALSE(Must(stream.Next()));
}

TEST(TarStreamTest, ExtendedHeadersGiveTimesNamesAndAttributes) {
  const std::string records = Record("path", "./" + std::string(300, 'p') + "\xff=\n") + Record("mtime", "-0.5") +
                              Record("uid", "4000000000") +
                              Record("SCHILY.xattr.user.we%3Dird%2541", std::string("\0=\n", 3));
  auto stream = Stream(Extended(records) + Header("./x", '0', 0) + Extended(Record("mtime", "-1.500000001")) +
                       Header("./y", '0', 0) + Header("./z", '0', 0) + kEnd);
  const auto x = Must(stream.Next());
  EXPECT_EQ(x->path, std::string(300, 'p') + "\xff=\n");
  EXPECT_EQ(x->entry.mtime_sec, -1);
  EXPECT_EQ(x->entry.mtime_nsec, 500'000'000u);
  EXPECT_EQ(x->entry.uid, 4'000'000'000u);
  EXPECT_EQ(x->xattrs, (XattrSet{{"user.we=ird%41", std::string("\0=\n", 3)}}));
  const auto y = Must(stream.Next());
  EXPECT_EQ(y->entry.mtime_sec, -2);
  EXPECT_EQ(y->entry.mtime_nsec, 499'999'999u);
  const auto z = Must(stream.Next());  // an extended header speaks of one member
  EXPECT_EQ(z->entry.mtime_sec, 7);
  EXPECT_TRUE(z->xattrs.empty());
}

// 8 GiB and more do not fit in twelve octal digits with a NUL: pax says it in decimal, GNU tar in binary.
TEST(TarStreamTest, LargeFilesSayTheirSize) {
  const uint64_t large = uint64_t{20} << 30;
  auto pax = Stream(Extended(Record("size", std::to_string(large))) + Header("a", '0', 0) + "data");
  EXPECT_EQ(Must(pax.Next())->size, large);
  EXPECT_EQ(Must(pax.ReadData(4)), "data");
  std::string header = Header("a", '0', 0);
  header.replace(124, 12, std::string("\x80\0\0\0\0\0\0\x05\0\0\0\0", 12));
  header.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<uint8_t>(c);
  std::snprintf(header.data() + 148, 8, "%06o", sum);
  EXPECT_EQ(Must(Stream(header + "data").Next())->size, large);
}

TEST(TarStreamTest, RefusesDamage) {
  const std::string good = Header("./a", '0', 5) + Padded("hello") + kEnd;
  const auto error_of = [](const std::string& bytes) {
    auto stream = Stream(bytes);
    for (int i = 0; i < 10; ++i) {
      auto next = stream.Next();
      if (!next) return next.error().code;
      if (!*next) return 0;
    }
    return 0;
  };
  EXPECT_EQ(error_of(good), 0);
  for (const size_t length : {0u, 100u, 512u, 600u, 1024u}) EXPECT_EQ(error_of(good.substr(0, length)), EIO) << length;
  for (const size_t at : {0u, 101u, 126u, 150u, 156u, 260u}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    EXPECT_EQ(error_of(bad), EIO) << at;
  }
  EXPECT_EQ(error_of(Header("./a/../b", '0', 0) + kEnd), EIO);
  EXPECT_EQ(error_of(Header("./a", 'Z', 0) + kEnd), EIO);
  EXPECT_EQ(error_of(Header("x", 'x', uint64_t{1} << 32) + kEnd), EIO);
  for (const char* records : {"99 a=b\n", "5 a=b", "x a=b\n", "3 =\n", "4 ab\n", "18446744073709551616 a=b\n"}) {
    EXPECT_EQ(error_of(Extended(records) + Header("./a", '0', 0) + kEnd), EIO) << records;
  }
  EXPECT_EQ(error_of(Extended(Record("mtime", "12x")) + Header("./a", '0', 0) + kEnd), EIO);
  const auto sparse = [&](const std::string& records, const std::string& data) {
    return error_of(Extended(records) + Header("./a", '0', data.size()) + Padded(data) + kEnd);
  };
  const std::string one = Record("GNU.sparse.major", "1") + Record("GNU.sparse.realsize", "1000");
  EXPECT_EQ(sparse(one, Padded("1\n990\n5\n") + "hello"), 0);
  EXPECT_EQ(sparse(Record("GNU.sparse.major", "1"), Padded("0\n")), EIO);
  for (const char* map : {"", "x\n", "1\n996\n5\n", "2\n0\n3\n2\n2\n", "1\n0\n4\n", "99999999999999999999\n",
                          "18446744073709551615\n", "1\n18446744073709551615\n5\n"}) {
    EXPECT_EQ(sparse(one, Padded(map) + "hello"), EIO) << map;
  }
  EXPECT_EQ(sparse(Record("GNU.sparse.size", "9") + Record("GNU.sparse.map", "1,2,3"), "hel"), EIO);
  EXPECT_EQ(sparse(Record("GNU.sparse.size", "9") + Record("GNU.sparse.numbytes", "2"), "he"), EIO);
}

}  // namespace
}  // namespace mirage::testing
