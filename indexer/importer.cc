#include "indexer/importer.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>

#include "indexer/container_source.h"
#include "indexer/entry_spool.h"
#include "indexer/exclusion.h"
#include "indexer/known_files.h"
#include "indexer/layer_history.h"
#include "indexer/name_memory.h"
#include "indexer/progress.h"
#include "indexer/source_choice.h"
#include "indexer/system_files.h"
#include "store/reachable.h"
#include "store/revision.h"
#include "store/tree_writer.h"

namespace mirage {
namespace {

constexpr int kPublishTries = 10;            // of an import that others keep overtaking
constexpr size_t kMaxOmissions = 100;        // the manifest is small; the rest is counted
constexpr size_t kMaxOmissionBytes = 300;
constexpr size_t kMaxXattrCacheBytes = 8 << 20;  // of different sets; a system with SELinux has some hundreds
constexpr size_t kXattrCacheOverhead = 128;
constexpr uint64_t kHolePieceBytes = 64 << 20;  // between two looks at Ctrl-C
constexpr size_t kLinkOverhead = 96;         // in memory, of each name of a hard link
constexpr std::string_view kOwnXattrs = "user.mirage.";

bool IsDirectory(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

// Takes a source's entries into a transaction: contents to its ContentWriter, entries to the spool as their content's
// id becomes known, and at the end everything in canonical order to a TreeWriter.
class Importer final : public ImportSink {
 public:
  Importer(Library& library, Transaction& transaction, const Exclusion& exclusion, KnownFiles& known,
           Progress& progress, const ImportOptions& options)
      : transaction_(transaction),
        known_(known),
        exclusion_(exclusion),
        progress_(progress),
        interrupted_(options.interrupted),
        max_hole_bytes_(library.policy().max_hole_bytes),
        holes_left_(max_hole_bytes_),
        names_(IsDirectory(options.source) ? UINT64_MAX : options.name_bytes),
        spool_(library.env(), transaction.directory()) {}

  bool Excluded(std::string_view path) const override { return exclusion_.Matches(path); }

  Status Add(std::string path, Entry entry, const XattrSet& xattrs, std::string target) override {
    TRY(Begin(entry, xattrs));
    const uint64_t ticket = spool_.Ticket();
    if (entry.type == FileType::kSymlink) {
      if (target.empty() || target.size() > kMaxSymlinkBytes) {
        return Fail(EINVAL, "/{}: a symbolic link of {} bytes", path, target.size());
      }
      entry.size = target.size();
      if (target.size() > kInlineSymlinkBytes) {
        const size_t path_bytes = path.size();
        return transaction_.contents().Put(std::move(target), Done(ticket, std::move(path), std::move(entry)),
                                           path_bytes);
      }
      entry.target = std::move(target);
    }
    return spool_.Add(ticket, path, entry);
  }

  Status AddFile(std::string path, Entry entry, const XattrSet& xattrs, std::string bytes) override {
    TRY(Begin(entry, xattrs));
    progress_.Count(0, bytes.size());
    NoteFile(path);
    NoteBytes(bytes);
    const Fingerprint fingerprint = fingerprinter_.Of(bytes);
    if (const auto known = known_.OfSize(path, bytes.size()); known && known->fingerprint == fingerprint) {
      return AddKnown(path, std::move(entry), {known->entry.id, bytes.size(), known_.key(), fingerprint});
    }
    const size_t path_bytes = path.size();
    return transaction_.contents().Put(std::move(bytes),
                                       Done(spool_.Ticket(), std::move(path), std::move(entry),
                                            std::make_shared<const Fingerprint>(fingerprint)),
                                       path_bytes);
  }

  Status BeginFile(std::string path, Entry entry, const XattrSet& xattrs) override {
    TRY(Begin(entry, xattrs));
    NoteFile(path);
    const size_t path_bytes = path.size();
    stream_fingerprint_ = std::make_shared<Fingerprint>();
    return transaction_.contents().Begin(
        Done(spool_.Ticket(), std::move(path), std::move(entry), stream_fingerprint_), path_bytes);
  }
  Status AppendFile(std::string_view bytes) override {
    TRY(CheckInterrupted());
    progress_.Count(0, bytes.size());
    NoteBytes(bytes);
    fingerprinter_.Update(bytes);
    return transaction_.contents().Append(bytes);
  }
  Status AppendHole(uint64_t length) override {
    static const std::string zeros(256 << 10, '\0');
    TRY(CountHole(length));
    while (length > 0) {
      TRY(CheckInterrupted());
      const uint64_t piece = std::min(length, kHolePieceBytes);
      progress_.Count(0, piece);
      for (uint64_t done = 0; done < piece; done += zeros.size()) {
        fingerprinter_.Update(std::string_view(zeros).substr(0, static_cast<size_t>(piece - done)));
      }
      TRY(transaction_.contents().AppendZeros(piece));
      length -= piece;
    }
    return {};
  }
  // A few bytes of an image can claim exabytes, which would be hashed for years.
  Status CountHole(uint64_t length) override {
    if (length > holes_left_) {
      return Fail(E2BIG, "its files have more than {} bytes in holes, which are hashed as zeros; if that is meant, set "
                         "max_hole_bytes in the library's mirage.yaml", max_hole_bytes_);
    }
    holes_left_ -= length;
    return {};
  }
  Status EndFile() override {
    *stream_fingerprint_ = fingerprinter_.Finish();  // before the writer may ask for it
    stream_fingerprint_.reset();
    return transaction_.contents().End();
  }

  Status AddLink(std::string path, std::string first) override {
    TRY(CheckInterrupted());
    progress_.Count(1, 0);
    if (Excluded(path)) return {};
    TRY(names_.Spend(path.size() + kLinkOverhead));
    const auto [group, is_new] = links_.try_emplace(std::move(first));
    if (is_new) TRY(names_.Spend(group->first.size() + kLinkOverhead));
    group->second.push_back(std::move(path));
    return {};
  }

  std::optional<uint32_t> AddFilesystem(SourceFilesystem filesystem) override {
    return known_.AddFilesystem(std::move(filesystem));
  }
  bool Unchanged(const std::string& path, const Entry& entry, uint64_t size, const FileFacts& facts) override {
    before_ = known_.Find(path, entry, size, facts);
    if (IsSystemFile(path)) before_.reset();  // its bytes tell of the system, and must come
    return before_.has_value();
  }
  Status AddUnchanged(std::string path, const XattrSet* xattrs) override {
    auto [entry, fingerprint] = std::move(before_).value();
    before_.reset();
    if (xattrs != nullptr) entry.xattrs = {};
    TRY(Begin(entry, xattrs != nullptr ? *xattrs : XattrSet()));
    if (entry.type == FileType::kRegular) {
      progress_.Count(0, entry.size);
      if (entry.size > 0 && !Excluded(path)) ++unchanged_;
    }
    return spool_.Add(spool_.Ticket(), path, entry, fingerprint);
  }

  std::optional<LikelyContent> Likely(const std::string& path, const Entry& entry, uint64_t size) override {
    if (IsSystemFile(path)) return std::nullopt;
    const auto known = known_.OfSize(path, size);
    if (!known) return std::nullopt;
    // Of a large file a promise that does not hold costs reading it twice.
    const bool same_mtime = known->entry.mtime_sec == entry.mtime_sec && known->entry.mtime_nsec == entry.mtime_nsec;
    if (size > kWholeFileBytes && !same_mtime) return std::nullopt;
    return LikelyContent{known->entry.id, size, known_.key(), known->fingerprint};
  }
  Status AddLikely(std::string path, Entry entry, const XattrSet& xattrs, const LikelyContent& likely) override {
    TRY(Begin(entry, xattrs));
    progress_.Count(0, likely.size);
    return AddKnown(path, std::move(entry), likely);
  }

  Status AddStored(std::string path, Entry entry) override {
    TRY(CheckInterrupted());
    TRY(FirstError());
    progress_.Count(1, entry.type == FileType::kRegular ? entry.size : 0);
    if (entry.is_directory()) {  // it may hold other entries here
      entry.id = {};
      entry.size = 0;
    }
    return spool_.Add(spool_.Ticket(), path, entry);
  }

  void Expect(uint64_t bytes) override { progress_.Expect(bytes); }
  void Stage(std::string_view what) override { progress_.Stage(what); }
  void Say(std::string_view line) override { progress_.Print(line); }
  void Omit(std::string sentence) override {
    if (sentence.size() > kMaxOmissionBytes) sentence = sentence.substr(0, kMaxOmissionBytes) + "...";
    if (omissions_.size() < kMaxOmissions) {
      omissions_.push_back(std::move(sentence));
    } else {
      ++more_omissions_;
    }
  }

  struct Tree {
    Entry root;
    ObjectId links;
    uint64_t files = 0, bytes = 0, unchanged = 0, known = 0;
  };
  Result<Tree> Finish() {
    progress_.Stage("writing the tree");
    TRY(transaction_.FlushContents());  // every Done has been called
    TRY(FirstError());
    TRY(ResolveLinks());

    const std::jthread facts([this] { known_.Write(spool_, exclusion_); });
    TreeWriter tree(transaction_);
    std::string below;  // an excluded directory, with its slash
    const EntrySpool::Visit add = [&](const std::string& path, Entry entry, const Fingerprint&) -> Status {
      TRY(CheckInterrupted());
      if (!below.empty() && path.starts_with(below)) return {};
      if (Excluded(path)) {
        if (entry.is_directory()) below = path + "/";
        return {};
      }
      return tree.Add(path, std::move(entry));
    };
    TRY(spool_.ForEach(add));
    Tree result;
    ASSIGN_OR_RETURN(result.root, tree.Finish());
    result.files = tree.file_count();
    result.bytes = tree.total_bytes();
    result.unchanged = unchanged_;
    result.known = known_again_;

    std::vector<std::vector<std::string>> groups;
    for (auto& [first, others] : links_) {
      std::vector<std::string> group = std::move(others);
      if (!Excluded(first)) group.push_back(first);
      std::sort(group.begin(), group.end());
      group.erase(std::unique(group.begin(), group.end()), group.end());
      if (group.size() >= 2) groups.push_back(std::move(group));
    }
    ASSIGN_OR_RETURN(result.links, WriteLinks(transaction_, std::move(groups)));
    return result;
  }

  // The inspection object of a source that looked for no system itself; empty: there is nothing to say.
  std::string DescribeSystem(const SourceDescription& source) {
    SystemFiles::Described described = system_files_.Describe(interrupted_);
    const bool known = described.found || described.packages || !described.why_not.empty();
    if (!known && source.os.empty() && source.layers.empty()) return {};
    SystemDescription& system = described.system;
    if (system.type == "unknown" && !source.os.empty()) system.type = source.os;
    if (system.arch == "unknown" && !source.arch.empty()) system.arch = source.arch;
    system.container = source.container;
    system.layers = source.layers;
    if (!described.packages && described.why_not.empty() && described.found) {
      described.why_not = "there is no list of dpkg's, rpm's or apk's";
    }
    if (!described.why_not.empty()) Omit("the installed packages could not be listed: " + described.why_not);
    return EncodeSystem(std::move(system));
  }

  std::vector<std::string> TakeOmissions() {
    if (more_omissions_ > 0) omissions_.push_back(fmt::format("and {} more of the kind", more_omissions_));
    return std::move(omissions_);
  }

 private:
  Status CheckInterrupted() const {
    if (interrupted_ != nullptr && interrupted_->load()) return Fail(EINTR, "interrupted; the library is as it was");
    return {};
  }

  // What tells of the system is looked at while it passes.
  void NoteFile(const std::string& path) {
    noted_.clear();
    if (!IsSystemFile(path) || Excluded(path)) return;
    noted_ = path;
    system_files_.Begin(path);
  }
  void NoteBytes(std::string_view bytes) {
    if (!noted_.empty()) system_files_.Add(noted_, bytes);
  }

  // What all kinds of entries have in common.
  Status Begin(Entry& entry, const XattrSet& xattrs) {
    TRY(CheckInterrupted());
    TRY(FirstError());
    progress_.Count(1, 0);
    XattrSet kept;
    for (const auto& [name, value] : xattrs) {
      if (!name.starts_with(kOwnXattrs)) kept.emplace(name, value);
    }
    if (kept.empty()) return {};
    ASSIGN_OR_RETURN(std::string encoding, EncodeXattrs(kept));
    const auto known = xattr_ids_.find(encoding);
    if (known != xattr_ids_.end()) {
      entry.xattrs = known->second;
      return {};
    }
    ASSIGN_OR_RETURN(entry.xattrs, transaction_.WriteObject(ObjectKind::kXattrs, encoding));
    xattr_bytes_ += encoding.size() + kXattrCacheOverhead;
    if (xattr_bytes_ > kMaxXattrCacheBytes) {
      xattr_ids_.clear();
      xattr_bytes_ = 0;
    }
    xattr_ids_.emplace(std::move(encoding), entry.xattrs);
    return {};
  }

  Status AddKnown(const std::string& path, Entry entry, const LikelyContent& known) {
    entry.id = known.content;
    entry.size = known.size;
    if (known.size > 0 && !Excluded(path)) ++known_again_;
    return spool_.Add(spool_.Ticket(), path, entry, known.fingerprint);
  }

  // Runs on the ContentWriter's thread. `fingerprint`: of a regular file; whole once the writer has all its bytes.
  ContentWriter::Done Done(uint64_t ticket, std::string path, Entry entry,
                           std::shared_ptr<const Fingerprint> fingerprint = nullptr) {
    return [this, ticket, path = std::move(path), entry = std::move(entry), fingerprint = std::move(fingerprint)](
               const ObjectId& content, uint64_t size) mutable {
      entry.id = content;
      entry.size = size;
      if (auto status = spool_.Add(ticket, path, entry, fingerprint ? *fingerprint : Fingerprint()); !status) {
        std::lock_guard lock(mutex_);
        if (!error_) error_ = std::move(status).error();
      }
    };
  }
  Status FirstError() {
    std::lock_guard lock(mutex_);
    if (error_) return tl::make_unexpected(*error_);
    return {};
  }

  // A link may come before its first name in canonical order: one pass finds the entries, which are then added under
  // all names.
  Status ResolveLinks() {
    if (links_.empty()) return {};
    std::unordered_map<std::string, std::pair<Entry, Fingerprint>> found;
    TRY(spool_.ForEach([&](const std::string& path, Entry entry, const Fingerprint& fingerprint) -> Status {
      if (links_.contains(path)) found.emplace(path, std::pair(std::move(entry), fingerprint));
      return {};
    }));
    for (const auto& [first, others] : links_) {
      const auto entry = found.find(first);
      if (entry == found.end()) return Fail(EIO, "/{}: a hard link to /{}, which was not read", others.front(), first);
      const auto& [what, fingerprint] = entry->second;
      for (const std::string& other : others) TRY(spool_.Add(spool_.Ticket(), other, what, fingerprint));
    }
    return {};
  }

  Transaction& transaction_;
  KnownFiles& known_;
  std::optional<KnownFiles::Known> before_;  // what Unchanged has just found
  Fingerprinter fingerprinter_{known_.key()};
  std::shared_ptr<Fingerprint> stream_fingerprint_;  // of the file that was begun
  uint64_t unchanged_ = 0, known_again_ = 0;
  const Exclusion& exclusion_;
  Progress& progress_;
  const std::atomic<bool>* const interrupted_;
  const uint64_t max_hole_bytes_;
  uint64_t holes_left_;
  NameMemory names_;  // of hard links; what is in a directory of the host is its owner's business
  EntrySpool spool_;
  std::map<std::string, std::vector<std::string>> links_;  // first name -> the others
  std::unordered_map<std::string, ObjectId> xattr_ids_;    // by encoding
  size_t xattr_bytes_ = 0;                                 // of these
  SystemFiles system_files_;
  std::string noted_;  // the file that is coming, if it is one of them
  std::vector<std::string> omissions_;
  uint64_t more_omissions_ = 0;
  std::mutex mutex_;
  std::optional<Error> error_;  // guarded by mutex_
};

struct Place {
  std::optional<ObjectId> head;  // of the branch, if there is one
  std::vector<ObjectId> parents;
};

// Everything that can be refused before anything is read.
Result<Place> CheckPlace(const Snapshot& snapshot, const ImportOptions& options) {
  TRY(CheckBranchName(options.branch));
  if (!options.tag.empty()) {
    TRY(CheckTagName(options.tag));
    ASSIGN_OR_RETURN(const auto taken, snapshot.Tag(options.branch, options.tag));
    if (taken) return Fail(EEXIST, "{}/{}: the tag is taken; choose another", options.branch, options.tag);
  }
  if (options.message.size() > kMaxMessageBytes) {
    return Fail(E2BIG, "a message of {} bytes; the limit is {}", options.message.size(), kMaxMessageBytes);
  }
  Place place;
  ASSIGN_OR_RETURN(const auto branch, snapshot.Branch(options.branch));
  if (branch) place.head = branch->manifest;
  if (place.head) place.parents = {*place.head};
  if (!options.parent.empty()) {
    ASSIGN_OR_RETURN(const Version parent, ResolveVersion(snapshot, options.parent));
    if (place.head && parent.id != *place.head) {
      return Fail(EINVAL, "branch {} has a head of its own, which is not {}; --parent is for a new branch",
                  options.branch, options.parent);
    }
    place.parents = {parent.id};
  }
  return place;
}

// Of an import that has nothing to read.
Result<ImportReport> ReportOfHead(const Snapshot& snapshot, const std::string& branch, const ObjectId& head) {
  ImportReport report;
  ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(snapshot, head));
  report.version.manifest = head;
  report.version.branch = branch;
  ASSIGN_OR_RETURN(report.version.tag, snapshot.LatestTag(branch));
  report.tree = manifest.root.id;
  report.files = manifest.file_count;
  report.bytes = manifest.total_bytes;
  report.omissions = manifest.omissions;
  return report;
}

// With which layer to begin. True: the head is the whole image, and there is nothing to do.
Result<bool> BeginLayers(const Snapshot& snapshot, const ImportOptions& options, const Place& place,
                         const Exclusion& exclusion, const std::string& scratch, LayerRun& run) {
  ASSIGN_OR_RETURN(run.state, OpenContainer(options, scratch));
  if (!run.state) return Fail(EINVAL, "it is no container image, which --layers, --image and --platform are for");
  run.layers = 1;
  if (place.parents.empty()) return false;
  const std::vector<std::string> chains = LayerChains(run.state->image.layers);
  const LayersThere there = FindLayers(snapshot, place.parents.front(), chains, exclusion.patterns());
  run.again = there.count == chains.size();
  run.layers = run.again ? there.count : there.count + 1;
  if (run.again && there.version == place.head && !options.allow_empty) return true;
  run.lower = run.again ? there.below : there.version;
  return false;
}

Result<ImportReport> Run(Library& library, const ImportOptions& options, LayerRun& run) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::string> patterns = library.policy().exclude;
  patterns.insert(patterns.end(), options.exclude.begin(), options.exclude.end());
  ASSIGN_OR_RETURN(const Exclusion exclusion, Exclusion::Compile(std::move(patterns)));

