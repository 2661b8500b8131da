#include "indexer/reader_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>

#include "store/encoding.h"

namespace mirage {
namespace {

constexpr size_t kHeaderBytes = 5;
constexpr size_t kReadBytes = 256 << 10;
constexpr int kPollMs = 200;
constexpr const char* kProgram = "mirage-disk-reader";

}  // namespace

std::string FindDiskReader() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return kProgram;
  for (const auto& place : {self.parent_path() / kProgram, self.parent_path().parent_path() / "bin" / kProgram}) {
    if (access(place.c_str(), X_OK) == 0) return place.string();
  }
  return kProgram;
}

Result<std::unique_ptr<ReaderProcess>> ReaderProcess::Start(const Options& options) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return FailErrno(errno, "cannot make a pipe");
  fcntl(ends[0], F_SETPIPE_SZ, 1 << 20);
  const std::string program = options.program.empty() ? FindDiskReader() : options.program;
  std::vector<char*> arguments{const_cast<char*>(kProgram)};
  for (const std::string& argument : options.arguments) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  // A clean process: no descriptor but these, above all none of the library's locks, and nothing of our environment
  // that libraries would listen to.
  char* environment[] = {const_cast<char*>("LC_ALL=C"), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, options.image, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  // Ctrl-C is for us, who then end it; and it must die of a broken pipe, whatever we ignore.
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigaddset(&signals, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  pid_t pid = -1;
  const int code = posix_spawnp(&pid, program.c_str(), &actions, &attributes, arguments.data(), environment);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  close(ends[1]);
  if (code != 0) {
    close(ends[0]);
    return FailErrno(code, fmt::format("cannot start {}", program));
  }
  return std::unique_ptr<ReaderProcess>(new ReaderProcess(pid, ends[0], options));
}

ReaderProcess::~ReaderProcess() {
  close(pipe_);
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Error ReaderProcess::Death() {
  int status = 0;
  pid_t ended;
  while ((ended = waitpid(pid_, &status, 0)) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  const std::string how = ended < 0             ? "unknown"
                          : WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                                : fmt::format("exit code {}", WEXITSTATUS(status));
  return {EIO, fmt::format("the disk reader died ({}); the image is damaged or made to do harm; --reader guestfs reads "
                           "it in the appliance",
                           how)};
}

ReaderProcess::ReaderProcess(pid_t pid, int pipe, const Options& options)
    : pid_(pid),
      pipe_(pipe),
      interrupted_(options.interrupted),
      silence_s_(options.silence_s),
      piece_(std::make_unique<char[]>(kReadBytes)) {}

Status ReaderProcess::Fill(size_t wanted) {
  if (at_ > kReadBytes) {
    buffer_.erase(0, at_);
    at_ = 0;
  }
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(silence_s_);
  while (buffer_.size() - at_ < wanted) {
    if (interrupted_ != nullptr && interrupted_->load()) return Fail(EINTR, "interrupted; the library is as it was");
    pollfd waiting{pipe_, POLLIN, 0};
    const int ready = poll(&waiting, 1, kPollMs);
    if (ready < 0 && errno != EINTR) return FailErrno(errno, "the disk reader");
    if (ready <= 0) {
      if (std::chrono::steady_clock::now() < deadline) continue;
      return Fail(EIO, "the disk reader has said nothing for {} s; the image is damaged or made to do harm",
                  silence_s_);
    }
    const ssize_t n = read(pipe_, piece_.get(), kReadBytes);
    if (n == 0) return tl::make_unexpected(Death());
    if (n < 0 && errno != EINTR) return FailErrno(errno, "the disk reader");
    if (n > 0) buffer_.append(piece_.get(), static_cast<size_t>(n));
    deadline = std::chrono::steady_clock::now() + std::chrono::seconds(silence_s_);
  }
  return {};
}

Result<ReaderRecord> ReaderProcess::Next() {
  TRY(Fill(kHeaderBytes));
  const auto length = LoadAt<uint32_t>(buffer_, at_);
  const auto kind = static_cast<uint8_t>(buffer_[at_ + 4]);
  if (length > kMaxRecordBytes || kind < static_cast<uint8_t>(RecordKind::kPartition) ||
      kind > static_cast<uint8_t>(RecordKind::kDone)) {
    return Fail(EIO, "the disk reader sent an impossible record; the image may be made to do harm");
  }
  TRY(Fill(kHeaderBytes + length));
  ReaderRecord record;
  record.kind = static_cast<RecordKind>(kind);
  record.payload = buffer_.substr(at_ + kHeaderBytes, length);
  at_ += kHeaderBytes + length;
  if (record.kind != RecordKind::kProblem) return record;
  ASSIGN_OR_RETURN(ProblemRecord problem, DecodeProblem(record.payload));
  return tl::make_unexpected(Error{problem.code, std::move(problem.text)});
}

}  // namespace mirage
