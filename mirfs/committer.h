// An overlay becomes a version. Work follows the change: only directories that changed are written, only files whose bytes
// were written are read, and of those only chunks that are new are stored.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mirfs/overlay.h"
#include "store/library.h"
#include "store/merge.h"

namespace mirage {

// What a commit left out, since the library's mirage.yaml excludes it.
struct ExcludedPaths {
  static constexpr size_t kShown = 20;
  size_t count = 0;
  std::vector<std::string> shown;  // "/var/cache/x": as many as kShown of them
  void Say(const std::function<void(std::string_view)>& say) const;  // in lines; none of none
};

struct CommitOptions {
  std::string message = {}, tag = {}, author = {};  // empty: what the overlay was mounted with, else the default
  std::string to_branch = {};                       // not empty: a new branch of that name, grown from the overlay's base
  std::optional<MergeFavor> favor = {};             // of two sides that conflict: kOurs the branch's head, kTheirs the overlay
  std::function<void(std::string_view)> say = {};   // lines for the user: what went wrong behind the commit; may be empty
};

// Commits an overlay that nobody has mounted, and removes it. nullopt: it held no changes (removed too). `excluded`, if
// given, gets what is not in the version and is gone with the overlay: say it.
// If the branch moved since the overlay was made, its changes are merged onto the head (store/merge.h): one parent, the head.
// What the head has already is not committed twice: the head is the answer.
// After any error the overlay is whole and its record holds the error; the message names the command to go on with.
// EAGAIN: the branch moved and the changes conflict (state kConflict, the record lists them), or it was deleted.
// EEXIST: the tag is taken. EBUSY: it is mounted, or the library was busy for too long.
Result<std::optional<Published>> CommitOverlay(Library& library, const std::string& id, const CommitOptions& options,
                                               ExcludedPaths* excluded = nullptr);
// The same for one that this process holds (the daemon after its session ended). It is retired: its files go with the
// object.
Result<std::optional<Published>> CommitOverlay(Library& library, Overlay& overlay, const CommitOptions& options,
                                               ExcludedPaths* excluded = nullptr);

// What a commit of the overlay would make of its base: staged, never published; gone with the object.
class StagedOverlay {
 public:
  static Result<std::unique_ptr<StagedOverlay>> Stage(Library& library, const Overlay& overlay);
  ~StagedOverlay();
  const Manifest& base() const { return base_; }
  const Manifest& manifest() const { return manifest_; }
  const std::vector<std::string>& excluded() const { return excluded_; }
  const ObjectReader& objects() const { return *objects_; }  // its trees, and all that the library has

 private:
  StagedOverlay();
  std::unique_ptr<Transaction> transaction_;
  std::unique_ptr<ObjectReader> objects_;
  Manifest base_, manifest_;
  std::vector<std::string> excluded_;
};

}  // namespace mirage
