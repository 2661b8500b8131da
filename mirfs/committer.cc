#include "mirfs/committer.h"

#include "mirfs/commit_plan.h"

namespace mirage {
namespace {

constexpr size_t kConflictsShown = 3;
constexpr size_t kMaxConflictBytes = 64 << 10;  // in the overlay's record
constexpr int kAttempts = 10;                   // to be the one that moves the branch

using Conflicts = std::vector<std::string>;  // as the overlay's record lists them

const std::string& FirstOf(const std::string& a, const std::string& b) { return a.empty() ? b : a; }

// What a transaction has staged, else what the library has now: its snapshot may be newer than the transaction's.
class StagedObjects final : public ObjectReader {
 public:
  StagedObjects(const Library& library, const Transaction& transaction) : library_(library), transaction_(transaction) {}
  Result<std::string> ReadObject(ObjectKind kind, const ObjectId& id) const override {
    auto staged = transaction_.ReadObject(kind, id);
    if (staged || staged.error().code != ENOENT) return staged;
    return library_.objects().ReadObject(kind, id);
  }

 private:
  const Library& library_;
  const Transaction& transaction_;
};

std::string Describe(const MergeConflict& conflict) {
  return fmt::format("/{}: {}", conflict.path, DescribeConflict(conflict.kind));
}

// The error of a commit whose changes touch those of the head, and the list for the overlay's record.
tl::unexpected<Error> FailConflict(const OverlayInfo& info, const std::vector<MergeConflict>& found,
                                   std::optional<Conflicts>* conflicts) {
  conflicts->emplace();
  std::string shown;
  size_t bytes = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    std::string line = Describe(found[i]);
    if (i < kConflictsShown) shown += (i > 0 ? ", " : "") + line;
    bytes += line.size();
    if (bytes <= kMaxConflictBytes) (*conflicts)->push_back(std::move(line));
  }
  if (found.size() > kConflictsShown) shown += ", ...";
  return Fail(EAGAIN, "branch {} moved since {}/{}, and {} path{} conflict{} ({}); the overlay is kept: give it a branch of "
              "its own with mirage overlay commit {} --to NEWBRANCH, or take one side with --favor head|overlay",
              info.branch, info.branch, info.base_tag, found.size(), found.size() == 1 ? "" : "s",
              found.size() == 1 ? "s" : "", shown, info.id);
}

// `edit` on top of the branch's head, which is not its parent. Sets `published` if the head holds all of it.
Result<Manifest> MergeOntoHead(Library& library, Transaction& transaction, const Overlay& overlay,
                               const CommitOptions& options, const Manifest& base, const Manifest& edit, const ObjectId& head,
                               std::optional<Published>* published, std::optional<Conflicts>* conflicts) {
  const OverlayInfo& info = overlay.info();
  const auto snapshot = library.snapshot();
  ASSIGN_OR_RETURN(const auto newest, ReadManifest(*snapshot, head));
  ASSIGN_OR_RETURN(const auto tag, snapshot->LatestTag(info.branch));
  const StagedObjects objects(library, transaction);
  ASSIGN_OR_RETURN(auto merged, MergeVersions(objects, transaction, base, newest, edit,
                                              options.favor.value_or(MergeFavor::kOurs)));
  if (!merged.conflicts.empty() && !options.favor) return FailConflict(info, merged.conflicts, conflicts);
  Manifest manifest = std::move(merged.manifest);
  if (manifest.root == newest.root && manifest.links == newest.links) *published = Published{head, info.branch, tag};
  manifest.parents = {head};
  manifest.branch = info.branch;
  manifest.author = edit.author;
  manifest.message = edit.message;
  manifest.source = fmt::format("{}, merged onto {}/{}", edit.source, info.branch, tag);
  manifest.time_sec = 0;  // now
  manifest.time_nsec = 0;
  return manifest;
}

void ForgetDisks(Manifest* manifest) {
  for (Disk& disk : manifest->disks) disk.sha256 = disk.skeleton = {};  // they were of the disk that came in
}

Result<std::optional<Published>> Commit(Library& library, const Overlay& overlay, const CommitOptions& options,
                                        ExcludedPaths* excluded, std::optional<Conflicts>* conflicts) {
  const OverlayInfo& info = overlay.info();
  TRY(library.Refresh());
  ASSIGN_OR_RETURN(const auto base, ReadManifest(library.objects(), info.base));
  ASSIGN_OR_RETURN(const auto transaction, library.Begin("commit of overlay " + info.id));
  CommitPlan plan(library, overlay, *transaction);
  ASSIGN_OR_RETURN(auto edit, plan.Build(base));
  if (excluded) {
    excluded->count = plan.excluded().size();
    for (const std::string& path : plan.excluded()) {
      if (excluded->shown.size() < ExcludedPaths::kShown) excluded->shown.push_back("/" + path);
    }
  }
  if (edit.root == base.root && edit.links == base.links) return std::optional<Published>();

  edit.parents = {info.base};
  edit.branch = FirstOf(options.to_branch, info.branch);
  edit.author = FirstOf(options.author, info.author);
  edit.message = FirstOf(options.message, info.message);
  edit.source = fmt::format("edit of {}/{}", info.branch, info.base_tag);
  edit.time_sec = 0;  // now
  edit.time_nsec = 0;

  NewVersion version;
  version.tag = FirstOf(options.tag, info.tag);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const auto head, library.snapshot()->Branch(edit.branch));
    version.manifest = edit;
    if (!options.to_branch.empty()) {
      if (head) return Fail(EEXIST, "branch {}: exists; give --to another name", options.to_branch);
    } else if (!head) {
      conflicts->emplace();
      return Fail(EAGAIN, "branch {} was deleted meanwhile; the overlay is kept, make a branch of it: "
                  "mirage overlay commit {} --to NEWBRANCH", info.branch, info.id);
    } else {
      version.expected_head = head->manifest;
      if (head->manifest != info.base) {
        std::optional<Published> published;
        ASSIGN_OR_RETURN(version.manifest, MergeOntoHead(library, *transaction, overlay, options, base, edit,
                                                         head->manifest, &published, conflicts));
        if (published) return published;
      }
    }
    ForgetDisks(&version.manifest);
    auto published = transaction->Publish(version);
    if (published) return std::optional<Published>(std::move(*published));
    if (published.error().code != EAGAIN) return tl::make_unexpected(std::move(published).error());
    TRY(library.Refresh());
    ASSIGN_OR_RETURN(const auto now, library.snapshot()->Branch(edit.branch));
    const bool moved = now.has_value() != head.has_value() || (now && now->manifest != head->manifest);
    if (!moved) return Fail(EBUSY, "{}", published.error().message);  // the library was busy for too long
  }
  return Fail(EBUSY, "branch {}: moved {} times while this was merged onto it", info.branch, kAttempts);
}

}  // namespace

