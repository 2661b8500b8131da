// The parent's end of the disk reader: starts mirage-disk-reader on an image and takes its records. The child is as
// hostile as the image may be: nothing of a record is believed before its decoder has checked it, a record's length is
// bounded, and a child that falls silent is killed.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "indexer/reader_protocol.h"

namespace mirage {

struct ReaderRecord {
  RecordKind kind = RecordKind::kDone;
  std::string payload;
};

class ReaderProcess {
 public:
  struct Options {
    int image = -1;                      // borrowed
    std::vector<std::string> arguments;  // a job as disk_reader_main.cc knows it
    const std::atomic<bool>* interrupted = nullptr;
    int silence_s = 120;  // at most between two bytes
    std::string program;  // empty: FindDiskReader
  };
  static Result<std::unique_ptr<ReaderProcess>> Start(const Options& options);
  ~ReaderProcess();  // kills it if it still runs
  ReaderProcess(const ReaderProcess&) = delete;
  ReaderProcess& operator=(const ReaderProcess&) = delete;

  // The next record; kDone once, at the end. A problem that the child told is the error: EOPNOTSUPP, EIO, ENOMEM or
  // EINVAL. EIO too: it died, fell silent, or sent what no reader sends. EINTR.
  Result<ReaderRecord> Next();

 private:
  ReaderProcess(pid_t pid, int pipe, const Options& options);
  Status Fill(size_t wanted);  // until the buffer holds so many bytes
  Error Death();               // it ended without a last record

  pid_t pid_;
  const int pipe_;
  const std::atomic<bool>* const interrupted_;
  const int silence_s_;
  const std::unique_ptr<char[]> piece_;  // what read(2) fills
  std::string buffer_;
  size_t at_ = 0;  // of buffer_: what was taken
};

// Beside this program, or in the directory `bin` beside its directory; else by PATH.
std::string FindDiskReader();

}  // namespace mirage