  ASSIGN_OR_RETURN(auto transaction, library.Begin(fmt::format("import of {}", options.branch)));
  ASSIGN_OR_RETURN(Place place, CheckPlace(transaction->base(), options));
  // What is unchanged is taken from the parent, so it must not be collected before this is published.
  std::vector<VersionLease> leases;
  for (const ObjectId& parent : place.parents) {
    ASSIGN_OR_RETURN(leases.emplace_back(), library.Lease(parent));
  }
  if (options.layers && run.layers == 0) {
    ASSIGN_OR_RETURN(const bool done, BeginLayers(transaction->base(), options, place, exclusion,
                                                  transaction->directory(), run));
    if (done) return ReportOfHead(transaction->base(), options.branch, *place.head);
  }
  const bool allow_empty = options.allow_empty || (run.layers > 1 && !run.again);
  if (run.lower) {
    ASSIGN_OR_RETURN(leases.emplace_back(), library.Lease(*run.lower));
  }
  Progress progress(options.progress_bar, options.say);
  ASSIGN_OR_RETURN(auto source, OpenSource(library, options, run, exclusion, transaction->directory(),
                                           [&](std::string_view line) { progress.Print(line); }));

  ImportReport report;
  Manifest manifest;
  std::vector<std::string> known_by;  // branches
  if (!options.paranoid) {
    known_by.push_back(options.branch);
    if (!options.parent.empty()) known_by.push_back(options.parent.substr(0, options.parent.find_first_of("/~:@")));
  }
  KnownFiles known(library, *transaction, known_by);
  {
    Importer importer(library, *transaction, exclusion, known, progress, options);
    auto described = source->Read(importer);
    if (!described) {
      // The writer's thread holds references to the importer until it is done or gone.
      transaction.reset();
      return tl::make_unexpected(std::move(described).error());
    }
    auto finished = importer.Finish();
    if (!finished) {
      transaction.reset();
      return tl::make_unexpected(std::move(finished).error());
    }
    if (described->inspection.empty()) described->inspection = importer.DescribeSystem(*described);
    for (const std::string& pattern : exclusion.patterns()) importer.Omit(std::string(kLeftOutOnRequest) + pattern);
    const Importer::Tree& tree = *finished;
    manifest.root = tree.root;
    manifest.links = tree.links;
    manifest.file_count = report.files = tree.files;
    manifest.total_bytes = report.bytes = tree.bytes;
    report.unchanged_files = tree.unchanged;
    report.known_files = tree.known;
    manifest.omissions = report.omissions = importer.TakeOmissions();
    manifest.disks = report.disks = described->disks;
    manifest.mounts = described->mounts;
    report.tree = tree.root.id;
    report.appliance_seconds = described->appliance_seconds;
    report.inspection_seconds = described->inspection_seconds;
    if (!described->inspection.empty()) {
      ASSIGN_OR_RETURN(manifest.inspection, transaction->WriteObject(ObjectKind::kInspection, described->inspection));
    }
  }
  const auto finish = [&]() -> ImportReport {
    known.Keep(options.branch, report.version.manifest);
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(report);
  };

