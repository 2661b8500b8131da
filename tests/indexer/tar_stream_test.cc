#include "indexer/tar_stream.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

std::string Header(const std::string& name, char type, uint64_t size) {
  std::string h(512, '\0');
  h.replace(0, name.size(), name);
  std::snprintf(h.data() + 100, 8, "%07o", 0644);
  std::snprintf(h.data() + 108, 8, "%07o", 1000);
  std::snprintf(h.data() + 116, 8, "%07o", 1001);
  std::snprintf(h.data() + 124, 12, "%011lo", static_cast<unsigned long>(size));
  std::snprintf(h.data() + 136, 12, "%011o", 7);
  h[156] = type;
  std::memcpy(h.data() + 257, "ustar\00000", 8);
  h.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : h) sum += static_cast<uint8_t>(c);
  std::snprintf(h.data() + 148, 8, "%06o", sum);
  return h;
}
std::string Padded(std::string bytes) {
  bytes.resize((bytes.size() + 511) / 512 * 512);
  return bytes;
}
std::string Record(const std::string& key, const std::string& value) {
  size_t length = key.size() + value.size() + 3;
  for (size_t digits = 0; digits != std::to_string(length).size();) {
    digits = std::to_string(length).size();
    length = key.size() + value.size() + 3 + digits;
  }
  return std::to_string(length) + " " + key + "=" + value + "\n";
}
std::string Extended(const std::string& records) { return Header("x", 'x', records.size()) + Padded(records); }
const std::string kEnd(1024, '\0');

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
  EXPECT_EQ(error_of(Extended(Record("GNU.sparse.major", "1")) + Header("./a", '0', 0) + kEnd), EIO);
}

}  // namespace
}  // namespace mirage::testing
