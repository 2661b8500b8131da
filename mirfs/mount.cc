#include "mirfs/mount.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "mirfs/branch_fs.h"
#include "mirfs/committer.h"
#include "mirfs/control.h"
#include "mirfs/fuse_ops.h"
#include "mirfs/overlay.h"
#include "mirfs/versions_fs.h"
#include "mirfs/watcher.h"

namespace mirage {
namespace {

constexpr char kUsage[] =
    "usage: mirfs LIBRARY MOUNTPOINT [-f] [-o OPTION,...]\n"
    "  all versions, read-only: MOUNTPOINT/BRANCH/TAG/...; or, with -o\n"
    "  edit=BRANCH      one branch, writable: unmounting makes a version\n"
    "  resume=OVERLAY   go on with an overlay (`mirage overlay list`)\n"
    "  message=, tag=   of that version\n"
    "  detach           unmounting makes none: `mirage overlay commit` does\n"
    "  system           set-id programs and device nodes work (root's edit mounts)\n"
    "  allow_other      other users too; the kernel checks modes\n"
    "  cache=SIZE       for decoded blocks: 256M\n"
    "  -f               stay in the foreground\n";
constexpr int kReadAheadKb = 512;

// Splits at commas; a backslash keeps the character behind it.
std::vector<std::string> SplitOptions(std::string_view text) {
  std::vector<std::string> options(1);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) {
      options.back().push_back(text[++i]);
    } else if (text[i] == ',') {
      options.emplace_back();
    } else {
      options.back().push_back(text[i]);
    }
  }
  std::erase(options, "");
  return options;
}

Result<size_t> ParseSize(const std::string& text) {
  char* end = nullptr;
  errno = 0;
  const unsigned long long number = std::strtoull(text.c_str(), &end, 10);
  const std::string_view unit(end);
  const int shift = unit.empty() ? 0 : unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : -1;
  if (errno != 0 || end == text.c_str() || text[0] == '-' || shift < 0 || number > (SIZE_MAX >> shift)) {
    return Fail(EINVAL, "cache={}: not a size; write 256M", text);
  }
  return static_cast<size_t>(number) << shift;
}

Status ApplyOption(const std::string& option, MountArguments* arguments) {
  // Words of fstab and mount(8) that say nothing to us. suid and dev are among them: mount.fuse3 adds them unasked, and
  // what an image holds must not gain power by being mounted; `system` is the way to ask.
  static constexpr const char* kIgnored[] = {"ro",    "rw",       "suid",   "dev",     "nosuid",  "nodev",
                                             "auto",  "noauto",   "user",   "users",   "nouser",  "owner",
                                             "group", "defaults", "nofail", "_netdev", "relatime"};
  static constexpr const char* kPassed[] = {"exec",       "noexec", "atime", "noatime",
                                            "nodiratime", "sync",   "async", "dirsync"};
  auto is = [&](const char* word) { return option == word; };
  const size_t equals = option.find('=');
  const std::string key = option.substr(0, equals);
  const std::string value = equals == option.npos ? "" : option.substr(equals + 1);
  if (std::ranges::any_of(kIgnored, is) || option.starts_with("x-") || key == "comment") return {};
  if (std::ranges::any_of(kPassed, is)) {
    arguments->mount_options += (arguments->mount_options.empty() ? "" : ",") + option;
  } else if (option == "allow_other") {
    arguments->allow_other = arguments->default_permissions = true;
  } else if (option == "default_permissions") {
    arguments->default_permissions = true;
  } else if (option == "system") {
    arguments->system = true;
  } else if (option == "detach") {
    arguments->detached = true;
  } else if (equals == option.npos || value.empty()) {
    return Fail(EINVAL, "option {}: unknown, or without its value", option);
  } else if (key == "edit") {
    arguments->edit_branch = value;
  } else if (key == "resume") {
    arguments->resume_id = value;
  } else if (key == "message") {
    arguments->message = value;
  } else if (key == "tag") {
    arguments->tag = value;
  } else if (key == "cache") {
    ASSIGN_OR_RETURN(arguments->cache_bytes, ParseSize(value));
  } else {
    return Fail(EINVAL, "option {}: unknown", key);
  }
  return {};
}

