// The child's end of the reader protocol: records into the pipe, some at a time.
#pragma once

#include <string>
#include <string_view>

#include "indexer/reader_protocol.h"

namespace mirage {

class ReaderOutput {
 public:
  explicit ReaderOutput(int fd) : fd_(fd) {}
  // EIO: the parent is gone. E2BIG: more than a record holds.
  Status Send(RecordKind kind, std::string_view payload);
  Status SendBytes(std::string_view bytes);  // kBytes, as many records as it takes
  Status Flush();

 private:
  const int fd_;
  std::string buffer_;
};

}  // namespace mirage
