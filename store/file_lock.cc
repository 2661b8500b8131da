#include "store/file_lock.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

namespace mirage {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kFirstPause{1};
constexpr std::chrono::milliseconds kLongestPause{20};
constexpr size_t kMaxHolderBytes = 256;

Result<std::unique_ptr<File>> OpenLockFile(Env& env, const std::string& path, LockMode mode) {
  auto file = env.Open(path, OpenMode::kOpenOrCreate);
  if (!file && mode == LockMode::kShared && (file.error().code == EACCES || file.error().code == EROFS)) {
    return env.Open(path, OpenMode::kRead);
  }
  return file;
}

// "PID COMMAND" of a process that holds a lock on the file, by the kernel's list; empty if it is not told there (another PID
// namespace). For those who share a lock, and so write nothing.
std::string HolderByKernel(const File& file) {
  struct stat st;
  if (::fstat(file.descriptor(), &st) != 0) return {};
  const std::string wanted = fmt::format("{:02x}:{:02x}:{}", major(st.st_dev), minor(st.st_dev), st.st_ino);
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    // "1: FLOCK  ADVISORY  WRITE 4242 fe:01:1234 0 EOF"; one that waits has "->" behind the number.
    std::istringstream words(line);
    std::string number, type, advisory, access, pid, inode, command;
    words >> number >> type >> advisory >> access >> pid >> inode;
    if (type != "FLOCK" || inode != wanted) continue;
    std::getline(std::ifstream("/proc/" + pid + "/comm"), command);
    if (!command.empty()) return pid + " " + command;
  }
  return {};
}

// What the file says of its holder; empty when nobody that is alive has written there.
std::string HolderWords(const File& file) {
  std::string words;
  if (!file.ReadAt(0, kMaxHolderBytes, &words)) return {};
  words.resize(std::min(words.find('\n'), words.size()));
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(words.data(), words.data() + words.size(), pid);
  if (error != std::errc{} || pid <= 0) return {};
  if (::kill(pid, 0) < 0 && errno == ESRCH) return {};
  return words;
}

}  // namespace

Result<FileLock> FileLock::Acquire(Env& env, const std::string& path, LockMode mode, int timeout_ms,
                                   std::string_view purpose) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
  const int operation = (mode == LockMode::kShared ? LOCK_SH : LOCK_EX) | LOCK_NB;
  ASSIGN_OR_RETURN(auto file, OpenLockFile(env, path, mode));
  if (file->descriptor() < 0) return Fail(ENOLCK, "lock {}: no locks on this kind of file", path);
  auto pause = kFirstPause;
  for (;;) {
    if (::flock(file->descriptor(), operation) == 0) {
      // A lock on a file that was removed meanwhile keeps nobody out.
      struct stat st;
      if (::fstat(file->descriptor(), &st) == 0 && st.st_nlink > 0) break;
      ASSIGN_OR_RETURN(file, OpenLockFile(env, path, mode));
    } else if (errno != EWOULDBLOCK && errno != EINTR) {
      return FailErrno(errno, "lock " + path);
    }
    const auto now = Clock::now();
    if (now >= deadline) {
      std::string holder = HolderWords(*file);
      if (holder.empty()) holder = HolderByKernel(*file);
      return Fail(EAGAIN, "{}: locked by {}; waited {:.1f} s, try again when it has ended", path,
                  holder.empty() ? "another process" : "process " + holder, timeout_ms / 1000.0);
    }
    std::this_thread::sleep_for(std::min<Clock::duration>(pause, deadline - now));
    pause = std::min(pause * 2, kLongestPause);
  }
  if (mode == LockMode::kExclusive) {
    // For people only: a full disk must not keep anybody from the lock, so errors are of no account.
    std::string words = fmt::format("{} {} {}", ::getpid(), program_invocation_short_name, purpose);
    std::replace(words.begin(), words.end(), '\n', ' ');
    words.resize(std::min(words.size(), kMaxHolderBytes - 1));
    if (file->Truncate(0)) static_cast<void>(file->WriteAt(0, words + "\n"));
  }
  return FileLock(std::move(file), mode);
}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  if (this != &other) {
    Release();
    file_ = std::move(other.file_);
    mode_ = other.mode_;
  }
  return *this;
}

void FileLock::Release() {
  if (file_ == nullptr) return;
  if (mode_ == LockMode::kExclusive) static_cast<void>(file_->Truncate(0));  // the words shall not outlive the lock
  file_.reset();
}

}  // namespace mirage
