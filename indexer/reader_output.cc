#include "indexer/reader_output.h"

#include <unistd.h>

#include <algorithm>

#include "store/encoding.h"

namespace mirage {
namespace {

constexpr size_t kBufferBytes = 64 << 10;
constexpr size_t kPieceBytes = 1 << 20;

}  // namespace

Status ReaderOutput::Send(RecordKind kind, std::string_view payload) {
  if (payload.size() > kMaxRecordBytes) return Fail(E2BIG, "a file's attributes are too long");
  Put<uint32_t>(&buffer_, static_cast<uint32_t>(payload.size()));
  Put<uint8_t>(&buffer_, static_cast<uint8_t>(kind));
  buffer_.append(payload);
  return buffer_.size() < kBufferBytes ? Status{} : Flush();
}

Status ReaderOutput::SendBytes(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size(); at += kPieceBytes) {
    TRY(Send(RecordKind::kBytes, bytes.substr(at, kPieceBytes)));
  }
  return {};
}

Status ReaderOutput::Flush() {
  for (std::string_view rest = buffer_; !rest.empty();) {
    const ssize_t n = write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FailErrno(errno, "the pipe to the importer");
    rest.remove_prefix(static_cast<size_t>(n));
  }
  buffer_.clear();
  return {};
}

}  // namespace mirage
