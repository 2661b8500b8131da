#include <atomic>
#include <future>
#include <shared_mutex>

#include "store/library_impl.h"
#include "store/pack_series.h"
#include "store/record_runs.h"
#include "store/references.h"

namespace mirage {
namespace {

constexpr size_t kIndexMemoryBytes = 64 << 20;
constexpr size_t kQueueBytes = 32 << 20;  // twice that gained no time
constexpr size_t kCatchUpRecords = 64;  // how far RocksDB's refs may lag before a publish catches them up
constexpr uint64_t kLevel0Due = 8;

constexpr size_t kRescueMemoryBytes = 16 << 20;
constexpr int kMostGenerations = 16;    // collections that one publish follows

}  // namespace

struct Transaction::Impl final : ContentWriter::Sink {
  Impl(std::shared_ptr<Library> l, std::string d)
      : library(std::move(l)),
        base(library->snapshot()),
        directory(std::move(d)),
        chunk_packs(library->env(), directory, library->format().uuid),
        object_packs(library->env(), directory, library->format().uuid),
        generation(base->generation()) {}

  std::shared_ptr<Library> library;
  std::shared_ptr<const Snapshot> base;
  std::string directory;
  std::optional<FileLock> lock;  // on the staging directory: while it is held, nobody sweeps it
  std::string purpose;
  std::unique_ptr<ContentWriter> contents;

  mutable std::mutex mutex;  // guards what follows
  PackSeries chunk_packs, object_packs;
  std::future<Status> sealing;  // of chunk_packs: until it is there nobody else touches them
  RawBlock object_block;
  int run_number = 0;
  std::unique_ptr<SortedRuns> runs;
  std::vector<std::unique_ptr<SortedRuns>> finished_runs;  // still read from
  std::vector<std::string> ssts;                           // finished, not yet ingested
  // The generation in which all that the staged objects name was there for certain.
  uint64_t generation = 0;
  bool packs_named = false;    // RocksDB may name the moved packs: they stay where they are
  std::optional<Error> error;  // the first of writing what is staged; it sticks

  Status NewRuns() {
    const std::string path = fmt::format("{}/runs-{}", directory, run_number++);
    TRY(library->env().MakeDirectory(path, 0700));
    runs = std::make_unique<SortedRuns>(library->env(), path, kIndexMemoryBytes);
    return {};
  }

  Result<std::optional<std::string>> GetStaged(ObjectKind kind, const ObjectId& id) const {
    const std::lock_guard guard(mutex);
    ASSIGN_OR_RETURN(auto value, runs->Get(kind, id));
    for (size_t i = 0; !value && i < finished_runs.size(); ++i) {
      ASSIGN_OR_RETURN(value, finished_runs[i]->Get(kind, id));
    }
    return value;
  }

  // ContentWriter::Sink
  Result<bool> HasChunk(const ObjectId& id) override {
    ASSIGN_OR_RETURN(const auto staged, GetStaged(ObjectKind::kChunk, id));
    if (staged) return true;
    ASSIGN_OR_RETURN(const auto location, base->FindChunk(id));
    return location.has_value();
  }
  // What this transaction staged itself does not count: a file met twice in one import is rare, and its chunks are found.
  bool HasContent(const ObjectId& content, uint64_t size) const override {
    const auto& chunking = library->format().chunking;
    if (size < kHoleBytes && size <= chunking.min_bytes) return BaseHasChunk(content);  // it has no list
    const auto list = base->database().Get(ObjectKind::kContent, content);
    if (list && *list) return HasList(**list, size, std::nullopt);
    return list && size <= chunking.max_bytes && BaseHasChunk(content);
  }
  bool HasList(std::string_view encoding, uint64_t size, std::optional<uint8_t> level) const {
    const auto node = DecodeContentNode(encoding);
    if (!node || node->TotalBytes() != size || (level && node->level != *level)) return false;
    for (const Segment& segment : node->segments) {
      if (node->level == 0) {
        if (!segment.id.IsZero() && !BaseHasChunk(segment.id)) return false;
        continue;
      }
      const auto child = base->database().Get(ObjectKind::kContentNode, segment.id);
      if (!child || !*child || !HasList(**child, segment.length, static_cast<uint8_t>(node->level - 1))) return false;
    }
    return true;
  }
  bool BaseHasChunk(const ObjectId& id) const {
    const auto location = base->FindChunk(id);
    return location && location->has_value();
  }
  Status AppendBlock(CompressedBlock block) override {
    const std::lock_guard guard(mutex);
    TRY(AwaitSealing());
    ASSIGN_OR_RETURN(Location location, chunk_packs.Append(block));
    for (size_t slot = 0; slot < block.rows.size(); ++slot) {
      location.slot = static_cast<uint16_t>(slot);
      TRY(runs->Put(ObjectKind::kChunk, block.rows[slot].id, EncodeLocation(location)));
    }
    return {};
  }

