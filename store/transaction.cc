#include <atomic>
#include <shared_mutex>

#include "store/library_impl.h"

namespace mirage {
namespace {

constexpr size_t kIndexMemoryBytes = 64 << 20;
constexpr size_t kCatchUpRecords = 64;  // how far RocksDB's refs may lag before a publish catches them up
constexpr uint64_t kLevel0Due = 8;

// The packs of one kind (chunks, or metadata) that a transaction writes: one open at a time.
class PackSeries {
 public:
  PackSeries(Env& env, std::string directory, std::string uuid)
      : env_(env), directory_(std::move(directory)), uuid_(std::move(uuid)) {}

  Result<Location> Append(const CompressedBlock& block) {
    if (writer_ && writer_->size_bytes() >= kPackTargetBytes) TRY(Seal());
    if (!writer_) {
      const PackNumber number = std::stoull(RandomHex(8), nullptr, 16);
      const std::string path = directory_ + "/" + PackFileName(number);
      ASSIGN_OR_RETURN(writer_, PackWriter::Create(env_, path, number, uuid_));
    }
    return writer_->Append(block);
  }
  Status Seal() {
    if (!writer_) return {};
    TRY(writer_->Finish());
    sealed_.push_back(writer_->number());
    sealed_bytes_ += writer_->size_bytes();
    writer_.reset();
    return {};
  }
  const std::vector<PackNumber>& sealed() const { return sealed_; }
  uint64_t bytes() const { return sealed_bytes_ + (writer_ ? writer_->size_bytes() : 0); }

 private:
  Env& env_;
  std::string directory_, uuid_;
  std::unique_ptr<PackWriter> writer_;
  std::vector<PackNumber> sealed_;
  uint64_t sealed_bytes_ = 0;
};

}  // namespace

struct Transaction::Impl final : ContentWriter::Sink {
  Impl(std::shared_ptr<Library> l, std::string d)
      : library(std::move(l)),
        base(library->snapshot()),
        directory(std::move(d)),
        chunk_packs(library->env(), directory, library->format().uuid),
        object_packs(library->env(), directory, library->format().uuid),
        runs(NewRuns()) {}

  std::shared_ptr<Library> library;
  std::shared_ptr<const Snapshot> base;
  std::string directory;
  std::optional<FileLock> lock;  // on the staging directory: while it is held, nobody sweeps it
  std::string purpose;
  std::unique_ptr<ContentWriter> contents;

  mutable std::mutex mutex;  // guards what follows
  PackSeries chunk_packs, object_packs;
  RawBlock object_block;
  int run_number = 0;
  std::unique_ptr<SortedRuns> runs;
  std::vector<std::unique_ptr<SortedRuns>> finished_runs;  // still read from
  std::vector<std::string> ssts;                           // finished, not yet ingested
  size_t renamed_chunk_packs = 0, renamed_object_packs = 0;

