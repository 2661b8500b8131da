// A branch overlay on disk: what a writable mount has changed above a version, kept until it is committed or discarded.
//
//   overlays/<id>/overlay.json   what it is: branch, base, state, where mounted, what to say at the commit; replaced atomically
//                 lock           flock'd by the daemon (or by a commit): a dead process holds none
//                 db/            its database: inode records, directory entries, block maps (overlay_db.h)
//                 data/<inode>   file bytes (data_directory.h, upper_file.h)
//                 reserve        room for the database while the kernel writes files by itself: given up when the disk is full
//                 views/<id>     copies of db/ that a `diff` looks at; left ones are removed when the overlay is opened
//
// States: active (mounted, left by a crash, or detached; never committed unasked) -> unmounted (a commit is due) -> gone;
// unmounted -> conflict (its branch moved and the changes touch; waits for a decision) -> gone: the directory is renamed to
// <id>.gone, and then removed.
//
// An overlay names objects of the library: its base manifest, and contents and trees that its records hold by id. All of
// them are reachable from the base manifest, so that manifest is all that gc has to take for a root (`base` of each
// overlay.json; one that cannot be read must stop gc). A commit publishes before it removes the overlay.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mirfs/data_directory.h"
#include "mirfs/overlay_db.h"
#include "store/file_lock.h"
#include "store/library.h"

namespace mirage {

struct OverlayInfo {
  enum State { kActive, kUnmounted, kConflict };
  std::string id, branch;
  ObjectId base;                // the manifest below
  std::string base_tag;         // the tag it had when the overlay was made
  State state = kActive;
  std::string mountpoint;       // absolute; where it is or was mounted
  std::string message, tag, author;  // for the commit; empty: the default
  int64_t created = 0;          // seconds since 1970
  bool mounted = false;         // a live process (daemon, commit) holds the lock; not stored
  bool detached = false;        // an unmount makes no commit due; it waits for `mirage overlay commit`
  std::string boot;  // not empty: its data may not be on the disk, and `state` holds for this run of the machine;
                     // behind it the overlay is active, as after any crash
  std::string error;            // of the last failed commit
  std::vector<std::string> conflicts;  // kConflict: "/etc/hosts: both changed its content"; as many as fit
};
const char* OverlayStateName(OverlayInfo::State state);  // "active", "unmounted", "conflict"

// All overlays, oldest first. One that cannot be read is listed with its id, and the trouble in `error`.
Result<std::vector<OverlayInfo>> ListOverlays(Library& library);
// The same of a library that need not be opened.
Result<std::vector<OverlayInfo>> ListOverlays(Env& env, const std::string& library_path);
std::string OverlayPath(const std::string& library_path, const std::string& id);
// One overlay by its id or an unambiguous beginning of it. ENOENT, EINVAL (ambiguous).
Result<OverlayInfo> FindOverlay(Library& library, const std::string& id);
// Removes an overlay and what is in it. EBUSY: it is mounted. ENOENT: none of that id.
Status DiscardOverlay(Library& library, const std::string& id);

// An overlay held by this process (or a view of one that another holds): its lock, record and database.
// Not thread-safe but for db() and data().
class Overlay {
 public:
  struct CreateOptions {
    std::string branch{};         // ENOENT: no such branch
    std::string mountpoint{};     // absolute
    std::string message{}, tag{}, author{};
    bool detached = false;
    RowStore::Limits limits{};
  };
  // A new overlay above the branch's head.
  static Result<std::unique_ptr<Overlay>> Create(Library& library, const CreateOptions& options);
  // An existing one. EBUSY: a live process has it. ENOENT: none of that id.
  static Result<std::unique_ptr<Overlay>> Open(Library& library, const std::string& id, const RowStore::Limits& limits = {});
  // One that may be mounted, as it was when its daemon copied its database to `database` (control.h): to look at, unlocked.
  // File bytes are those of now. The copy is removed with the object.
  static Result<std::unique_ptr<Overlay>> OpenView(Library& library, const std::string& id, const std::string& database);
  // The daemon's part of it: gives the copy's path.
  Result<std::string> MakeView() const;
  ~Overlay();

  const OverlayInfo& info() const { return info_; }
  // Replaces overlay.json, durably (id, base and created stay).
  Status Update(const OverlayInfo& info);
  // The state kUnmounted, durably: from now on a commit is due even if this process dies; with `data_synced` also if
  // the machine does.
  Status MarkUnmounted(bool data_synced) { return MarkUnmounted(data_synced, info_); }
  Status MarkUnmounted(bool data_synced, const OverlayInfo& info);  // and the rest of the record as `info` says
  // Active again, at `mountpoint` (resume).
  Status MarkMounted(const std::string& mountpoint);

  OverlayDb& db() const { return *db_; }
  const std::string& path() const { return path_; }
  DataDirectory& data() const { return *data_; }
  std::string reserve_path() const { return path_ + "/reserve"; }
  // Ends the overlay: from now on there is none of this id. Its files go with the object: of ten thousand that takes
  // longer than to commit them. If this process dies first, the next Create removes them.
  Status Retire();
  // Retires it and removes its files. The object is good for nothing afterwards.
  Status Remove();

 private:
  Overlay(Library& library, std::string path, OverlayInfo info, std::optional<FileLock> lock);
  Status OpenDb(bool create, const RowStore::Limits& limits);
  Library& library_;
  std::string path_;
  OverlayInfo info_;
  std::optional<FileLock> lock_;  // not of a view
  bool retired_ = false;
  std::string view_;              // of a view: its database
  std::unique_ptr<OverlayDb> db_;
  std::unique_ptr<DataDirectory> data_;
};

}  // namespace mirage
