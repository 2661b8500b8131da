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
#include "mirfs/mount_status.h"
#include "mirfs/overlay.h"
#include "mirfs/read_around.h"
#include "mirfs/scan_ahead.h"
#include "mirfs/service_manager.h"
#include "mirfs/versions_fs.h"
#include "mirfs/watcher.h"
#include "store/revision.h"

namespace mirage {
namespace {

constexpr int kReadAheadKb = 512;

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
    // Unmounted already, perhaps with a user left: this is the directory below, whose device is never taken for the mount's.
    struct stat above {};
    if (stat((mountpoint + "/..").c_str(), &above) == 0 && above.st_dev == st.st_dev) st.st_dev = 0;
    if (st.st_dev != 0) RaiseReadAhead(st.st_dev);
    readiness.Ready();
    NotifyServiceManager("READY=1");
  });
  const Status served = session.Serve();
  waiter.join();
  NotifyServiceManager("STOPPING=1");
  TRY(served);
  if (code != 0) return FailErrno(code, mountpoint + ": the mount does not answer");
  return st.st_dev;
}

// For `mirage mounts`. Null where the library's directory cannot hold the socket: the mount works without.
std::unique_ptr<MountStatusServer> TellStatus(const Library& library, const FuseSession& session, MountStatus fixed,
                                              std::function<size_t()> inodes) {
  fixed.user = WhoAmI();
  fixed.pid = getpid();
  fixed.since = time(nullptr);
  auto server = MountStatusServer::Listen(library, [&library, &session, fixed, inodes] {
    MountStatus status = fixed;
    status.memory_bytes = ResidentBytes();
    status.inodes = inodes();
    status.requests_by_kind = session.Requests();
    status.hand_overs = session.hand_overs();
    std::erase_if(status.requests_by_kind, [](const auto& kind) { return kind.second == 0; });
    for (const auto& [name, count] : status.requests_by_kind) status.requests += count;
    const auto cache = library.chunks().statistics();
    status.cache_hits = cache.hits;
    status.cache_misses = cache.misses;
    status.cache_bytes = cache.cached_bytes;
    return status;
  });
  if (server) return std::move(*server);
  syslog(LOG_WARNING, "%s: `mirage mounts` will not see it: %s", fixed.mountpoint.c_str(),
         server.error().message.c_str());
  return nullptr;
}

Result<VersionsFs::Options> WhatToShow(const Library& library, const MountArguments& arguments) {
  VersionsFs::Options options;
  options.uid = arguments.uid;
  options.gid = arguments.gid;
  options.branch = arguments.branch;
  if (!arguments.branch.empty()) {
    TRY(CheckBranchName(arguments.branch));
    ASSIGN_OR_RETURN(const auto head, library.snapshot()->Branch(arguments.branch));
    if (!head) return Fail(ENOENT, "branch={}: no such branch; `mirage branch` lists them", arguments.branch);
  }
  if (!arguments.version.empty()) {
    ASSIGN_OR_RETURN(const Version version, ResolveVersion(*library.snapshot(), arguments.version));
    options.version = version.id;
    options.version_name = arguments.version;
  }
  return options;
}

Status RunReadOnly(const MountArguments& arguments, const std::string& mountpoint, const FuseOptions& options,
                   const sigset_t& signals, Readiness& readiness) {
  ASSIGN_OR_RETURN(auto library, Library::Open(arguments.library, {.cache_bytes = arguments.cache_bytes,
                                                                   .purpose = "mount on " + mountpoint}));
  ASSIGN_OR_RETURN(const auto shown, WhatToShow(*library, arguments));
  ASSIGN_OR_RETURN(const auto filesystem, VersionsFs::Open(library, shown));
  ASSIGN_OR_RETURN(const auto session, FuseSession::Mount(*filesystem, mountpoint, options));
  ScanAhead scan_ahead(*filesystem, *session);
  ReadAround read_around(*filesystem, *session);
  session->OnRead([&](NodeId node, uint64_t offset, size_t size) {
    if (offset == 0) scan_ahead.Note(node);
    read_around.Note(node, offset, size);
  });
  const SignalThread signal_thread(signals, mountpoint, arguments.foreground);
  const Watcher watcher(library, [&](const Snapshot& before, const Snapshot& after) {
    filesystem->InvalidateChanges(before, after, *session);
  });
  const std::string shows = !shown.branch.empty() ? "branch " + shown.branch
                            : shown.version       ? "version " + shown.version_name
                                                  : "all versions";
  const auto status = TellStatus(*library, *session, {.mountpoint = mountpoint, .shows = shows},
                                 [&filesystem] { return filesystem->inode_count(); });
  return ServeUntilUnmounted(*session, mountpoint, readiness).map([](dev_t) {});
}