void ExcludedPaths::Say(const std::function<void(std::string_view)>& say) const {
  if (count == 0) return;
  say(fmt::format("not committed, excluded by mirage.yaml: {} path{}", count, count == 1 ? "" : "s"));
  for (const std::string& path : shown) say("  " + path);
  if (count > shown.size()) say("  ...");
}

Result<std::optional<Published>> CommitOverlay(Library& library, Overlay& overlay, const CommitOptions& options,
                                               ExcludedPaths* excluded) {
  std::optional<Conflicts> conflicts;  // set: a decision is needed, to try again does not help
  auto result = Commit(library, overlay, options, excluded, &conflicts);
  OverlayInfo info = overlay.info();
  if (!result) {
    Error error = std::move(result).error();
    if (conflicts) {
      info.state = OverlayInfo::kConflict;
      info.conflicts = std::move(*conflicts);
    } else {
      if (error.code == EAGAIN) error.code = EBUSY;  // a lock of the library
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
    static_cast<void>(overlay.Update(info));  // on a full disk the caller still has the message
    return tl::make_unexpected(std::move(error));
  }
  if (auto removed = overlay.Retire(); !removed && options.say) {
    options.say(fmt::format("committed, but the overlay was not removed ({}); mirage overlay discard {}",
                            removed.error().message, info.id));
  }
  return result;
}

Result<std::optional<Published>> CommitOverlay(Library& library, const std::string& id, const CommitOptions& options,
                                               ExcludedPaths* excluded) {
  ASSIGN_OR_RETURN(const auto overlay, Overlay::Open(library, id));
  return CommitOverlay(library, *overlay, options, excluded);
}

StagedOverlay::StagedOverlay() = default;
StagedOverlay::~StagedOverlay() = default;

Result<std::unique_ptr<StagedOverlay>> StagedOverlay::Stage(Library& library, const Overlay& overlay) {
  auto staged = std::unique_ptr<StagedOverlay>(new StagedOverlay());
  TRY(library.Refresh());
  ASSIGN_OR_RETURN(staged->base_, ReadManifest(library.objects(), overlay.info().base));
  ASSIGN_OR_RETURN(staged->transaction_, library.Begin("look at overlay " + overlay.info().id));
  CommitPlan plan(library, overlay, *staged->transaction_);
  ASSIGN_OR_RETURN(staged->manifest_, plan.Build(staged->base_));
  staged->excluded_ = plan.excluded();
  staged->objects_ = std::make_unique<StagedObjects>(library, *staged->transaction_);
  return staged;
}

}  // namespace mirage