  Status FlushContents() {
    if (error) return tl::make_unexpected(*error);
    TRY(contents->Flush());
    const std::lock_guard guard(mutex);
    if (const Status sealed = AwaitSealing(); !sealed) {  // it comes once, and must stick
      error = sealed.error();
      return sealed;
    }
    sealing = std::async(std::launch::async, [this] { return chunk_packs.Seal(); });
    return {};
  }
  // The mutex is held.
  Status AwaitSealing() { return sealing.valid() ? sealing.get() : Status(); }

  Status StageObject(ObjectKind kind, const ObjectId& id, std::string_view encoding) {
    ASSIGN_OR_RETURN(const auto staged, GetStaged(kind, id));
    if (staged) return {};
    ASSIGN_OR_RETURN(const auto known, base->database().Get(kind, id));
    if (known) return {};
    const std::lock_guard guard(mutex);
    return PutObject(kind, id, encoding);
  }
  // The mutex is held.
  Status PutObject(ObjectKind kind, const ObjectId& id, std::string_view encoding) {
    TRY(runs->Put(kind, id, std::string(encoding)));
    object_block.rows.push_back({kind, static_cast<uint32_t>(encoding.size()), id});
    object_block.bytes += encoding;
    if (object_block.bytes.size() >= kBlockTargetBytes) return WriteObjectBlock();
    return {};
  }
  Status WriteObjectBlock() {
    if (object_block.rows.empty()) return {};
    ASSIGN_OR_RETURN(const auto compressed, CompressBlock(object_block, library->policy().compression_level));
    ASSIGN_OR_RETURN([[maybe_unused]] const Location location, object_packs.Append(compressed));
    object_block = {};
    return {};
  }

  // Everything staged so far becomes durable under its staged names. After an error it never does: a sync that failed
  // may have dropped what it had to write, and the next one would report success.
  Status Seal() {
    if (error) return tl::make_unexpected(*error);
    const Status status = TrySeal();
    if (!status) error = status.error();
    return status;
  }
  Status TrySeal() {
    TRY(contents->Flush());
    const std::lock_guard guard(mutex);
    TRY(WriteObjectBlock());
    TRY(AwaitSealing());
    TRY(chunk_packs.Seal());
    TRY(object_packs.Seal());
    if (runs->empty()) return {};
    ASSIGN_OR_RETURN(const auto paths, runs->Finish());
    ssts.insert(ssts.end(), paths.begin(), paths.end());
    finished_runs.push_back(std::move(runs));
    return NewRuns();
  }

  // Under the exclusive lock: everything staged becomes part of the library, and the refs move. Errors stick, as Seal's do:
  // what RocksDB has taken over by then no ref names, and a collection may remove it.
  Status Apply(const Snapshot& newest, std::vector<RefMove> moves) {
    const Status status = TryApply(newest, std::move(moves));
    if (!status) error = status.error();
    return status;
  }
  Status TryApply(const Snapshot& newest, std::vector<RefMove> moves) {
    // Opening for writing alone costs milliseconds, and so does a new reader; a publish of nothing new needs neither. It
    // comes first, for it is what fails on a full disk.
    const auto& tail = Library::Impl::Tail(newest);
    const bool catch_up = tail.size() >= kCatchUpRecords;
    std::unique_ptr<MetadataWriter> writer;
    if (!ssts.empty() || catch_up) {
      ASSIGN_OR_RETURN(writer, MetadataWriter::Open(library->env(), library->path() + "/db"));
    }
    TRY(chunk_packs.MoveTo(library->packs_path()));
    TRY(object_packs.MoveTo(library->packs_path()));
    TRY(library->env().SyncDirectory(library->packs_path()));
    packs_named = true;  // whatever Ingest says: an error of its last sync leaves open what is on the disk
    if (writer) {
      TRY(writer->Ingest(ssts));
      ssts.clear();
    }
    if (catch_up) {
      // The last record's writer may have died before it synced it; RocksDB must not know more than refs.log.
      TRY(RefLog(library->env(), library->path() + "/refs.log").Sync());
      TRY(writer->CatchUp(tail, Library::Impl::TailHighest(newest), newest.position()));
    }
    writer.reset();
    return Library::Impl::AppendMoves(*library, newest, purpose, std::move(moves));
  }