Result<std::string> CheckedMountpoint(const std::string& given) {
  std::unique_ptr<char, decltype(&std::free)> resolved(realpath(given.c_str(), nullptr), &std::free);
  struct stat st {};
  if (!resolved || stat(resolved.get(), &st) != 0) {
    const int code = errno;
    if (code == ENOENT) return Fail(ENOENT, "{}: no such directory; make it with mkdir", given);
    if (code == ENOTCONN)
      return Fail(EBUSY, "{}: a dead mount is there; unmount it with `fusermount3 -u {}`", given, given);
    return FailErrno(code, given);
  }
  if (!S_ISDIR(st.st_mode)) return Fail(ENOTDIR, "{}: not a directory; give one to mount on", given);
  const std::string mountpoint = resolved.get();
  const auto found = FindMount(mountpoint);
  if (!found || *found)
    return Fail(EBUSY, "{}: busy: mirfs is mounted there; unmount it, or give another directory", given);
  return mountpoint;
}

// The parent's end of the way into the background: it waits for the daemon's word and ends with it.
class Readiness {
 public:
  // In the foreground there is nobody to tell.
  static Result<Readiness> Start(bool foreground) {
    if (foreground) return Readiness(-1);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return FailErrno(errno, "pipe");
    const pid_t child = fork();
    if (child < 0) return FailErrno(errno, "fork");
    if (child == 0) {
      close(ends[0]);
      setsid();
      return Readiness(ends[1]);
    }
    close(ends[1]);
    std::string said;
    std::array<char, 1024> buffer;
    for (ssize_t n; (n = read(ends[0], buffer.data(), buffer.size())) != 0;) {
      if (n > 0) said.append(buffer.data(), static_cast<size_t>(n));
      if (n < 0 && errno != EINTR) break;
    }
    if (said == kReady) _exit(0);
    if (said.empty()) said = "the daemon died before the mount was ready; try -f";
    std::fprintf(stderr, "mirfs: %s\n", said.c_str());
    _exit(1);
  }
  Readiness(Readiness&& other) noexcept : pipe_(std::exchange(other.pipe_, -1)) {}
  ~Readiness() {
    if (pipe_ >= 0) close(pipe_);
  }
  // Lets go of the terminal, then of the parent.
  void Ready() {
    if (pipe_ < 0) return;
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= 2; ++fd) dup2(null, fd);
    if (null > 2) close(null);
    Tell(kReady);
  }
  // True: the parent says it; false: there is none (any more).
  bool Failed(const std::string& message) { return Tell(message); }

 private:
  static constexpr char kReady[] = "\1";
  explicit Readiness(int pipe) : pipe_(pipe) {}
  bool Tell(std::string_view text) {
    if (pipe_ < 0) return false;
    const bool told = write(pipe_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    close(std::exchange(pipe_, -1));
    return told;
  }
  int pipe_;
};

