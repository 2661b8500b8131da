// `mirage enter`: a branch as a running system's root, thrown away afterwards unless told otherwise.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "mirfs/control.h"
#include "tools/mirfs_process.h"
#include "tools/refs_report.h"
#include "tools/verbs.h"

namespace mirage {
namespace {

constexpr int kCannotStart = 127;

struct Arguments {
  std::string branch, message, tag, author;
  bool commit = false;
};

[[noreturn]] void Die(const std::string& doing) {
  std::fprintf(stderr, "mirage: enter: %s: %s\n", doing.c_str(), std::strerror(errno));
  _exit(kCannotStart);
}

bool IsDirectory(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

// Links in `path` lead where they would inside of `root`. -1 and errno.
int OpenInside(const std::string& root, const std::string& path, int flags) {
  const int top = open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (top < 0) return -1;
  open_how how{};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.mode = (flags & O_CREAT) != 0 ? 0644 : 0;
  how.resolve = RESOLVE_IN_ROOT;
  const auto file = static_cast<int>(syscall(SYS_openat2, top, path.c_str(), &how, sizeof how));
  const int code = errno;
  close(top);
  errno = code;
  return file;
}

constexpr const char* kNameServers = "/etc/resolv.conf";

// An image may come without a resolv.conf. An empty one is made to lay the host's over, and removed behind the command.
class PlaceForNameServers {
 public:
  explicit PlaceForNameServers(const std::string& root) : directory_(OpenInside(root, "etc", O_RDONLY | O_DIRECTORY)) {
    struct stat st {};
    if (directory_ < 0 || access(kNameServers, R_OK) != 0 || fstat(directory_, &st) != 0) return;
    before_ = st.st_mtim;
    const int file = openat(directory_, "resolv.conf", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (file < 0) return;
    close(file);
    made_ = fstat(directory_, &st) == 0;
    after_ = st.st_mtim;
  }
  ~PlaceForNameServers() {
    if (made_) Remove();
    if (directory_ >= 0) close(directory_);
  }
  PlaceForNameServers(const PlaceForNameServers&) = delete;
  PlaceForNameServers& operator=(const PlaceForNameServers&) = delete;

 private:
  void Remove() const {
    struct stat directory {}, file {};
    if (fstat(directory_, &directory) != 0 || fstatat(directory_, "resolv.conf", &file, AT_SYMLINK_NOFOLLOW) != 0) return;
    if (!S_ISREG(file.st_mode) || file.st_size != 0 || unlinkat(directory_, "resolv.conf", 0) != 0) return;
    // Whoever changes nothing in there has changed nothing.
    const bool untouched = directory.st_mtim.tv_sec == after_.tv_sec && directory.st_mtim.tv_nsec == after_.tv_nsec;
    const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, before_};
    if (untouched) (void)futimens(directory_, times);
  }

  const int directory_;
  bool made_ = false;
  timespec before_{}, after_{};
};

// Where a running system keeps its state, and where it lets resolv.conf lead (systemd-resolved): an image's is empty.
void MakePlaceInRun(const std::string& root) {
  std::array<char, PATH_MAX> text{};
  const int directory = OpenInside(root, "etc", O_PATH | O_DIRECTORY);
  const ssize_t length = readlinkat(directory, "resolv.conf", text.data(), text.size());
  close(directory);
  std::string target(text.data(), static_cast<size_t>(std::max<ssize_t>(length, 0)));
  while (target.starts_with("../")) target.erase(0, 3);
  while (target.starts_with("/")) target.erase(0, 1);
  const int run = OpenInside(root, "run", O_PATH | O_DIRECTORY);
  if (run < 0 || !target.starts_with("run/") || target.find("..") != target.npos ||
      mount("none", fmt::format("/proc/self/fd/{}", run).c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") != 0) {
    close(run);
    return;
  }
  close(run);
  // Nothing is in there but what is made now: no link to follow.
  const int empty = OpenInside(root, "run", O_PATH | O_DIRECTORY);
  target.erase(0, std::strlen("run/"));
  for (size_t slash = target.find('/'); slash != target.npos; slash = target.find('/', slash + 1)) {
    (void)mkdirat(empty, target.substr(0, slash).c_str(), 0755);
  }
  close(openat(empty, target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  close(empty);
}

// The name servers are the host's; the image's own resolv.conf lies under them, unchanged.
void MountNameServers(const std::string& root) {
  if (access(kNameServers, R_OK) != 0) return;
  int file = OpenInside(root, kNameServers, O_PATH);
  if (file < 0 && errno == ENOENT) {
    MakePlaceInRun(root);
    file = OpenInside(root, kNameServers, O_PATH);
  }
  if (file < 0) return;
  (void)mount(kNameServers, fmt::format("/proc/self/fd/{}", file).c_str(), nullptr, MS_BIND, nullptr);
  close(file);
}

// What a system expects beside its own files, in this mount namespace alone.
void MountHostsParts(const std::string& root) {
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) Die("private mounts");
  MountNameServers(root);  // before the other /proc: it goes by descriptors
  if (IsDirectory(root + "/proc") && mount("proc", (root + "/proc").c_str(), "proc", 0, nullptr) != 0) Die("mount /proc");
  if (IsDirectory(root + "/dev") && mount("/dev", (root + "/dev").c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
    Die("mount /dev");
  }
}

[[noreturn]] void RunInside(const std::string& root, std::vector<std::string> command) {
  if (chroot(root.c_str()) != 0 || chdir("/") != 0) Die("chroot");
  setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
  setenv("HOME", "/root", 1);
  if (command.empty()) command = {access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh", "-i"};
  std::vector<char*> words;
  for (std::string& word : command) words.push_back(word.data());
  words.push_back(nullptr);
  execvp(words[0], words.data());
  Die(command[0]);
}

// Runs the command in namespaces of its own for mounts and processes, and gives its exit code. What it leaves running
// is killed with it: the first process of a process namespace takes all others along.
Result<int> RunCommand(const std::string& root, const std::vector<std::string>& command) {
  const pid_t outer = fork();
  if (outer < 0) return FailErrno(errno, "fork");
  if (outer == 0) {
    if (unshare(CLONE_NEWNS | CLONE_NEWPID) != 0) Die("namespaces");
    const pid_t first = fork();
    if (first < 0) Die("fork");
    if (first == 0) {
      MountHostsParts(root);
      const pid_t inner = fork();
      if (inner < 0) Die("fork");
      if (inner == 0) RunInside(root, command);
      signal(SIGINT, SIG_IGN);
      signal(SIGQUIT, SIG_IGN);
      int status = 0;
      for (pid_t ended = 0; ended != inner;) {
        ended = wait(&status);
        if (ended < 0 && errno != EINTR) Die("wait");
      }
      _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    int status = 0;
    while (waitpid(first, &status, 0) < 0 && errno == EINTR) continue;
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  // The terminal's keys are the command's.
  const auto interrupt = signal(SIGINT, SIG_IGN), quit = signal(SIGQUIT, SIG_IGN);
  int status = 0;
  while (waitpid(outer, &status, 0) < 0 && errno == EINTR) continue;
  signal(SIGINT, interrupt);
  signal(SIGQUIT, quit);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Result<int> Run(Session& session, const Arguments& given) {
  if (!given.commit && (!given.message.empty() || !given.tag.empty() || !given.author.empty())) {
    return UsageError("-m, --tag and --author go with --commit");
  }
  if (geteuid() != 0) return Fail(EPERM, "only root can change the root directory; use `mirage mount --edit {}`", given.branch);
  TRY(CheckBranchName(given.branch));
  if (!given.tag.empty()) TRY(CheckTagName(given.tag));
  ASSIGN_OR_RETURN(auto library, session.Open());
  ASSIGN_OR_RETURN(const auto head, library->snapshot()->Branch(given.branch));
  if (!head) return Fail(ENOENT, "{}: no such branch; `mirage branch` lists them", given.branch);
  session.library_path = library->path();
  library.reset();  // the daemon is forked from here: no thread of ours may run

  std::string root = access("/run", W_OK) == 0 ? "/run/mirage-enter-XXXXXX" : "/tmp/mirage-enter-XXXXXX";
  if (mkdtemp(root.data()) == nullptr) return FailErrno(errno, "make " + root);
  // Detached: a terminal that hangs up, or a kill, commits nothing. Others: services drop root's rights.
  if (auto started = StartMirfs(session, root, {"edit=" + given.branch, "detach", "system", "allow_other"}, "", false);
      !started) {
    rmdir(root.c_str());
    return tl::make_unexpected(std::move(started).error());
  }
  const auto code = [&] {
    const PlaceForNameServers place(root);
    return RunCommand(root, session.paths);
  }();
  ASSIGN_OR_RETURN(library, session.Open());
  ASSIGN_OR_RETURN(const auto mount, FindMount(root));
  if (!mount) return Fail(ENOENT, "{}: the mount is gone; see `mirage overlay list`", root);
  const bool failed = !code || (*code != 0 && !session.paths.empty());
  const bool keep = given.commit && failed;
  UnmountRequest request;
  request.discard = !given.commit;
  request.commit = given.commit && !keep;
  request.message = given.message;
  request.tag = given.tag;
  request.author = given.author;
  request.user = WhoAmI();
  auto ended = ControlUnmount(library->path(), mount->overlay_id, request);
  if (ended) rmdir(root.c_str());
  if (!ended) return tl::make_unexpected(std::move(ended).error());
  if (!code) return tl::make_unexpected(code.error());
  if (keep) {
    return Fail(ECANCELED, "the command ended with {}; nothing is committed, the overlay is kept: "
                "mirage overlay commit {}, or discard", *code, mount->overlay_id);
  }
  if (given.commit) PrintCommit(session, ended->version, ended->excluded);
  return *code;
}

}  // namespace

Action DeclareEnter(Options& options) {
  auto arguments = std::make_shared<Arguments>();
  options.Positional("BRANCH", arguments->branch, "the branch to enter", true);
  options.Flag("--commit", arguments->commit, "commit what was changed; if a given COMMAND fails, keep it as an overlay");
  options.Value("-m,--message", arguments->message, "with --commit: the message of the version");
  options.Value("--tag", arguments->tag, "with --commit: its tag; else the next vN");
  options.Value("--author", arguments->author, "with --commit: its author; else you");
  return [arguments](Session& session) { return Run(session, *arguments); };
}

}  // namespace mirage
