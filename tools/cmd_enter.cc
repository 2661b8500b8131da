// `mirage enter`: a branch as a running system's root, thrown away afterwards unless told otherwise.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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
  std::string branch, message, tag;
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
bool IsFile(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

// What a system expects beside its own files, in this mount namespace alone. The name servers are the host's; the image's
// own resolv.conf lies under them, unchanged.
void MountHostsParts(const std::string& root) {
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) Die("private mounts");
  if (IsDirectory(root + "/proc") && mount("proc", (root + "/proc").c_str(), "proc", 0, nullptr) != 0) Die("mount /proc");
  if (IsDirectory(root + "/dev") && mount("/dev", (root + "/dev").c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
    Die("mount /dev");
  }
  if (IsFile(root + "/etc/resolv.conf") && access("/etc/resolv.conf", R_OK) == 0) {
    (void)mount("/etc/resolv.conf", (root + "/etc/resolv.conf").c_str(), nullptr, MS_BIND, nullptr);
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
  if (!given.commit && (!given.message.empty() || !given.tag.empty())) return UsageError("-m and --tag go with --commit");
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
  const auto code = RunCommand(root, session.paths);
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
  request.author = WhoAmI();
  auto ended = ControlUnmount(library->path(), mount->overlay_id, request);
  if (ended) rmdir(root.c_str());
  if (!ended) return tl::make_unexpected(std::move(ended).error());
  if (!code) return tl::make_unexpected(code.error());
  if (keep) {
    return Fail(ECANCELED, "the command ended with {}; nothing is committed, the overlay is kept: "
                "mirage overlay commit {}, or discard", *code, mount->overlay_id);
  }
  if (ended->version) {
    PrintRef(session, ended->version->branch, ended->version->tag, ended->version->manifest);
  } else if (given.commit) {
    session.out->Line("no changes");
  }
  return *code;
}

}  // namespace

Action DeclareEnter(Options& options) {
  auto arguments = std::make_shared<Arguments>();
  options.Positional("BRANCH", arguments->branch, "the branch to enter", true);
  options.Flag("--commit", arguments->commit, "commit what was changed; if a given COMMAND fails, keep it as an overlay");
  options.Value("-m,--message", arguments->message, "with --commit: the message of the version");
  options.Value("--tag", arguments->tag, "with --commit: its tag; else the next vN");
  return [arguments](Session& session) { return Run(session, *arguments); };
}

}  // namespace mirage