// Overlays of the branch that were unmounted but never committed (the commit failed, or the daemon was killed in it).
Status CommitPending(Library& library, const std::string& branch) {
  ASSIGN_OR_RETURN(const auto overlays, ListOverlays(library));
  for (const OverlayInfo& overlay : overlays) {
    if (overlay.branch != branch || overlay.mounted || overlay.state != OverlayInfo::kUnmounted) continue;
    const auto say = [&](std::string_view line) {
      std::fprintf(stderr, "mirfs: overlay %s: %.*s\n", overlay.id.c_str(), static_cast<int>(line.size()), line.data());
    };
    ExcludedPaths excluded;
    const auto committed = CommitOverlay(library, overlay.id, {.say = say}, &excluded);
    if (!committed) {
      std::fprintf(stderr, "mirfs: overlay %s is left as it is: %s\n", overlay.id.c_str(),
                   committed.error().message.c_str());
    } else if (*committed) {
      std::fprintf(stderr, "mirfs: overlay %s, left by an earlier mount, is now %s/%s\n", overlay.id.c_str(),
                   (*committed)->branch.c_str(), (*committed)->tag.c_str());
    }
    if (committed) excluded.Say(say);
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
                                   .author = arguments.author,
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
    return Fail(EBUSY, "{}: in use by {}", mountpoint, users.empty() ? "a process that cannot be seen" : users);
  }
  UnmountRequest request() const {
    std::lock_guard lock(mutex_);
    return request_;
  }

 private:
  mutable std::mutex mutex_;
  UnmountRequest request_;  // guarded by mutex_
};

// What keeps an edit from its end, in the words of a commit that failed (committer.h).
tl::unexpected<Error> Kept(Error error, const std::string& id, const char* command = "commit") {
  error.message += fmt::format("; the overlay is kept, try again: mirage overlay {} {}", command, id);
  return tl::make_unexpected(std::move(error));
}

// What the end is to be, in the overlay's record, so that it holds should the process die.
Status NoteEnd(Overlay& overlay, const UnmountRequest& request) {
  OverlayInfo info = overlay.info();
  if (request.commit) info.detached = false;
  if (!request.message.empty()) info.message = request.message;
  if (!request.tag.empty()) info.tag = request.tag;
  if (!request.author.empty()) info.author = request.author;
  if (info.author.empty() && !info.detached) info.author = request.user;
  if (!info.detached) return overlay.MarkUnmounted(/*data_synced=*/false, info);
  TRY(overlay.Update(info));
  return overlay.data().SyncAll();
}

// Behind the loop's end: a commit is due, then it is a version. The bytes of new files go to the library's disk, not to
// the overlay's first: that is synced where it stays.
Result<UnmountResult> EndEdit(Library& library, Overlay& overlay, const UnmountRequest& request) {
  UnmountResult result;
  const std::string id = overlay.info().id;
  if (request.discard) {
    if (auto retired = overlay.Retire(); !retired) return Kept(std::move(retired).error(), id, "discard");
    result.discarded = true;
    return result;
  }
  if (auto noted = NoteEnd(overlay, request); !noted) {
    (void)overlay.data().SyncAll();
    return Kept(std::move(noted).error(), id);
  }
  if (overlay.info().detached) {
    result.kept = true;
    return result;
  }
  const auto say = [&](std::string_view line) {
    syslog(LOG_WARNING, "overlay %s: %.*s", id.c_str(), static_cast<int>(line.size()), line.data());
  };
  auto version = CommitOverlay(library, overlay, {.say = say}, &result.excluded);
  if (!version) {
    if (auto synced = overlay.data().SyncAll(); synced) {
      OverlayInfo info = overlay.info();
      info.boot.clear();
      (void)overlay.Update(info);
    }
    return tl::make_unexpected(std::move(version).error());
  }
  result.version = std::move(*version);
  return result;
}

