// The libguestfs appliance: a small virtual machine that has the disk images of one machine, read-only, and is asked about it.
// Launched once; falls back to software emulation by itself when hardware acceleration is missing, broken or hanging,
// with one line that says so.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "store/result.h"

struct guestfs_h;

namespace mirage {

class Appliance {
 public:
  struct Drive {
    std::string path, format;  // the format by QEMU's name, never probed by QEMU
  };
  struct Options {
    std::vector<Drive> drives;  // in order: sda, sdb, ...
    const std::atomic<bool>* interrupted = nullptr;
    std::function<void(std::string_view)> say;
  };
  // ENOTSUP: there is no libguestfs. EINTR, or EIO with what it said.
  static Result<std::unique_ptr<Appliance>> Launch(Options options);
  ~Appliance();  // ends the virtual machine

  // A handle serves one thread at a time.
  guestfs_h* handle() const { return handle_; }
  // The error of the call that has just failed: "WHAT: libguestfs's words"; EINTR when the user ended it.
  tl::unexpected<Error> Failed(std::string_view what) const;
  const std::atomic<bool>* interrupt_flag() const { return options_.interrupted; }
  bool interrupted() const { return options_.interrupted != nullptr && options_.interrupted->load(); }
  // Ends a running upload or download; may be called from any thread.
  void Cancel();

 private:
  explicit Appliance(Options options) : options_(std::move(options)) {}
  Status LaunchOnce(bool emulate, int timeout_s);
  void Close();
  void Watch(int timeout_s, const std::vector<pid_t>& others);  // others: not ours to kill

  const Options options_;
  guestfs_h* handle_ = nullptr;
  // The watchdog kills the virtual machine on an interrupt, and when the launch takes longer than it may. It needs
  // the process id from /proc: guestfs_get_pid waits for the lock that guestfs_launch holds.
  std::thread watchdog_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool launched_ = false, closing_ = false;  // guarded by mutex_
  std::atomic<bool> timed_out_{false};
};

// A text that libguestfs gave; null: none, or its error.
struct GuestTextFreer {
  void operator()(char* text) const;
};
using GuestText = std::unique_ptr<char, GuestTextFreer>;
// A small regular file of the mounted guest, symbolic links followed inside it; empty when there is none. (A fifo must not
// be opened.)
std::string ReadGuestFile(Appliance& appliance, const char* path);

// A list of texts that libguestfs gave, and its memory back; nullopt: null, its error.
std::optional<std::vector<std::string>> TakeGuestList(char** list);

}  // namespace mirage
