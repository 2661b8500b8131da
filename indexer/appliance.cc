#include "indexer/appliance.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "indexer/acceleration.h"
#include "indexer/libguestfs.h"

namespace mirage {
namespace {

constexpr int kAcceleratedLaunchSeconds = 60;
constexpr int kEmulatedLaunchSeconds = 900;
constexpr size_t kMaxErrorBytes = 300;

// Processes of QEMU that are children of this one.
std::vector<pid_t> QemuChildren() {
  std::vector<pid_t> found;
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return found;
  while (const dirent* entry = readdir(proc)) {
    const pid_t pid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
    if (pid <= 0) continue;
    const int fd = open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    char text[512];
    const ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) continue;
    text[n] = 0;
    const char* const end = std::strrchr(text, ')');  // "PID (COMMAND) STATE PARENT ..."
    const char* const begin = std::strchr(text, '(');
    if (begin == nullptr || end == nullptr || std::strlen(end) < 4) continue;
    if (std::strtol(end + 4, nullptr, 10) == getpid() && std::strncmp(begin + 1, "qemu", 4) == 0) found.push_back(pid);
  }
  closedir(proc);
  return found;
}

// libguestfs prints nothing by itself: errors are returned, and the appliance's console is nobody's concern.
void IgnoreEvent(guestfs_h*, void*, uint64_t, int, int, const char*, size_t, const uint64_t*, size_t) {}

}  // namespace

Result<std::unique_ptr<Appliance>> Appliance::Launch(Options options) {
  TRY(LoadLibguestfs());
  std::unique_ptr<Appliance> appliance(new Appliance(std::move(options)));
  const char* const settings = std::getenv("LIBGUESTFS_BACKEND_SETTINGS");
  const bool asked = settings != nullptr && std::strstr(settings, "force_tcg") != nullptr;
  std::string why = asked ? "" : ProbeHardwareAcceleration();
  if (!asked && why.empty()) {
    const Status launched = appliance->LaunchOnce(false, kAcceleratedLaunchSeconds);
    if (launched) return appliance;
    if (launched.error().code == EINTR || launched.error().code == EINVAL) return tl::make_unexpected(launched.error());
    why = appliance->timed_out_ ? "the appliance does not come up with it" : launched.error().message;
    appliance->Close();
  }
  if (!asked && appliance->options_.say) {
    appliance->options_.say(
        fmt::format("hardware acceleration is not usable ({}); using software emulation, which is slower", why));
  }
  TRY(appliance->LaunchOnce(true, kEmulatedLaunchSeconds));
  return appliance;
}

Status Appliance::LaunchOnce(bool emulate, int timeout_s) {
  handle_ = Guestfs().create();
  if (handle_ == nullptr) return FailErrno(errno, "cannot make a libguestfs handle");
  Guestfs().set_error_handler(handle_, nullptr, nullptr);
  Guestfs().set_event_callback(handle_, IgnoreEvent,
                               GUESTFS_EVENT_APPLIANCE | GUESTFS_EVENT_LIBRARY | GUESTFS_EVENT_WARNING, 0, nullptr);
  Guestfs().set_autosync(handle_, 0);
  Guestfs().set_pgroup(handle_, 1);  // Ctrl-C is for us; we end the virtual machine
  if (Guestfs().set_backend(handle_, "direct") != 0) return Failed("cannot choose the direct backend");
  if (emulate) {
    char force[] = "force_tcg";
    char* settings[] = {force, nullptr};
    Guestfs().set_backend_settings(handle_, settings);
  }
  for (const Drive& drive : options_.drives) {
    if (Guestfs().add_drive_opts(handle_, drive.path.c_str(), GUESTFS_ADD_DRIVE_OPTS_READONLY, 1,
                                 GUESTFS_ADD_DRIVE_OPTS_FORMAT, drive.format.c_str(), -1) == 0) {
      continue;
    }
    const std::string which = options_.drives.size() == 1 ? "it" : drive.path;
    Error error = std::move(Failed(fmt::format("{} cannot be opened as a {} image", which, drive.format)).value());
    if (error.code != EINTR) error.code = EINVAL;
    return tl::make_unexpected(std::move(error));
  }
  timed_out_ = false;
  launched_ = closing_ = false;
  watchdog_ = std::thread([this, timeout_s, others = QemuChildren()] { Watch(timeout_s, others); });
  if (Guestfs().launch(handle_) != 0) {
    return Failed("cannot start the libguestfs appliance (libguestfs-test-tool says more)");
  }
  std::lock_guard lock(mutex_);
  launched_ = true;
  return {};
}

void Appliance::Watch(int timeout_s, const std::vector<pid_t>& others) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(timeout_s);
  std::unique_lock lock(mutex_);
  while (!closing_) {
    const bool late = !launched_ && std::chrono::steady_clock::now() > deadline;
    if (late) timed_out_ = true;
    if (late || interrupted()) {
      for (const pid_t pid : QemuChildren()) {
        if (std::find(others.begin(), others.end(), pid) == others.end()) kill(pid, SIGKILL);
      }
    }
    changed_.wait_for(lock, std::chrono::milliseconds(100));
  }
}

void Appliance::Close() {
  if (watchdog_.joinable()) {
    {
      std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_all();
    watchdog_.join();
  }
  if (handle_ != nullptr) Guestfs().close(handle_);
  handle_ = nullptr;
}

Appliance::~Appliance() { Close(); }

tl::unexpected<Error> Appliance::Failed(std::string_view what) const {
  if (interrupted()) return Fail(EINTR, "interrupted; the library is as it was");
  const char* const text = Guestfs().last_error(handle_);
  std::string words = text != nullptr ? text : "libguestfs gives no reason";
  words = words.substr(0, std::min(words.find('\n'), kMaxErrorBytes));
  return Fail(EIO, "{}: {}", what, words);
}

void Appliance::Cancel() { Guestfs().user_cancel(handle_); }

void GuestTextFreer::operator()(char* text) const { std::free(text); }

std::string ReadGuestFile(Appliance& appliance, const char* path) {
  guestfs_h* const g = appliance.handle();
  if (Guestfs().is_file_opts(g, path, GUESTFS_IS_FILE_OPTS_FOLLOWSYMLINKS, 1, -1) != 1) return {};
  size_t size = 0;
  const GuestText bytes(Guestfs().read_file(g, path, &size));
  return bytes ? std::string(bytes.get(), size) : std::string();
}

std::optional<std::vector<std::string>> TakeGuestList(char** list) {
  if (list == nullptr) return std::nullopt;
  std::vector<std::string> out;
  for (char** item = list; *item != nullptr; ++item) {
    out.emplace_back(*item);
    std::free(*item);
  }
  std::free(list);
  return out;
}

}  // namespace mirage