Status RunEdit(const MountArguments& arguments, const std::string& mountpoint, const FuseOptions& options,
               const sigset_t& signals, Readiness& readiness) {
  ASSIGN_OR_RETURN(auto library, Library::Open(arguments.library, {.cache_bytes = arguments.cache_bytes,
                                                                   .purpose = "edit on " + mountpoint}));
  ASSIGN_OR_RETURN(auto overlay, OpenOverlay(*library, arguments, mountpoint));
  const bool fresh = arguments.resume_id.empty();
  std::string branch = overlay->info().branch;
  const std::string id = overlay->info().id;
  std::unique_ptr<BranchFs> filesystem;
  std::unique_ptr<FuseSession> session;
  std::unique_ptr<ControlServer> control;
  UnmountWish wish;
  std::mutex ending_mutex;
  bool ending = false;  // guarded by ending_mutex; from then on the control thread has no filesystem
  auto mount = [&]() -> Status {
    ASSIGN_OR_RETURN(filesystem, BranchFs::Open(library, *overlay));
    ASSIGN_OR_RETURN(session, FuseSession::Mount(*filesystem, mountpoint, options));
    ASSIGN_OR_RETURN(control, ControlServer::Listen(overlay->path(), [&](const UnmountRequest& request) -> Status {
                       const Status taken = wish.Take(request, mountpoint);
                       if (taken) return taken;
                       return Fail(taken.error().code, "{}; nothing has happened to overlay {}, try again: mirage umount {}",
                                   taken.error().message, id, mountpoint);
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
  auto serve = [&]() -> Result<UnmountResult> {
    const SignalThread signal_thread(signals, mountpoint, arguments.foreground);
    // The base stays what it is, but a collection shall not have to wait for the end of the edit.
    std::optional<Watcher> watcher(std::in_place, library, [](const Snapshot&, const Snapshot&) {});
    auto status = TellStatus(*library, *session, {.mountpoint = mountpoint, .shows = "edit of " + branch},
                             [] { return size_t{0}; });
    const auto device = ServeUntilUnmounted(*session, mountpoint, readiness);
    if (!device) return Kept(device.error(), id);
    watcher.reset();
    // A connection that was aborted ends the loop too, with what the kernel held lost: that is a crash, not an unmount.
    const bool aborted = IsMounted(mountpoint, *device);
    {
      const std::lock_guard lock(ending_mutex);
      ending = true;
    }
    const Status closed = filesystem->Close();
    status.reset();
    filesystem.reset();
    session.reset();
    if (!closed || aborted) (void)overlay->data().SyncAll();
    if (!closed) return Kept(closed.error(), id, wish.request().discard ? "discard" : "commit");
    if (aborted) {
      return Fail(ECONNABORTED, "the connection of {} was cut: what was not synced is lost; the rest is kept: "
                  "mirage overlay commit {}, or resume or discard", mountpoint, id);
    }
    return EndEdit(*library, *overlay, wish.request());
  };
  const auto result = serve();
  if (!result) {  // whoever is told of it may go on with the overlay at once
    {
      const std::lock_guard lock(ending_mutex);
      ending = true;
    }
    session.reset();
    filesystem.reset();
    overlay.reset();
  }
  control->Finish(result);
  overlay.reset();  // its files, if it is no more: nobody waits for that
  if (!result) return Fail(result.error().code, "overlay {} of {}: {}", id, branch, result.error().message);
  if (result->version) {
    syslog(LOG_INFO, "%s: committed %s/%s", mountpoint.c_str(), result->version->branch.c_str(),
           result->version->tag.c_str());
    if (arguments.foreground) {
      std::printf("%s/%s %s\n", result->version->branch.c_str(), result->version->tag.c_str(),
                  result->version->manifest.Hex().c_str());
    }
  }
  result->excluded.Say([&](std::string_view line) {
    syslog(LOG_NOTICE, "%s: %.*s", mountpoint.c_str(), static_cast<int>(line.size()), line.data());
  });
  return {};
}

Status RunMount(const MountArguments& arguments, const sigset_t& signals, Readiness& readiness) {
  ASSIGN_OR_RETURN(const std::string mountpoint, CheckedMountpoint(arguments.mountpoint));
  const bool edit = arguments.edit();
  FuseOptions options;
  options.source = arguments.library;
  // Where nobody but its user is let in, that user is root of the tree: owners and modes are the image's, not the host's. And
  // for the kernel's checks it would ask for a directory's mode after each name that is made or removed in it.
  options.default_permissions = arguments.default_permissions;
  options.passthrough = arguments.passthrough && geteuid() == 0;
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

int RunMirfs(int argc, const char* const* argv) {
  if (argc == 2 && (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0)) {
    std::fputs(kMountUsage, stdout);
    return 0;
  }
  auto arguments = ParseMountArguments(argc, argv);
  if (!arguments) {
    std::fprintf(stderr, "mirfs: %s; see mirfs --help\n", arguments.error().message.c_str());
    return 2;
  }
  if (arguments->fake) return 0;
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
