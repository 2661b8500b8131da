#include "mirfs/committer.h"

#include "mirfs/commit_plan.h"

namespace mirage {
namespace {

constexpr size_t kExcludedShown = 10;

void SayExcluded(const CommitOptions& options, const std::vector<std::string>& excluded) {
  if (excluded.empty() || !options.say) return;
  options.say(fmt::format("not committed, excluded by mirage.yaml: {} path{}", excluded.size(),
                          excluded.size() == 1 ? "" : "s"));
  for (size_t i = 0; i < std::min(excluded.size(), kExcludedShown); ++i) options.say("  /" + excluded[i]);
  if (excluded.size() > kExcludedShown) options.say("  ...");
}

const std::string& FirstOf(const std::string& a, const std::string& b) { return a.empty() ? b : a; }

// The new version's tag if the branch's head is this very commit: a process died between publishing and removing the overlay.
Result<std::optional<Published>> AlreadyPublished(Library& library, const Manifest& manifest) {
  std::optional<Published> published;
  const auto snapshot = library.snapshot();
  ASSIGN_OR_RETURN(const auto head, snapshot->Branch(manifest.branch));
  if (!head) return published;
  ASSIGN_OR_RETURN(const auto newest, ReadManifest(*snapshot, head->manifest));
  if (newest.parents != manifest.parents || newest.root != manifest.root || newest.links != manifest.links) {
    return published;
  }
  ASSIGN_OR_RETURN(const auto tag, snapshot->LatestTag(manifest.branch));
  published = Published{head->manifest, manifest.branch, tag};
  return published;
}

Result<std::optional<Published>> Commit(Library& library, const Overlay& overlay, const CommitOptions& options) {
  const OverlayInfo& info = overlay.info();
  TRY(library.Refresh());
  ASSIGN_OR_RETURN(const auto base, ReadManifest(library.objects(), info.base));
  ASSIGN_OR_RETURN(const auto transaction, library.Begin("commit of overlay " + info.id));
  CommitPlan plan(library, overlay, *transaction);
  ASSIGN_OR_RETURN(auto manifest, plan.Build(base));
  SayExcluded(options, plan.excluded());
  if (manifest.root == base.root && manifest.links == base.links) return std::optional<Published>();

  manifest.parents = {info.base};
  manifest.branch = FirstOf(options.to_branch, info.branch);
  manifest.author = FirstOf(options.author, info.author);
  manifest.message = FirstOf(options.message, info.message);
  manifest.source = fmt::format("edit of {}/{}", info.branch, info.base_tag);
  manifest.time_sec = 0;  // now
  manifest.time_nsec = 0;
  for (Disk& disk : manifest.disks) disk.sha256 = disk.skeleton = {};  // they were of the disk that came in

  NewVersion version;
  version.manifest = manifest;
  version.tag = FirstOf(options.tag, info.tag);
  if (options.to_branch.empty()) version.expected_head = info.base;
  auto published = transaction->Publish(std::move(version));
  if (published) return std::optional<Published>(std::move(*published));
  if (published.error().code != EAGAIN) return tl::make_unexpected(std::move(published).error());

  TRY(library.Refresh());
  ASSIGN_OR_RETURN(auto already, AlreadyPublished(library, manifest));
  if (already) return already;
  ASSIGN_OR_RETURN(const auto head, library.snapshot()->Branch(manifest.branch));
  if (!options.to_branch.empty()) {
    if (head) return Fail(EEXIST, "branch {}: exists; give --to another name", options.to_branch);
  } else if (!head) {
    return Fail(EAGAIN, "branch {} was deleted meanwhile; the overlay is kept, make a branch of it: "
                "mirage overlay commit {} --to NEWBRANCH", info.branch, info.id);
  } else if (head->manifest != info.base) {
    return Fail(EAGAIN, "branch {} moved since {}/{}; the overlay is kept, make a branch of it: "
                "mirage overlay commit {} --to NEWBRANCH", info.branch, info.branch, info.base_tag, info.id);
  }
  // Nobody moved the branch: the library was busy for too long.
  return Fail(EBUSY, "{}", published.error().message);
}

}  // namespace

Result<std::optional<Published>> CommitOverlay(Library& library, std::unique_ptr<Overlay> overlay,
                                               const CommitOptions& options) {
  auto result = Commit(library, *overlay, options);
  OverlayInfo info = overlay->info();
  if (!result) {
    Error error = std::move(result).error();
    if (error.code == EAGAIN) {
      info.state = OverlayInfo::kConflict;
    } else {
      const bool tag_taken = error.code == EEXIST && options.to_branch.empty();
      error.message += fmt::format("; the overlay is kept, try again: mirage overlay commit {}{}", info.id,
                                   tag_taken ? " --tag OTHER" : "");
    }
    error.message = "commit: " + error.message;
    // What was asked for this time holds the next time too.
    info.message = FirstOf(options.message, info.message);
    info.author = FirstOf(options.author, info.author);
    info.tag = FirstOf(options.tag, info.tag);
    info.error = error.message;
    static_cast<void>(overlay->Update(info));  // on a full disk the caller still has the message
    return tl::make_unexpected(std::move(error));
  }
  if (auto removed = overlay->Remove(); !removed && options.say) {
    options.say(fmt::format("committed, but the overlay was not removed ({}); mirage overlay discard {}",
                            removed.error().message, info.id));
  }
  return result;
}

Result<std::optional<Published>> CommitOverlay(Library& library, const std::string& id, const CommitOptions& options) {
  ASSIGN_OR_RETURN(auto overlay, Overlay::Open(library, id));
  return CommitOverlay(library, std::move(overlay), options);
}

}  // namespace mirage
