#include "indexer/rpm_database.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>

#include "indexer/reader_process.h"

namespace mirage {
namespace {

constexpr size_t kPreambleBytes = 8, kIndexBytes = 16;
constexpr uint32_t kMaxTags = 65536, kMaxDataBytes = 32 << 20;  // rpm's own limits are greater
constexpr uint32_t kInt32 = 4, kString = 6;
constexpr uint32_t kName = 1000, kVersion = 1001, kRelease = 1002, kEpoch = 1003, kArch = 1022;

uint32_t BigEndian(std::string_view bytes, size_t at) {
  const auto byte = [&](size_t i) { return uint32_t{static_cast<uint8_t>(bytes[at + i])}; };
  return byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
}
tl::unexpected<Error> Damaged(std::string_view what) { return Fail(EIO, "the rpm database is damaged: {}", what); }

}  // namespace

Result<Package> ParseRpmHeader(std::string_view header) {
  if (header.size() < kPreambleBytes) return Damaged("a header that is cut off");
  const uint32_t tags = BigEndian(header, 0), length = BigEndian(header, 4);
  if (tags > kMaxTags || length > kMaxDataBytes ||
      header.size() - kPreambleBytes < size_t{tags} * kIndexBytes + length) {
    return Damaged("a header of impossible length");
  }
  const std::string_view data = header.substr(kPreambleBytes + size_t{tags} * kIndexBytes, length);
  std::string name, version, release, arch;
  uint32_t epoch = 0;
  for (uint32_t i = 0; i < tags; ++i) {
    const size_t at = kPreambleBytes + size_t{i} * kIndexBytes;
    const uint32_t tag = BigEndian(header, at), type = BigEndian(header, at + 4), offset = BigEndian(header, at + 8);
    std::string* const text = tag == kName      ? &name
                              : tag == kVersion ? &version
                              : tag == kRelease ? &release
                              : tag == kArch    ? &arch
                                                : nullptr;
    if (text != nullptr && type == kString) {
      if (offset >= data.size()) return Damaged("a text behind the end");
      const size_t end = data.find('\0', offset);
      if (end == std::string_view::npos) return Damaged("a text without an end");
      *text = data.substr(offset, end - offset);
    } else if (tag == kEpoch && type == kInt32) {
      if (offset > data.size() || data.size() - offset < sizeof epoch) return Damaged("a number behind the end");
      epoch = BigEndian(data, offset);
    }
  }
  if (name.empty() || version.empty()) return Damaged("a package without a name or version");
  if (!release.empty()) version += "-" + release;
  if (epoch != 0) version = fmt::format("{}:{}", epoch, version);
  return Package{std::move(name), std::move(version), std::move(arch)};
}

Result<std::vector<Package>> ReadRpmDatabase(int file, const std::atomic<bool>* interrupted) {
  struct stat st;
  if (fstat(file, &st) != 0) return FailErrno(errno, "the rpm database");
  if (static_cast<uint64_t>(st.st_size) > kMaxRpmDatabaseBytes) {
    return Fail(EFBIG, "the rpm database has more than {} MiB", kMaxRpmDatabaseBytes >> 20);
  }
  ReaderProcess::Options job;
  job.image = file;
  job.arguments = {"rpm", std::to_string(st.st_size)};
  job.interrupted = interrupted;
  ASSIGN_OR_RETURN(const auto reader, ReaderProcess::Start(job));
  std::vector<Package> packages;
  std::string header;
  for (;;) {
    ASSIGN_OR_RETURN(const ReaderRecord record, reader->Next());
    if (record.kind == RecordKind::kDone) return packages;
    if (record.kind == RecordKind::kBytes && record.payload.size() <= kMaxRpmHeaderBytes - header.size()) {
      header += record.payload;
    } else if (record.kind == RecordKind::kEndFile && packages.size() < kMaxRpmPackages) {
      ASSIGN_OR_RETURN(packages.emplace_back(), ParseRpmHeader(header));
      header.clear();
    } else {
      return Fail(EIO, "the disk reader sent an impossible record; the image may be made to do harm");
    }
  }
}

Result<std::vector<Package>> ReadRpmDatabase(std::string_view bytes, const std::atomic<bool>* interrupted) {
  const int file = memfd_create("rpmdb", MFD_CLOEXEC);
  if (file < 0) return FailErrno(errno, "cannot make a file in memory");
  Status written;
  for (size_t at = 0; at < bytes.size() && written;) {
    const ssize_t n = write(file, bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno != EINTR) written = FailErrno(errno, "a file in memory");
    if (n > 0) at += static_cast<size_t>(n);
  }
  auto packages = written ? ReadRpmDatabase(file, interrupted) : tl::make_unexpected(written.error());
  close(file);
  return packages;
}

}  // namespace mirage
