// flock(2) with a bounded wait. The lock belongs to the open file description, so a dead process holds none.
// The holder of an exclusive lock writes "PID COMMAND PURPOSE" into the file, and who waits in vain names it; one that shares it is named "PID COMMAND".
#pragma once

#include <memory>
#include <string>

#include "store/env.h"
#include "store/result.h"

namespace mirage {

enum class LockMode { kShared, kExclusive };

class FileLock {
 public:
  // Creates the file if missing. timeout_ms 0: try once. EAGAIN with the holder's words when the time is over.
  // A shared lock can be had on a file that may only be read.
  static Result<FileLock> Acquire(Env& env, const std::string& path, LockMode mode, int timeout_ms,
                                  std::string_view purpose);
  FileLock(FileLock&&) = default;
  FileLock& operator=(FileLock&& other) noexcept;  // releases what it held
  ~FileLock() { Release(); }
  void Release();
  bool held() const { return file_ != nullptr; }

 private:
  FileLock(std::unique_ptr<File> file, LockMode mode) : file_(std::move(file)), mode_(mode) {}
  std::unique_ptr<File> file_;
  LockMode mode_ = LockMode::kShared;
};

}  // namespace mirage
