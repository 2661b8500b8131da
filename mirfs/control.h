// How an edit mount is ended from outside, and how a mount is found. The daemon listens on a Unix socket in its
// overlay's directory (outside the mount, as private or as shared as the library); one JSON object a line goes each way:
//
//   -> {"do":"unmount","message":"...","tag":"...","author":"...","user":"...","discard":false,"commit":false}
//   <- {"version":{"manifest":"<hex>","branch":"...","tag":"..."}} | {"unchanged":true} | {"discarded":true}
//    | {"kept":true} | {"code":16,"error":"..."}; of a commit also "excluded":{"count":1,"paths":["..."]}
//
// or, for a look at what would be committed (Overlay::OpenView):
//
//   -> {"do":"view"}
//   <- {"database":"..."} | {"code":16,"error":"..."}
//
// The reply to an unmount comes when the session loop has ended and the commit is done, so that who asked knows the result.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "mirfs/committer.h"
#include "store/library.h"

namespace mirage {

struct UnmountRequest {
  std::string message = {}, tag = {};  // empty: what was said when it was mounted, else the default
  bool discard = false;
  std::string author = {};
  bool commit = false;       // one that was mounted detached too
  std::string user = {};     // who asks: the author of a version for which nobody gave one
};
struct UnmountResult {
  std::optional<Published> version;  // nullopt: nothing had changed, `discarded` or `kept`
  bool discarded = false;
  bool kept = false;                 // mounted detached: the overlay waits to be committed
  ExcludedPaths excluded;            // not in the version, and gone
};

// Asks the daemon of an overlay to sync, unmount and commit, and waits for the result. ENOENT, ECONNREFUSED: no daemon.
// EBUSY: nothing has happened; the message names who uses the mount. The library need not be opened here. An
// error that keeps an edit from its end names the overlay and the command to go on with.
Result<UnmountResult> ControlUnmount(const std::string& library_path, const std::string& overlay_id,
                                     const UnmountRequest& request);

// Asks the daemon of an overlay to write out what it and the kernel hold and to copy its database; gives the copy's path.
Result<std::string> ControlView(const std::string& library_path, const std::string& overlay_id);

// What is mounted on a mount point, from /proc/self/mountinfo. nullopt: nothing of ours.
struct FoundMount {
  std::string mountpoint, library;
  std::string overlay_id;  // empty: the read-only tree
};
Result<std::optional<FoundMount>> FindMount(const std::string& mountpoint);

// "vim (pid 812), bash (pid 77)": processes with a working directory, root, open file or mapping on the device of
// `mountpoint`; empty when none is seen (other users' processes are not, unless we are root).
std::string DescribeUsers(const std::string& mountpoint);

// Whether the mount of device `device` (st_dev) is still on `mountpoint`.
bool IsMounted(const std::string& mountpoint, dev_t device);

// Unmounts: umount2 as root, else through fusermount3. EBUSY when in use. `lazy` detaches it: it ends with its last
// user.
Status Unmount(const std::string& mountpoint, bool lazy);

// The daemon's side.
class ControlServer {
 public:
  // Syncs and unmounts, having noted the request; EBUSY changes nothing. Called from the server's thread.
  using OnUnmount = std::function<Status(const UnmountRequest&)>;
  using OnView = std::function<Result<std::string>()>;  // the database's path; called likewise
  // Listens on DIRECTORY/control.sock (replacing one left by a dead daemon).
  static Result<std::unique_ptr<ControlServer>> Listen(const std::string& directory, OnUnmount on_unmount, OnView on_view);
  ~ControlServer();  // closes, removes the socket; who waits and got no reply sees the connection end
  // Stops listening and answers who asked for the unmount, if anyone did.
  void Finish(const Result<UnmountResult>& result);

 private:
  ControlServer() = default;
  void Run();
  void Serve(int connection);

  std::string path_;
  int listener_ = -1, stop_ = -1;
  OnUnmount on_unmount_;
  OnView on_view_;
  std::mutex mutex_;
  int waiting_ = -1;  // connection that asked; guarded by mutex_
  std::thread thread_;
};

}  // namespace mirage