  std::unique_ptr<SortedRuns> NewRuns() {
    const std::string path = fmt::format("{}/runs-{}", directory, run_number++);
    (void)library->env().MakeDirectory(path, 0700);
    return std::make_unique<SortedRuns>(library->env(), path, kIndexMemoryBytes);
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
  Status AppendBlock(CompressedBlock block) override {
    const std::lock_guard guard(mutex);
    ASSIGN_OR_RETURN(Location location, chunk_packs.Append(block));
    for (size_t slot = 0; slot < block.rows.size(); ++slot) {
      location.slot = static_cast<uint16_t>(slot);
      TRY(runs->Put(ObjectKind::kChunk, block.rows[slot].id, EncodeLocation(location)));
    }
    return {};
  }

  Status StageObject(ObjectKind kind, const ObjectId& id, std::string_view encoding) {
    ASSIGN_OR_RETURN(const auto staged, GetStaged(kind, id));
    if (staged) return {};
    ASSIGN_OR_RETURN(const auto known, base->database().Get(kind, id));
    if (known) return {};
    const std::lock_guard guard(mutex);
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

  // Everything staged so far becomes durable under its staged names.
  Status Seal() {
    TRY(contents->Flush());
    const std::lock_guard guard(mutex);
    TRY(WriteObjectBlock());
    TRY(chunk_packs.Seal());
    TRY(object_packs.Seal());
    if (runs->empty()) return {};
    ASSIGN_OR_RETURN(const auto paths, runs->Finish());
    ssts.insert(ssts.end(), paths.begin(), paths.end());
    finished_runs.push_back(std::move(runs));
    runs = NewRuns();
    return {};
  }

  Status RenamePacks() {
    Env& env = library->env();
    const auto move = [&](const PackSeries& series, size_t* done) -> Status {
      for (; *done < series.sealed().size(); ++*done) {
        const std::string name = "/" + PackFileName(series.sealed()[*done]);
        TRY(env.Rename(directory + name, library->packs_path() + name));
      }
      return {};
    };
    TRY(move(chunk_packs, &renamed_chunk_packs));
    TRY(move(object_packs, &renamed_object_packs));
    return env.SyncDirectory(library->packs_path());
  }
};

Transaction::Transaction() = default;

Transaction::~Transaction() {
  if (!impl_) return;
  impl_->contents.reset();
  (void)RemoveTree(impl_->library->env(), impl_->directory);
}

Result<std::unique_ptr<Transaction>> Library::Begin(std::string purpose) {
  ASSIGN_OR_RETURN([[maybe_unused]] const bool changed, Refresh());
  // Held while directories are made or swept, so that a new one is never taken for a dead one.
  ASSIGN_OR_RETURN(const FileLock guard, FileLock::Acquire(env_, path_ + "/locks/staging", LockMode::kExclusive,
                                                           impl_->lock_timeout_ms, "sweeping the staging area"));
  ASSIGN_OR_RETURN(const auto names, env_.List(staging_path()));
  for (const std::string& name : names) {
    const std::string dead = staging_path() + "/" + name;
    if (FileLock::Acquire(env_, dead + "/lock", LockMode::kExclusive, 0, "sweeping")) (void)RemoveTree(env_, dead);
  }
  const std::string directory = staging_path() + "/" + RandomHex(8);
  TRY(env_.MakeDirectory(directory, 0700));
  auto transaction = std::unique_ptr<Transaction>(new Transaction());
  transaction->impl_ = std::make_unique<Transaction::Impl>(shared_from_this(), directory);
  Transaction::Impl& impl = *transaction->impl_;
  ASSIGN_OR_RETURN(impl.lock, FileLock::Acquire(env_, directory + "/lock", LockMode::kExclusive, 0, purpose));
  impl.purpose = std::move(purpose);
  ContentWriter::Options options;
  options.zstd_level = policy_.compression_level;
  options.chunking = format_.chunking;
  impl.contents = std::make_unique<ContentWriter>(impl, *transaction, options);
  return transaction;
}

ContentWriter& Transaction::contents() { return *impl_->contents; }
const Snapshot& Transaction::base() const { return *impl_->base; }
const std::string& Transaction::directory() const { return impl_->directory; }

uint64_t Transaction::staged_bytes() const {
  const std::lock_guard guard(impl_->mutex);
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
  Library& library = *impl_->library;
  const std::string& branch = version.manifest.branch;
  TRY(CheckBranchName(branch));
  if (!version.tag.empty()) TRY(CheckTagName(version.tag));
  if (version.manifest.author.empty()) version.manifest.author = WhoAmI();
  if (version.manifest.time_sec == 0) Now(&version.manifest.time_sec, &version.manifest.time_nsec);
  ASSIGN_OR_RETURN(const std::string encoding, EncodeManifest(version.manifest));
  ASSIGN_OR_RETURN(const ObjectId manifest, WriteObject(ObjectKind::kManifest, encoding));
  TRY(impl_->Seal());

  Published published{manifest, branch, version.tag};
  {
    ASSIGN_OR_RETURN(const FileLock lock, Library::Impl::LockPublish(library, LockMode::kExclusive, impl_->purpose));
    SweepSessions(library.env(), Library::Impl::SessionsPath(library));
    ASSIGN_OR_RETURN(const auto newest, Library::Impl::ReplayRefs(library, *library.snapshot()));

    // Whatever can refuse, refuses before anything is moved into the library.
    ASSIGN_OR_RETURN(const auto head, newest->Branch(branch));
    if (!version.expected_head && head) {
      return Fail(EAGAIN, "branch {}: was made meanwhile; look at it and try again", branch);
    }
    if (version.expected_head && (!head || head->manifest != *version.expected_head)) {
      return Fail(EAGAIN, "branch {}: was moved meanwhile; look at it and try again", branch);
    }
    if (published.tag.empty()) {
      ASSIGN_OR_RETURN(uint64_t number, newest->HighestVersion(branch));
      published.tag = fmt::format("v{}", number + 1);
    }
    ASSIGN_OR_RETURN(const auto taken, newest->Tag(branch, published.tag));
    if (taken) {
      return Fail(EEXIST, "tag {}/{}: taken, by {}; give another tag, or none for the next vN", branch, published.tag,
                  taken->manifest.Hex().substr(0, 12));
    }

    TRY(impl_->RenamePacks());
    // Opening for writing alone costs milliseconds, and so does a new reader; a publish of nothing new needs neither.
    const auto& tail = Library::Impl::Tail(*newest);
    if (!impl_->ssts.empty() || tail.size() >= kCatchUpRecords) {
      ASSIGN_OR_RETURN(const auto writer, MetadataWriter::Open(library.path() + "/db"));
      TRY(writer->Ingest(impl_->ssts));
      impl_->ssts.clear();
      if (tail.size() >= kCatchUpRecords) {
        TRY(writer->CatchUp(tail, Library::Impl::TailHighest(*newest), newest->position()));
      }
    }
    TRY(Library::Impl::AppendMoves(library, *newest, impl_->purpose,
                                   {{branch, head ? head->manifest : ObjectId(), manifest},
                                    {branch + "/" + published.tag, ObjectId(), manifest}}));
  }
  ASSIGN_OR_RETURN([[maybe_unused]] const bool changed, library.Refresh());

  // Compaction is due now and then; bounded, in a turn of its own, and nobody's publish fails for it.
  if (library.snapshot()->database().shape().level0_files >= kLevel0Due) {
    if (auto lock = Library::Impl::LockPublish(library, LockMode::kExclusive, "compacting the database")) {
      if (auto writer = MetadataWriter::Open(library.path() + "/db")) (void)(*writer)->CompactPiece();
    }
  }
  return published;
}

}  // namespace mirage
