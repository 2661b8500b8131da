// Uncompressing, and where it is written on its way.
#include "indexer/byte_stream.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>

#include "indexer/disk_window.h"
#include "indexer/scratch_file.h"
#include "tests/testing/memory_store.h"
#include "tests/testing/temporary_directory.h"

namespace mirage::testing {
namespace {

bool Shell(const std::string& command) { return std::system(("{ " + command + "; } >&2").c_str()) == 0; }

Result<std::string> ReadAll(ByteStream& stream) {
  std::string all, piece(1000, '\0');
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n, stream.Read(piece.data(), piece.size()));
    if (n == 0) return all;
    all.append(piece, 0, n);
  }
}
Result<std::string> ReadAll(const std::string& path) {
  ASSIGN_OR_RETURN(const auto stream, ByteStream::Open(path));
  return ReadAll(*stream);
}

class ByteStreamTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& bytes) {
    std::ofstream(directory_ / name, std::ios::binary | std::ios::trunc) << bytes;
    return directory_ / name;
  }
  TemporaryDirectory directory_;
};

TEST_F(ByteStreamTest, KnowsFourCompressionsByTheirContent) {
  const std::string bytes = RandomBytes(100'000, 1) + std::string(1'000'000, 'b');
  const std::string plain = Write("plain", bytes);
  EXPECT_TRUE(Must(ReadAll(plain)) == bytes);
  for (const char* program : {"gzip", "bzip2", "xz", "zstd"}) {
    ASSERT_TRUE(Shell(fmt::format("{0} -c <{1} >{1}.z", program, plain)));
    EXPECT_TRUE(Must(ReadAll(plain + ".z")) == bytes) << program;
    // Two behind each other are one, as for the program itself.
    ASSERT_TRUE(Shell(fmt::format("cat {0}.z {0}.z >{0}.zz", plain)));
    EXPECT_TRUE(Must(ReadAll(plain + ".zz")) == bytes + bytes) << program;
    ASSERT_TRUE(Shell(fmt::format("head -c 20000 {0}.z >{0}.cut", plain)));
    const auto cut = ReadAll(plain + ".cut");
    EXPECT_TRUE(!cut || cut->size() < bytes.size()) << program;
  }
  EXPECT_EQ(Must(ReadAll(Write("short", "abc"))), "abc");
  EXPECT_EQ(ReadAll(Write("nothing", "")).error().code, EINVAL);
  EXPECT_EQ(ReadAll(directory_ / "nowhere").error().code, ENOENT);
}

// Every layer more multiplies what a few bytes grow to, and inner ones need not give a byte.
TEST_F(ByteStreamTest, UncompressesOnce) {
  const std::string plain = Write("plain", std::string(1000, 'b'));
  for (const char* how :
       {"gzip -c | gzip -c", "gzip -c | xz -c", "zstd -c | bzip2 -c", "gzip -c | gzip -c | gzip -c"}) {
    ASSERT_TRUE(Shell(fmt::format("cat {0} | {1} >{0}.z", plain, how)));
    const auto read = ReadAll(plain + ".z");
    ASSERT_FALSE(read) << how;
    EXPECT_NE(read.error().message.find("compressed more than once"), std::string::npos) << read.error().message;
  }
}

// A stream of empty members gives no byte for hours: it is ended while more is read, not only between two reads.
TEST_F(ByteStreamTest, IsInterruptedInTheMiddle) {
  const std::string empty = Write("empty", "");
  ASSERT_TRUE(Shell(fmt::format("gzip -c <{0} >{0}.z", empty)));
  std::ifstream in(empty + ".z", std::ios::binary);
  const std::string member{std::istreambuf_iterator<char>(in), {}};
  std::atomic<bool> interrupted = false;
  uint64_t calls = 0;
  const auto endless = [&](char* out, size_t size) -> Result<size_t> {
    if (++calls > 10) interrupted = true;
    size_t done = 0;
    for (; done + member.size() <= size; done += member.size()) std::memcpy(out + done, member.data(), member.size());
    return done;
  };
  const auto stream = ByteStream::Open(endless, &interrupted);
  const auto read = stream ? ReadAll(**stream) : tl::make_unexpected(stream.error());
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, EINTR) << read.error().message;
  EXPECT_LT(calls, 20U);
}

// libarchive takes it for the end of what is compressed.
TEST_F(ByteStreamTest, ASourceThatFailsIsNoEnd) {
  const std::string plain = Write("plain", RandomBytes(1'000'000, 1));
  for (const char* program : {"cat", "gzip -c", "bzip2 -c", "xz -c", "zstd -c"}) {
    ASSERT_TRUE(Shell(fmt::format("{1} <{0} >{0}.z", plain, program)));
    std::ifstream in(plain + ".z", std::ios::binary);
    const auto failing = [&](char* out, size_t size) -> Result<size_t> {
      if (in.tellg() > 600'000) return Fail(ENXIO, "the disk is gone");
      in.read(out, static_cast<std::streamsize>(size));
      return static_cast<size_t>(in.gcount());
    };
    const auto stream = ByteStream::Open(failing);
    const auto read = stream ? ReadAll(**stream) : tl::make_unexpected(stream.error());
    ASSERT_FALSE(read) << program;
    EXPECT_EQ(read.error().code, ENXIO) << program << ": " << read.error().message;
  }
}

TEST_F(ByteStreamTest, ScratchFilesHoldNoZeros) {
  const std::string place = directory_ / "scratch";
  const int fd = open(place.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  std::string bytes;
  {
    ScratchFile file(fd);
    for (uint64_t i = 0; i < 40; ++i) {
      std::string piece = RandomBytes(100 + i * 977, i) + std::string(i * 50'000, '\0') + RandomBytes(3, i);
      Must(file.Append(piece, 1));
      bytes += piece;
    }
    const std::string zeros(8 << 20, '\0');
    Must(file.Append(zeros, 1));
    bytes += zeros;
    Must(file.Finish());
  }
  std::ifstream in(place, std::ios::binary);
  EXPECT_TRUE(std::string(std::istreambuf_iterator<char>(in), {}) == bytes);
  struct stat st;
  ASSERT_EQ(fstat(fd, &st), 0);
  EXPECT_LT(st.st_blocks * 512, 3 << 20);
  // By which a sparse image is measured too.
  const DiskWindow window(fd, 0, bytes.size());
  EXPECT_GE(window.WrittenBytes(), 40U * 100);
  EXPECT_LT(window.WrittenBytes(), 3U << 20);
  EXPECT_EQ(DiskWindow(fd, bytes.size() - (4 << 20), 4 << 20).WrittenBytes(), 0U);
  close(fd);
}

TEST_F(ByteStreamTest, ScratchFilesGrowAsHonestCompressionsDo) {
  const int fd = open(std::string(directory_ / "scratch").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ScratchFile file(fd, 1 << 20);
  const std::string bytes = RandomBytes(100'000, 1);
  Status status;
  uint64_t count = 0;
  while (count < 1000 && (status = file.Append(bytes, 20'000))) ++count;
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, E2BIG);
  EXPECT_EQ(count, 19U);  // 2 MB of 20 kB
  close(fd);
}

}  // namespace
}  // namespace mirage::testing