  // Packs that no index names, of a publish that failed: on a full disk they are the room that is missing.
  void TakeBackPacks() {
    if (packs_named) return;
    chunk_packs.TakeBack(library->packs_path());
    object_packs.TakeBack(library->packs_path());
  }

  // Whether the transaction, or `newest`, has the row.
  Result<bool> HasRow(const Snapshot& newest, ObjectKind kind, const ObjectId& id) const {
    ASSIGN_OR_RETURN(const auto staged, GetStaged(kind, id));
    if (staged) return true;
    ASSIGN_OR_RETURN(const auto known, newest.database().Get(kind, id));
    return known.has_value();
  }
  // What a transaction moves, once it is looked at under the lock.
  using Moves = std::function<Result<std::vector<RefMove>>(const Snapshot& newest)>;
  Status Land(const std::optional<ObjectId>& manifest, const Moves& moves);
  Status Rescue(const Snapshot& newest, const std::optional<ObjectId>& manifest);
  Result<bool> RescueObject(const Snapshot& newest, ObjectKind kind, const ObjectId& id, const VisitReference& named);
  Status RescueChunk(const ObjectId& id);
  Status WriteRescuedChunks();
  RawBlock rescued;
};

// `manifest`: of the version that this is about, if it is about one.
Status Transaction::Impl::Land(const std::optional<ObjectId>& manifest, const Moves& moves) {
  TRY(Seal());
  for (int attempt = 0;; ++attempt) {
    std::shared_ptr<const Snapshot> collected;
    {
      ASSIGN_OR_RETURN(const FileLock publish, Library::Impl::LockPublish(*library, LockMode::kExclusive, purpose));
      SweepSessions(library->env(), Library::Impl::SessionsPath(*library));
      ASSIGN_OR_RETURN(auto newest, Library::Impl::ReplayRefs(*library, *library->snapshot()));
      if (Library::Impl::IsStale(*newest)) {
        ASSIGN_OR_RETURN(newest, Library::Impl::LoadSnapshot(*library));
      }

      // Whatever can refuse, refuses before anything is moved into the library.
      if (newest->made_in() != base->made_in()) {
        return Fail(EBUSY, "the library was repaired meanwhile; begin the {} again: what it took for there may be lost",
                    purpose);
      }
      ASSIGN_OR_RETURN(auto ref_moves, moves(*newest));
      if (newest->generation() == generation) {
        TRY(Apply(*newest, std::move(ref_moves)));
        break;
      }
      collected = newest;
    }
    if (attempt == kMostGenerations) {
      return Fail(EAGAIN, "{}: the library was collected {} times meanwhile; try again", purpose, attempt);
    }
    TRY(Rescue(*collected, manifest));
    TRY(Seal());
    generation = collected->generation();
  }
  (void)library->Refresh();  // it is done, whether or not this process sees it yet

  // Compaction is due now and then; bounded, in a turn of its own, and nobody's publish fails for it.
  if (library->snapshot()->database().shape().level0_files >= kLevel0Due) {
    if (auto publish = Library::Impl::LockPublish(*library, LockMode::kExclusive, "compacting the database")) {
      if (auto writer = MetadataWriter::Open(library->env(), library->path() + "/db")) (void)(*writer)->CompactPiece();
    }
  }
  return {};
}

// There was a collection since what the staged objects name was last known to be there. Copies what of it is gone from the
// snapshot the transaction began on, whose packs cannot be deleted while it lives, and what that names in turn. A row
// that is in the newest database has all it names, so nothing below it is looked at.
Status Transaction::Impl::Rescue(const Snapshot& newest, const std::optional<ObjectId>& manifest) {
  const std::string place = fmt::format("{}/rescue-{}", directory, newest.generation());
  if (auto made = library->env().MakeDirectory(place, 0700); !made && made.error().code != EEXIST) return made;
  RecordScratch scratch(library->env(), place, kRescueMemoryBytes);
  RecordSorter due(scratch, kIdKeyBytes, kRescueMemoryBytes / 2);
  const VisitReference named = [&](ObjectKind kind, const ObjectId& id) { return due.Add(IdKey(kind, id)); };
  const auto add_staged = [&](ObjectKind kind, const ObjectId& id, std::string_view value) -> Status {
    return kind == ObjectKind::kChunk ? Status() : VisitReferences(kind, id, std::string(value), named);
  };
  for (const auto& finished : finished_runs) {
    TRY(finished->Visit([&](std::string_view key, std::string_view value) {
      return add_staged(static_cast<ObjectKind>(key[0]), *ObjectId::FromBytes(key.substr(1)), value);
    }));
  }
  if (manifest) {  // if the library had this very one, it was not staged
    ASSIGN_OR_RETURN(const auto staged, GetStaged(ObjectKind::kManifest, *manifest));
    if (!staged) {
      ASSIGN_OR_RETURN(const std::string encoding, base->ReadObject(ObjectKind::kManifest, *manifest));
      TRY(due.Add(IdKey(ObjectKind::kManifest, *manifest)));
      TRY(add_staged(ObjectKind::kManifest, *manifest, encoding));
    }
  }
  for (;;) {
    ASSIGN_OR_RETURN(const Run run, due.Finish());
    if (run->count() == 0) break;
    RecordRun::Cursor cursor(*run);
    for (;;) {
      ASSIGN_OR_RETURN(const bool more, cursor.Next());
      if (!more) break;
      const ObjectKind kind = KindOfKey(cursor.record());
      const ObjectId id = IdOfKey(cursor.record());
      ASSIGN_OR_RETURN(bool there, HasRow(newest, kind, id));
      if (!there && kind == ObjectKind::kContent) {
        ASSIGN_OR_RETURN(there, HasRow(newest, ObjectKind::kChunk, id));
      }
      if (there) continue;
      if (kind == ObjectKind::kChunk) {
        TRY(RescueChunk(id));
        continue;
      }
      ASSIGN_OR_RETURN(const bool copied, RescueObject(newest, kind, id, named));
      if (!copied) TRY(RescueChunk(id));  // a content of one chunk
    }
  }
  return WriteRescuedChunks();
}

// False: a content without a list.
Result<bool> Transaction::Impl::RescueObject(const Snapshot& newest, ObjectKind kind, const ObjectId& id,
                                             const VisitReference& named) {
  ASSIGN_OR_RETURN(const auto encoding, base->database().Get(kind, id));
  if (!encoding && kind == ObjectKind::kContent) return false;
  if (!encoding) {
    return Fail(ENOENT, "object {} of kind '{}' was removed by gc (generation {}); begin the {} again", id.Hex(),
                static_cast<char>(kind), newest.generation(), purpose);
  }
  TRY(VisitReferences(kind, id, *encoding, [&](ObjectKind child, const ObjectId& child_id) -> Status {
    // A manifest that is not published with this transaction is an ancestor.
    if (kind == ObjectKind::kManifest && child != ObjectKind::kManifest) return {};
    return named(child, child_id);
  }));
  const std::lock_guard guard(mutex);
  TRY(PutObject(kind, id, *encoding));
  return true;
}

Status Transaction::Impl::RescueChunk(const ObjectId& id) {
  ASSIGN_OR_RETURN(const auto location, base->FindChunk(id));
  if (!location) return Fail(ENOENT, "chunk {} was removed by gc; begin the {} again", id.Hex(), purpose);
  ASSIGN_OR_RETURN(const auto block, library->chunks().ReadBlock(*location));
  if (location->slot >= block->rows().size() || block->rows()[location->slot].id != id) {
    return Fail(EIO, "chunk {}: another object lies where the index says", id.Hex());
  }
  const std::string_view bytes = block->Bytes(location->slot);
  rescued.rows.push_back({ObjectKind::kChunk, static_cast<uint32_t>(bytes.size()), id});
  rescued.bytes += bytes;
  return rescued.bytes.size() >= kBlockTargetBytes ? WriteRescuedChunks() : Status();
}

Status Transaction::Impl::WriteRescuedChunks() {
  if (rescued.rows.empty()) return {};
  ASSIGN_OR_RETURN(CompressedBlock block, CompressBlock(rescued, library->policy().compression_level));
  rescued = {};
  return AppendBlock(std::move(block));
}

Transaction::Transaction() = default;

Transaction::~Transaction() {
  if (!impl_) return;
  impl_->contents.reset();
  if (impl_->sealing.valid()) impl_->sealing.wait();
  impl_->TakeBackPacks();
  (void)RemoveTree(impl_->library->env(), impl_->directory);
}

Result<std::unique_ptr<Transaction>> Library::Begin(std::string purpose) {
  ASSIGN_OR_RETURN([[maybe_unused]] const bool changed, Refresh());
  ASSIGN_OR_RETURN(auto staging, Impl::MakeStaging(*this, purpose));
  auto transaction = std::unique_ptr<Transaction>(new Transaction());
  transaction->impl_ = std::make_unique<Transaction::Impl>(shared_from_this(), staging.path);
  Transaction::Impl& impl = *transaction->impl_;
  impl.lock.emplace(std::move(staging.lock));
  TRY(impl.NewRuns());
  impl.purpose = std::move(purpose);
  ContentWriter::Options options;
  options.queue_bytes = kQueueBytes;
  options.zstd_level = policy_.compression_level;
  options.chunking = format_.chunking;
  impl.contents = std::make_unique<ContentWriter>(impl, *transaction, options);
  return transaction;
}

ContentWriter& Transaction::contents() { return *impl_->contents; }
Status Transaction::FlushContents() { return impl_->FlushContents(); }
const Snapshot& Transaction::base() const { return *impl_->base; }
const std::string& Transaction::directory() const { return impl_->directory; }

uint64_t Transaction::staged_bytes() const {
  const std::lock_guard guard(impl_->mutex);
  if (impl_->sealing.valid()) impl_->sealing.wait();
  return impl_->chunk_packs.bytes() + impl_->object_packs.bytes();
}

Result<ObjectId> Transaction::WriteObject(ObjectKind kind, std::string_view encoding) {
  const ObjectId id = HashBytes(encoding);
  TRY(impl_->StageObject(kind, id, encoding));
  return id;
}

Status Transaction::WriteContentList(const ObjectId& content, std::string_view encoding) {
  return impl_->StageObject(ObjectKind::kContent, content, encoding);
}

Result<std::string> Transaction::ReadObject(ObjectKind kind, const ObjectId& id) const {
  ASSIGN_OR_RETURN(auto staged, impl_->GetStaged(kind, id));
  if (staged) return std::move(*staged);
  return impl_->base->ReadObject(kind, id);
}

Result<std::optional<Location>> Transaction::FindChunk(const ObjectId& id) const {
  ASSIGN_OR_RETURN(const auto staged, impl_->GetStaged(ObjectKind::kChunk, id));
  if (!staged) return impl_->base->FindChunk(id);
  ASSIGN_OR_RETURN(const Location location, DecodeLocation(*staged));
  return std::optional<Location>(location);
}

Result<Published> Transaction::Publish(NewVersion version) {
  const std::string& branch = version.manifest.branch;
  TRY(CheckBranchName(branch));
  if (!version.tag.empty()) TRY(CheckTagName(version.tag));
  if (version.manifest.author.empty()) version.manifest.author = WhoAmI();
  if (version.manifest.time_sec == 0) Now(&version.manifest.time_sec, &version.manifest.time_nsec);
  ASSIGN_OR_RETURN(const std::string encoding, EncodeManifest(version.manifest));
  ASSIGN_OR_RETURN(const ObjectId manifest, WriteObject(ObjectKind::kManifest, encoding));
  Published published{manifest, branch, version.tag};
  TRY(impl_->Land(manifest, [&](const Snapshot& newest) -> Result<std::vector<RefMove>> {
    ASSIGN_OR_RETURN(const auto head, newest.Branch(branch));
    if (!version.expected_head && head) {
      return Fail(EAGAIN, "branch {}: was made meanwhile; look at it and try again", branch);
    }
    if (version.expected_head && (!head || head->manifest != *version.expected_head)) {
      return Fail(EAGAIN, "branch {}: was moved meanwhile; look at it and try again", branch);
    }
    published.tag = version.tag;
    if (published.tag.empty()) {
      ASSIGN_OR_RETURN(uint64_t number, newest.HighestVersion(branch));
      published.tag = fmt::format("v{}", number + 1);
    }
    ASSIGN_OR_RETURN(const auto taken, newest.Tag(branch, published.tag));
    if (taken) {
      return Fail(EEXIST, "tag {}/{}: taken, by {}; give another tag, or none for the next vN", branch, published.tag,
                  taken->manifest.Hex().substr(0, 12));
    }
    return std::vector<RefMove>{{branch, head ? head->manifest : ObjectId(), manifest},
                                {branch + "/" + published.tag, ObjectId(), manifest}};
  }));
  return published;
}

Status Transaction::Restore() {
  return impl_->Land(std::nullopt, [](const Snapshot&) -> Result<std::vector<RefMove>> { return {}; });
}

bool Transaction::HasStaged() const {
  const std::lock_guard guard(impl_->mutex);
  return !impl_->runs->empty() || !impl_->finished_runs.empty();
}

}  // namespace mirage