  // The branch's head says the same: no version is made. What came nevertheless is either of no use (a source may give a
  // path twice) or what the library had lost of that version.
  const auto unchanged = [&](const Snapshot& snapshot) -> Result<bool> {
    if (!place.head || allow_empty) return false;
    ASSIGN_OR_RETURN(const Manifest parent, ReadManifest(snapshot, *place.head));
    if (parent.root != manifest.root || parent.links != manifest.links) return false;
    if (transaction->HasStaged()) {
      ASSIGN_OR_RETURN(const bool whole, IsWhole(library, snapshot, *place.head, transaction->directory()));
      if (!whole) {
        TRY(transaction->Restore());
        report.restored_bytes = transaction->staged_bytes();
      }
    }
    report.version.manifest = *place.head;
    report.version.branch = options.branch;
    ASSIGN_OR_RETURN(report.version.tag, snapshot.LatestTag(options.branch));
    return true;
  };
  ASSIGN_OR_RETURN(bool same, unchanged(transaction->base()));
  if (same) return finish();

  manifest.branch = options.branch;
  manifest.message = options.message;
  const bool last = !options.layers || run.layers == run.state->image.layers.size();
  if (options.layers && (!last || options.message.empty())) {
    manifest.message = run.state->image.layers[run.layers - 1].message;
  }
  manifest.source = SourceName(options);
  if (run.state && !run.state->image.name.empty()) manifest.source += fmt::format(" ({})", run.state->image.name);
  report.new_bytes = transaction->staged_bytes();
  // Who lost the race for the branch follows the winner: an import is the whole of its source, whatever came between, so
  // nothing of the winner's is overwritten that would not have been, had it come earlier.
  Result<Published> published;
  for (int tries = 1;; ++tries) {
    NewVersion version{.manifest = manifest, .expected_head = place.head, .tag = last ? options.tag : ""};
    version.manifest.parents = place.parents;
    published = transaction->Publish(std::move(version));
    if (published) break;
    if (published.error().code != EAGAIN) return tl::make_unexpected(std::move(published).error());
    TRY(library.Refresh());
    const auto newest = library.snapshot();
    ASSIGN_OR_RETURN(const auto head, newest->Branch(options.branch));
    const bool moved = head.has_value() != place.head.has_value() || (head && head->manifest != *place.head);
    if (!moved) return Fail(EBUSY, "{}", published.error().message);  // the wait for the lock was in vain
    if (!head || !options.parent.empty() || tries == kPublishTries) {
      return Fail(EAGAIN, "branch {} moved while it was being imported: {}; run the import again", options.branch,
                  published.error().message);
    }
    progress.Print(fmt::format("branch {} moved meanwhile; this version follows it", options.branch));
    place.head = head->manifest;
    place.parents = {head->manifest};
    ASSIGN_OR_RETURN(same, unchanged(*newest));
    if (same) return finish();
  }
  report.version = std::move(*published);
  report.changed = true;
  return finish();
}

// A version for each layer that the branch has not, each on top of the one before; the tag and the user's message are the
// last one's.
Result<ImportReport> RunLayers(Library& library, const ImportOptions& options) {
  LayerRun run;
  ImportReport whole;
  for (ImportOptions step = options;; step.parent.clear()) {
    ASSIGN_OR_RETURN(ImportReport report, Run(library, step, run));
    TRY(library.Refresh());
    report.layers = std::move(whole.layers);
    if (report.changed) report.layers.push_back(report.version);
    report.seconds += whole.seconds;
    report.new_bytes += whole.new_bytes;
    report.changed = report.changed || whole.changed;
    whole = std::move(report);
    if (run.layers == run.state->image.layers.size()) return whole;
    run.lower = whole.version.manifest;
    ++run.layers;
  }
}

}  // namespace

std::string SourceName(const ImportOptions& options) {
  const auto absolute = [](const std::string& path) {
    std::error_code error;
    const auto found = std::filesystem::weakly_canonical(path, error);
    return error || path == "-" ? path : found.string();
  };
  std::string name = absolute(options.source);
  for (const std::string& disk : options.more_disks) name += ", " + absolute(disk);
  return name;
}

Result<ImportReport> Import(Library& library, const ImportOptions& options) {
  LayerRun whole;
  auto report = options.layers ? RunLayers(library, options) : Run(library, options, whole);
  if (report) return report;
  const std::string prefix = "import " + options.source;
  // Some messages begin with the source's own name.
  if (report.error().message.starts_with(options.source)) {
    Error error = std::move(report).error();
    error.message.insert(0, "import ");
    return tl::make_unexpected(std::move(error));
  }
  return Annotate(std::move(report).error(), prefix);
}

}  // namespace mirage
