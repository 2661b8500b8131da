#include "tools/mirfs_process.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace mirage {
namespace {

// Beside this program, else by PATH.
std::string FindMirfs() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    const std::string beside = (self.parent_path() / "mirfs").string();
    if (access(beside.c_str(), X_OK) == 0) return beside;
  }
  return "mirfs";
}

// /proc/self/mountinfo writes space, tab, newline and backslash as \ooo.
std::string Unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

bool IsMountpoint(const std::string& absolute) {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    size_t start = 0;
    for (int field = 0; field < 4 && start != std::string::npos; ++field) start = line.find(' ', start) + 1;
    if (Unescape(line.substr(start, line.find(' ', start) - start)) == absolute) return true;
  }
  return false;
}

std::string EscapeOption(const std::string& option) {
  std::string out;
  for (const char c : option) {
    if (c == ',' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

Result<std::string> CheckMountpoint(const std::string& mountpoint) {
  char* resolved = realpath(mountpoint.c_str(), nullptr);
  if (resolved == nullptr) {
    if (errno == ENOENT) return Fail(ENOENT, "{}: no such directory; make it with mkdir", mountpoint);
    if (errno == ENOTCONN) {
      return Fail(EBUSY, "{}: a dead mount is there; unmount it with `fusermount3 -u {}`", mountpoint, mountpoint);
    }
    return FailErrno(errno, mountpoint);
  }
  const std::string absolute = resolved;
  std::free(resolved);
  struct stat info {};
  if (stat(absolute.c_str(), &info) != 0) {
    if (errno == ENOTCONN) {
      return Fail(EBUSY, "{}: a dead mount is there; unmount it with `fusermount3 -u {}`", mountpoint, mountpoint);
    }
    return FailErrno(errno, mountpoint);
  }
  if (!S_ISDIR(info.st_mode)) return Fail(ENOTDIR, "{}: not a directory; give one to mount on", mountpoint);
  if (IsMountpoint(absolute)) {
    return Fail(EBUSY, "{}: busy: something is mounted there; unmount it, or give another directory", mountpoint);
  }
  return absolute;
}

Status StartMirfs(const Session& session, const std::string& mountpoint, const std::vector<std::string>& options,
                  const std::string& raw_options, bool foreground) {
  const std::string program = FindMirfs();
  std::error_code error;
  const std::string library = std::filesystem::absolute(session.library_path, error).string();
  std::vector<std::string> words{program, error ? session.library_path : library, mountpoint};
  if (foreground) words.push_back("-f");
  std::string joined;
  for (const std::string& option : options) joined += (joined.empty() ? "" : ",") + EscapeOption(option);
  if (!raw_options.empty()) joined += (joined.empty() ? "" : ",") + raw_options;
  if (!joined.empty()) words.insert(words.end(), {"-o", joined});
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);

  const auto missing = [&]() -> Status {
    const int code = errno;
    return Fail(code, "{}: start {}: {}; it belongs beside this program, or in $PATH", mountpoint, program,
                strerror(code));
  };
  if (foreground) {
    execvp(program.c_str(), arguments.data());
    return missing();
  }
  // The daemon's talk comes through a pipe, so that its error becomes ours. It lets go of the pipe when it goes to the
  // background, which is when its first process ends.
  int talk[2], failed[2];
  if (pipe2(talk, O_CLOEXEC) != 0) return FailErrno(errno, "make a pipe");
  if (pipe2(failed, O_CLOEXEC) != 0) {
    const int code = errno;
    close(talk[0]);
    close(talk[1]);
    return FailErrno(code, "make a pipe");
  }
  const pid_t child = fork();
  if (child == 0) {
    dup2(talk[1], STDERR_FILENO);
    execvp(program.c_str(), arguments.data());
    const int code = errno;
    [[maybe_unused]] const ssize_t written = write(failed[1], &code, sizeof code);
    _exit(127);
  }
  const int fork_error = errno;
  close(talk[1]);
  close(failed[1]);
  int exec_error = 0;
  const bool exec_failed = child > 0 && read(failed[0], &exec_error, sizeof exec_error) == sizeof exec_error;
  close(failed[0]);
  int status = 0;
  if (child > 0) {
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
  }
  // Not until end of file: should the daemon keep the pipe, there would be none.
  std::string said;
  fcntl(talk[0], F_SETFL, O_NONBLOCK);
  char buffer[4096];
  for (ssize_t got; (got = read(talk[0], buffer, sizeof buffer)) > 0;) said.append(buffer, static_cast<size_t>(got));
  close(talk[0]);
  if (child < 0) return FailErrno(fork_error, fmt::format("start {}", program));
  if (exec_failed) {
    errno = exec_error;
    return missing();
  }
  while (said.ends_with('\n')) said.pop_back();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    if (!said.empty()) session.Say(said);
    return {};
  }
  if (said.empty()) said = fmt::format("{} ended without a word, status {}; try -f", program, status);
  // Its last line is the error; what came before is talk.
  if (const size_t last = said.rfind('\n'); last != std::string::npos) {
    session.Say(said.substr(0, last));
    said.erase(0, last + 1);
  }
  if (said.starts_with("mirfs: ")) said.erase(0, 7);
  if (said.ends_with("; see mirfs --help")) said.erase(said.rfind(';'));
  if (said.find(mountpoint) == std::string::npos) said = mountpoint + ": " + said;
  if (WIFEXITED(status) && WEXITSTATUS(status) == kExitUsage) return UsageError(said);
  return Fail(EIO, "{}", said);
}

void PrintMounted(Session& session, const std::string& mountpoint, const std::string& branch) {
  if (!session.json) return;
  Json json;
  AddText(json, "mountpoint", mountpoint);
  if (!branch.empty()) json["branch"] = branch;
  session.out->Object(json);
}

}  // namespace mirage
