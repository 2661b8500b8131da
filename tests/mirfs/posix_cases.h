// What POSIX and Linux promise of a directory, case by case. Each case is a program that works in the current directory and says
// what each call gave; two directories that keep the promise say the same.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include <fmt/format.h>

namespace mirage::testing {

// What a case did, in words.
class Log {
 public:
  // "rename a b: ENOENT", or the number it gave.
  long Say(const std::string& what, long result) {
    text_ += what + ": " + (result < 0 ? strerrorname_np(errno) : std::to_string(result)) + "\n";
    return result;
  }
  void Note(const std::string& what, const std::string& value) { text_ += what + ": " + value + "\n"; }
  // An open whose descriptor's number says nothing.
  int Open(const std::string& path, int flags, mode_t mode = 0644) {
    const int file = open(path.c_str(), flags | O_CLOEXEC, mode);
    Say("open " + path, file < 0 ? file : 0);
    return file;
  }
  void Stat(const std::string& path) {
    struct stat st {};
    if (lstat(path.c_str(), &st) != 0) {
      Say("stat " + path, -1);
      return;
    }
    Note("stat " + path, fmt::format("{:o} {} {} {} {}", st.st_mode, st.st_uid, st.st_gid, st.st_nlink,
                                     S_ISDIR(st.st_mode) ? 0 : st.st_size));
  }
  void Content(const std::string& path) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    std::string bytes(8 << 20, '\0');
    const ssize_t got = file < 0 ? -1 : read(file, bytes.data(), bytes.size());
    if (file >= 0) close(file);
    bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
    Note("content " + path, fmt::format("{} {:x}", got, std::hash<std::string>()(bytes)));
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

struct PosixCase {
  const char* name;
  void (*run)(Log&);
};
const std::vector<PosixCase>& PosixCases();

// In a mount of its user alone nobody else gets in: what the cases do as others is done as this user.
inline bool alone = false;

}  // namespace mirage::testing