void BlockSignals(sigset_t* signals) {
  sigemptyset(signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(signals, signal);
  pthread_sigmask(SIG_BLOCK, signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

// SIGTERM and SIGINT unmount: leaving the loop instead would lose what the kernel has not written yet. In use: the
// mount is detached and served on until its last user goes.
class SignalThread {
 public:
  SignalThread(const sigset_t& signals, std::string mountpoint, bool foreground)
      : signals_(signalfd(-1, &signals, SFD_CLOEXEC)),
        stop_(eventfd(0, EFD_CLOEXEC)),
        mountpoint_(std::move(mountpoint)),
        foreground_(foreground),
        thread_([this] { Run(); }) {}
  ~SignalThread() {
    const uint64_t one = 1;
    if (write(stop_, &one, sizeof one) < 0) syslog(LOG_ERR, "signals: %m");
    thread_.join();
    close(signals_);
    close(stop_);
  }

 private:
  void Run() {
    for (;;) {
      std::array<pollfd, 2> wait{
          {{.fd = stop_, .events = POLLIN, .revents = 0}, {.fd = signals_, .events = POLLIN, .revents = 0}}};
      poll(wait.data(), wait.size(), -1);
      if (wait[0].revents != 0) return;
      signalfd_siginfo info{};
      if (wait[1].revents == 0 || read(signals_, &info, sizeof info) != sizeof info) continue;
      if (info.ssi_signo == SIGHUP && !foreground_) continue;
      Status status = Unmount(mountpoint_, false);
      if (!status && status.error().code == EBUSY) {
        syslog(LOG_WARNING, "%s: in use by %s; it is detached and ends with its last user", mountpoint_.c_str(),
               DescribeUsers(mountpoint_).c_str());
        status = Unmount(mountpoint_, true);
      }
      if (!status) syslog(LOG_ERR, "%s", status.error().message.c_str());
    }
  }
  const int signals_, stop_;
  const std::string mountpoint_;
  const bool foreground_;
  std::thread thread_;
};

// Best effort: the kernel's default of 128 KiB halves the speed of long reads; only root may.
void RaiseReadAhead(dev_t device) {
  const std::string path = fmt::format("/sys/class/bdi/{}:{}/read_ahead_kb", major(device), minor(device));
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  const std::string text = std::to_string(kReadAheadKb);
  if (write(fd, text.data(), text.size()) < 0) syslog(LOG_DEBUG, "%s: %m", path.c_str());
  close(fd);
}

// A session from mounted to unmounted. `ready` runs once the mount answers. Gives the mount's device.
Result<dev_t> ServeUntilUnmounted(FuseSession& session, const std::string& mountpoint, Readiness& readiness) {
  struct stat st {};
  int code = 0;
  std::thread waiter([&] {
    // The first answer comes behind the kernel's handshake, which would reset the read-ahead.
    if (stat(mountpoint.c_str(), &st) != 0) {
      code = errno;
      (void)Unmount(mountpoint, true);
      return;
    }
    RaiseReadAhead(st.st_dev);
    readiness.Ready();
  });
  const Status served = session.Serve();
  waiter.join();
  TRY(served);
  if (code != 0) return FailErrno(code, mountpoint + ": the mount does not answer");
  return st.st_dev;
}

Status RunReadOnly(const MountArguments& arguments, const std::string& mountpoint, const FuseOptions& options,
                   const sigset_t& signals, Readiness& readiness) {
  ASSIGN_OR_RETURN(auto library, Library::Open(arguments.library, {.cache_bytes = arguments.cache_bytes,
                                                                   .purpose = "mount on " + mountpoint}));
  VersionsFs filesystem(library);
  ASSIGN_OR_RETURN(const auto session, FuseSession::Mount(filesystem, mountpoint, options));
  const SignalThread signal_thread(signals, mountpoint, arguments.foreground);
  const Watcher watcher(library, filesystem, *session);
  return ServeUntilUnmounted(*session, mountpoint, readiness).map([](dev_t) {});
}

// Overlays of the branch that were unmounted but never committed (the commit failed, or the daemon was killed in it).
Status CommitPending(Library& library, const std::string& branch) {
  ASSIGN_OR_RETURN(const auto overlays, ListOverlays(library));
  for (const OverlayInfo& overlay : overlays) {
    if (overlay.branch != branch || overlay.mounted || overlay.state != OverlayInfo::kUnmounted) continue;
    const auto committed = CommitOverlay(library, overlay.id, {});
    if (!committed) {
      std::fprintf(stderr, "mirfs: overlay %s is left as it is: %s\n", overlay.id.c_str(),
                   committed.error().message.c_str());
    } else if (*committed) {
      std::fprintf(stderr, "mirfs: overlay %s, left by an earlier mount, is now %s/%s\n", overlay.id.c_str(),
                   (*committed)->branch.c_str(), (*committed)->tag.c_str());
    }
  }
  TRY(library.Refresh().map([](bool) {}));
  return {};
}

Result<std::unique_ptr<Overlay>> OpenOverlay(Library& library, const MountArguments& arguments,
                                             const std::string& mountpoint) {
  if (!arguments.resume_id.empty()) {
    ASSIGN_OR_RETURN(const OverlayInfo found, FindOverlay(library, arguments.resume_id));
    ASSIGN_OR_RETURN(auto overlay, Overlay::Open(library, found.id));
    TRY(overlay->MarkMounted(mountpoint));
    return overlay;
  }
  TRY(CheckBranchName(arguments.edit_branch));
  TRY(CommitPending(library, arguments.edit_branch));
  return Overlay::Create(library, {.branch = arguments.edit_branch,
                                   .mountpoint = mountpoint,
                                   .message = arguments.message,
                                   .tag = arguments.tag,
                                   .author = "",
                                   .detached = arguments.detached});
}

// What the kernel holds of the mount comes to the daemon.
Status WriteOut(const std::string& mountpoint) {
  const int fd = open(mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return FailErrno(errno, mountpoint);
  const int failed = syncfs(fd) == 0 ? 0 : errno;
  close(fd);
  if (failed != 0) return FailErrno(failed, mountpoint + ": write out what was changed");
  return {};
}

// What was asked for at the unmount; nothing for a plain umount.
class UnmountWish {
 public:
  Status Take(const UnmountRequest& request, const std::string& mountpoint) {
    if (auto written = WriteOut(mountpoint); !written && !request.discard) return written;
    {
      std::lock_guard lock(mutex_);  // before the unmount: the loop may end before this thread runs on
      request_ = request;
    }
    Status status = Unmount(mountpoint, false);
    if (status) return status;
    std::lock_guard lock(mutex_);
    request_ = {};
    if (status.error().code != EBUSY) return status;
    const std::string users = DescribeUsers(mountpoint);
    return Fail(EBUSY, "{}: in use by {}; nothing has happened", mountpoint,
                users.empty() ? "a process that cannot be seen" : users);
  }
  UnmountRequest request() const {
    std::lock_guard lock(mutex_);
    return request_;
  }

 private:
  mutable std::mutex mutex_;
  UnmountRequest request_;  // guarded by mutex_
};

// Behind the loop's end: what was written is safe, then it is due, then it is a version.
Result<UnmountResult> EndEdit(Library& library, std::unique_ptr<Overlay> overlay, const UnmountRequest& request) {
  if (request.discard) {
    TRY(overlay->Remove());
    return UnmountResult{.version = std::nullopt, .discarded = true};
  }
  OverlayInfo info = overlay->info();
  if (request.commit) info.detached = false;
  if (!request.message.empty()) info.message = request.message;
  if (!request.tag.empty()) info.tag = request.tag;
  if (!request.author.empty()) info.author = request.author;
  TRY(overlay->Update(info));
  if (info.detached) return UnmountResult{.version = std::nullopt, .kept = true};
  TRY(overlay->MarkUnmounted());
  ASSIGN_OR_RETURN(auto version, CommitOverlay(library, std::move(overlay), {}));
  return UnmountResult{.version = std::move(version), .discarded = false};
}

Status RunEdit(const MountArguments& arguments, const std::string& mountpoint, const FuseOptions& options,
               const sigset_t& signals, Readiness& readiness) {
  ASSIGN_OR_RETURN(auto library, Library::Open(arguments.library, {.cache_bytes = arguments.cache_bytes,
                                                                   .purpose = "edit on " + mountpoint}));
  ASSIGN_OR_RETURN(auto overlay, OpenOverlay(*library, arguments, mountpoint));
  const bool fresh = arguments.resume_id.empty();
  std::unique_ptr<BranchFs> filesystem;
  std::unique_ptr<FuseSession> session;
  std::unique_ptr<ControlServer> control;
  UnmountWish wish;
  std::mutex ending_mutex;
  bool ending = false;  // guarded by ending_mutex; from then on the control thread has no filesystem
  auto mount = [&]() -> Status {
    ASSIGN_OR_RETURN(filesystem, BranchFs::Open(library, *overlay));
    ASSIGN_OR_RETURN(session, FuseSession::Mount(*filesystem, mountpoint, options));
    ASSIGN_OR_RETURN(control, ControlServer::Listen(overlay->path(), [&](const UnmountRequest& request) {
                       return wish.Take(request, mountpoint);
                     }, [&]() -> Result<std::string> {
                       TRY(WriteOut(mountpoint));
                       const std::lock_guard lock(ending_mutex);
                       if (ending) return Fail(EBUSY, "{}: it is being unmounted", mountpoint);
                       TRY(filesystem->SyncAll());
                       return overlay->MakeView();
                     }));
    return {};
  };
  if (Status mounted = mount(); !mounted) {
    session.reset();
    filesystem.reset();
    if (fresh) (void)overlay->Remove();  // nothing was ever in it
    return mounted;
  }
  std::string branch = overlay->info().branch;
  const std::string id = overlay->info().id;
  auto serve = [&]() -> Result<UnmountResult> {
    const SignalThread signal_thread(signals, mountpoint, arguments.foreground);
    ASSIGN_OR_RETURN(const dev_t device, ServeUntilUnmounted(*session, mountpoint, readiness));
    // A connection that was aborted ends the loop too, with what the kernel held lost: that is a crash, not an unmount.
    const bool aborted = IsMounted(mountpoint, device);
    {
      const std::lock_guard lock(ending_mutex);
      ending = true;
    }
    TRY(filesystem->Close());
    filesystem.reset();
    session.reset();
    if (aborted) {
      return Fail(ECONNABORTED, "the connection of {} was cut: what was not synced is lost; see `mirage overlay list`",
                  mountpoint);
    }
    return EndEdit(*library, std::move(overlay), wish.request());
  };
  const auto result = serve();
  control->Finish(result);
  if (!result) return Fail(result.error().code, "overlay {} of {}: {}", id, branch, result.error().message);
  if (result->version) {
    syslog(LOG_INFO, "%s: committed %s/%s", mountpoint.c_str(), result->version->branch.c_str(),
           result->version->tag.c_str());
    if (arguments.foreground) {
      std::printf("%s/%s %s\n", result->version->branch.c_str(), result->version->tag.c_str(),
                  result->version->manifest.Hex().c_str());
    }
  }
  return {};
}

Status RunMount(const MountArguments& arguments, const sigset_t& signals, Readiness& readiness) {
  ASSIGN_OR_RETURN(const std::string mountpoint, CheckedMountpoint(arguments.mountpoint));
  const bool edit = !arguments.edit_branch.empty() || !arguments.resume_id.empty();
  FuseOptions options;
  options.source = arguments.library;
  // Root's edits go by the kernel's checks. Anyone else is root of the tree: owners and modes are the image's, not the
  // host's.
  options.default_permissions = arguments.default_permissions || (edit && geteuid() == 0);
  options.mount_options = arguments.mount_options;
  auto add = [&](const char* option) {
    options.mount_options += (options.mount_options.empty() ? "" : ",") + std::string(option);
  };
  if (arguments.allow_other) add("allow_other");
  add(arguments.system ? "suid,dev" : "nosuid,nodev");
  return edit ? RunEdit(arguments, mountpoint, options, signals, readiness)
              : RunReadOnly(arguments, mountpoint, options, signals, readiness);
}

}  // namespace

Result<MountArguments> ParseMountArguments(int argc, const char* const* argv) {
  MountArguments arguments;
  std::vector<std::string> words;
  bool options_end = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (options_end || word == "-" || !word.starts_with('-')) {
      words.push_back(word);
    } else if (word == "--") {
      options_end = true;
    } else if (word == "-f") {
      arguments.foreground = true;
    } else if (word.starts_with("-o")) {
      if (word == "-o" && i + 1 == argc) return Fail(EINVAL, "-o: no options behind it");
      for (const std::string& option : SplitOptions(word == "-o" ? argv[++i] : word.substr(2))) {
        TRY(ApplyOption(option, &arguments));
      }
    } else {
      return Fail(EINVAL, "{}: unknown", word);
    }
  }
  if (words.size() != 2) return Fail(EINVAL, "LIBRARY and MOUNTPOINT are needed");
  const bool edit = !arguments.edit_branch.empty();
  if (edit && !arguments.resume_id.empty()) return Fail(EINVAL, "edit= and resume= exclude each other");
  if (!edit && (!arguments.message.empty() || !arguments.tag.empty() || arguments.detached))
    return Fail(EINVAL, "message=, tag= and detach go with edit=");
  if (arguments.system && ((!edit && arguments.resume_id.empty()) || geteuid() != 0)) {
    return Fail(EINVAL, "system: only for root's edit mounts");
  }
  arguments.library = words[0];
  arguments.mountpoint = words[1];
  return arguments;
}

int RunMirfs(int argc, const char* const* argv) {
  if (argc == 2 && (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0)) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  auto arguments = ParseMountArguments(argc, argv);
  if (!arguments) {
    std::fprintf(stderr, "mirfs: %s; see mirfs --help\n", arguments.error().message.c_str());
    return 2;
  }
  // Everything that can be relative is resolved before the daemon leaves the directory.
  if (std::unique_ptr<char, decltype(&std::free)> library(realpath(arguments->library.c_str(), nullptr), &std::free);
      library) {
    arguments->library = library.get();
  } else {
    std::fprintf(stderr, "mirfs: %s: no library there: %s\n", arguments->library.c_str(), std::strerror(errno));
    return 1;
  }
  if (arguments->mountpoint[0] != '/') {
    const std::unique_ptr<char, decltype(&std::free)> here(getcwd(nullptr, 0), &std::free);
    if (here) arguments->mountpoint = std::string(here.get()) + "/" + arguments->mountpoint;
  }
  sigset_t signals;
  BlockSignals(&signals);  // inherited by every thread to come
  openlog("mirfs", LOG_PID | (arguments->foreground ? LOG_PERROR : 0), LOG_DAEMON);
  auto readiness = Readiness::Start(arguments->foreground);
  Status status;
  if (!readiness) {
    std::fprintf(stderr, "mirfs: %s\n", readiness.error().message.c_str());
    return 1;
  }
  if (chdir("/") == 0) status = RunMount(*arguments, signals, *readiness);
  if (status) return 0;
  if (!readiness->Failed(status.error().message)) {
    if (arguments->foreground) {
      std::fprintf(stderr, "mirfs: %s\n", status.error().message.c_str());
    } else {
      syslog(LOG_ERR, "%s", status.error().message.c_str());
    }
  }
  return 1;
}

}  // namespace mirage
