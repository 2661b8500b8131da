#include "store/gc.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>

#include "store/compact.h"
#include "store/gc_roots.h"
#include "store/library_impl.h"
#include "store/mark.h"
#include "store/source_facts.h"

namespace mirage {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kUnlockedRounds = 5;    // looks before the last one is done under the lock
constexpr int kRetentionAttempts = 5;
constexpr std::chrono::milliseconds kSessionPause{20};
// In the order of RocksDB's keys.
constexpr ObjectKind kKinds[] = {ObjectKind::kChunk, ObjectKind::kInspection, ObjectKind::kLinks, ObjectKind::kContent,
                                 ObjectKind::kManifest, ObjectKind::kContentNode, ObjectKind::kTree, ObjectKind::kXattrs};

// What a look through the rows has found.
struct Plan {
  std::shared_ptr<const Snapshot> snapshot;  // whose rows were looked through
  std::vector<std::string> row_files;        // deletions, and where moved chunks lie now
  std::vector<PackFile> dead_packs;
  std::vector<PackUse> kept;                 // the others; for a compaction alone
  uint64_t live_objects = 0, live_chunks = 0, dead_objects = 0, dead_chunks = 0;
  std::vector<std::string> skipped;
};

class Collector {
 public:
  Collector(Library& library, const GcOptions& options, StagingDirectory staging)
      : library_(library),
        options_(options),
        staging_(std::move(staging)),
        scratch_(library.env(), staging_.path, options.memory_bytes),
        marker_(scratch_, options.interrupted) {}
  ~Collector() { (void)RemoveTree(library_.env(), staging_.path); }

  Result<GcReport> Run() {
    TRY(ForgetTags());
    TRY(LetOthersLease());
    TRY(Collect(nullptr));
    if (options_.compact) TRY(Compact());
    if (!options_.dry_run) TRY(DeletePacks(options_.wait_ms));
    if (options_.compact && !options_.dry_run) TRY(CompactDatabase());
    report_.scratch_bytes = scratch_.most_file_bytes;
    return std::move(report_);
  }

 private:
  void Step(std::string_view name) const {
    if (options_.at_step) options_.at_step(name);
  }
  Status CheckInterrupted() const {
    if (options_.interrupted && *options_.interrupted) return Fail(EINTR, "interrupted");
    return {};
  }

  Result<std::vector<RefMove>> ChooseTags(const Snapshot& snapshot) const;
  Status ForgetTags();
  Status LetOthersLease();

  Result<std::vector<PackFile>> ListPacks() const;
  // Rows of the chunks that stay, by pack.
  using LiveRows = std::map<PackNumber, uint64_t>;
  // One collection: mark, look, condemn. `moves`, if given, is put in place of what it rewrote.
  Status Collect(Compaction* moves);
  Result<Plan> Look(std::shared_ptr<const Snapshot> snapshot, const std::vector<PackFile>& packs, const Compaction* moves);
  Status LookAtRows(ObjectKind kind, RunMerge* live, const Compaction* moves, RowFiles* rows, Plan* plan,
                    LiveRows* live_rows);
  Status FindDeadPacks(const std::vector<PackFile>& packs, const LiveRows& live_rows, const Compaction* moves, Plan* plan);
  void Note(const Plan& plan);
  Result<bool> Condemn(const Plan& plan, Compaction* moves, std::optional<FileLock> lock);
  Status Compact();
  Status RemoveStagedPacks();
  Status DeletePacks(int wait_ms);
  Status CompactDatabase();

  Library& library_;
  const GcOptions& options_;
  StagingDirectory staging_;
  RecordScratch scratch_;
  Marker marker_;
  GcReport report_;
  std::vector<std::string> forgotten_;  // of a dry run: refs that would be gone
  std::vector<PackUse> kept_;           // as the last look found them
  int looks_ = 0;
};

Result<std::vector<RefMove>> Collector::ChooseTags(const Snapshot& snapshot) const {
  std::vector<RefMove> moves;
  ASSIGN_OR_RETURN(const auto branches, snapshot.Branches());
  if (!options_.branch.empty() && !branches.contains(options_.branch)) {
    return Fail(ENOENT, "{}: no such branch", options_.branch);
  }
  for (const auto& [branch, head] : branches) {
    if (!options_.branch.empty() && branch != options_.branch) continue;
    ASSIGN_OR_RETURN(const auto tags, snapshot.Tags(branch));
    std::map<ObjectId, TaggedVersion> versions;
    for (const auto& [tag, ref] : tags) {
      auto [it, is_new] = versions.try_emplace(ref.manifest);
      TaggedVersion& version = it->second;
      version.tags.push_back(tag);
      version.sequence = is_new ? ref.sequence : std::min(version.sequence, ref.sequence);
      if (!is_new) continue;
      ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(snapshot, ref.manifest));
      version.manifest = ref.manifest;
      version.time_sec = manifest.time_sec;
    }
    std::vector<TaggedVersion> list;
    for (auto& [id, version] : versions) list.push_back(std::move(version));
    for (const std::string& tag : TagsToForget(std::move(list), head.manifest, options_.retention)) {
      moves.push_back({branch + "/" + tag, tags.at(tag).manifest, ObjectId()});
    }
  }
  return moves;
}

Status Collector::ForgetTags() {
  if (options_.retention.empty()) return {};
  for (int attempt = 0;; ++attempt) {
    ASSIGN_OR_RETURN([[maybe_unused]] const bool changed, library_.Refresh());
    ASSIGN_OR_RETURN(const auto moves, ChooseTags(*library_.snapshot()));
    std::vector<std::string> names;
    for (const RefMove& move : moves) names.push_back(move.name);
    if (!options_.dry_run && !moves.empty()) {
      // A branch that was moved back meanwhile keeps the tags of its head.
      const auto check = [&](const Snapshot& newest) -> Status {
        for (const RefMove& move : moves) {
          ASSIGN_OR_RETURN(const auto head, newest.Branch(move.name.substr(0, move.name.find('/'))));
          if (head && head->manifest == move.from) return Fail(EAGAIN, "{}: its branch was moved meanwhile", move.name);
        }
        return {};
      };
      auto moved = library_.MoveRefs("gc", moves, check);
      if (!moved && moved.error().code == EAGAIN && attempt < kRetentionAttempts) continue;
      if (!moved) return moved;
    }
    forgotten_ = names;
    report_.tags_deleted = std::move(names);
    return {};
  }
}

Status Collector::LetOthersLease() {
  if (options_.dry_run) return {};
  const std::string own = Library::Impl::SessionName(library_);
  const auto deadline = Clock::now() + std::chrono::milliseconds(options_.lease_grace_ms);
  while (Clock::now() < deadline) {
    TRY(CheckInterrupted());
    ASSIGN_OR_RETURN(const auto sessions, LiveSessions(library_.env(), Library::Impl::SessionsPath(library_)));
    const bool others = std::any_of(sessions.begin(), sessions.end(), [&](const auto& session) { return session.name != own; });
    if (!others) return {};
    std::this_thread::sleep_for(kSessionPause);
  }
  return {};
}

Result<std::vector<PackFile>> Collector::ListPacks() const {
  ASSIGN_OR_RETURN(const auto names, library_.env().List(library_.packs_path()));
  std::vector<PackFile> packs;
  for (const std::string& name : names) {
    const auto number = ParsePackFileName(name);
    if (!number) continue;
    const auto info = library_.env().Stat(library_.packs_path() + "/" + name);
    if (!info && info.error().code == ENOENT) continue;
    if (!info) return tl::make_unexpected(info.error());
    packs.push_back({*number, info->size_bytes});
  }
  return packs;
}

Status Collector::Collect(Compaction* moves) {
  for (int round = 0;; ++round) {
    TRY(CheckInterrupted());
    // A pack that is listed before the snapshot is taken has its rows in it, or none for ever.
    const bool last = round == kUnlockedRounds && !options_.dry_run;
    std::optional<FileLock> lock;
    if (last) {
      ASSIGN_OR_RETURN(lock, Library::Impl::LockPublish(library_, LockMode::kExclusive, "gc"));
    }
    ASSIGN_OR_RETURN(const auto packs, ListPacks());
    ASSIGN_OR_RETURN(std::vector<ObjectId> roots, HeldVersions(library_));
    std::shared_ptr<const Snapshot> snapshot;
    {
      std::optional<FileLock> shared;
      if (!last) {
        ASSIGN_OR_RETURN(shared, Library::Impl::LockPublish(library_, LockMode::kShared, "gc"));
      }
      ASSIGN_OR_RETURN(snapshot, Library::Impl::LoadSnapshot(library_));
    }
    ASSIGN_OR_RETURN(const auto named, NamedVersions(*snapshot, options_.dry_run ? forgotten_ : std::vector<std::string>()));
    roots.insert(roots.end(), named.begin(), named.end());
    std::sort(roots.begin(), roots.end());
    roots.erase(std::unique(roots.begin(), roots.end()), roots.end());
    TRY(marker_.Add(*snapshot, roots));
    Step("marked");
    ASSIGN_OR_RETURN(const Plan plan, Look(snapshot, packs, moves));
    snapshot.reset();
    Step("looked");
    report_.versions_kept = roots.size();
    kept_ = plan.kept;
    if (options_.dry_run) {
      Note(plan);
      ASSIGN_OR_RETURN(const auto before, plan.snapshot->database().Condemned());
      report_.packs_deleted = report_.packs_condemned + before.size();
      report_.freed_bytes = report_.condemned_bytes;
      for (const PackFile& pack : packs) report_.freed_bytes += before.contains(pack.number) ? pack.bytes : 0;
      return {};
    }
    if (plan.dead_objects + plan.dead_chunks + plan.dead_packs.size() == 0 && !moves) {
      Note(plan);
      return {};
    }
    ASSIGN_OR_RETURN(const bool done, Condemn(plan, moves, std::move(lock)));
    if (!done) continue;
    Note(plan);
    Step("condemned");
    return {};
  }
}

void Collector::Note(const Plan& plan) {
  report_.live_objects = plan.live_objects;
  report_.live_chunks = plan.live_chunks;
  report_.dead_objects += plan.dead_objects;
  report_.dead_chunks += plan.dead_chunks;
  report_.packs_condemned += plan.dead_packs.size();
  for (const PackFile& pack : plan.dead_packs) report_.condemned_bytes += pack.bytes;
  report_.skipped = plan.skipped;
}

Result<Plan> Collector::Look(std::shared_ptr<const Snapshot> snapshot, const std::vector<PackFile>& packs,
                             const Compaction* moves) {
  Plan plan;
  plan.snapshot = std::move(snapshot);
  RowFiles rows(library_.env(), fmt::format("{}/rows-{}-", staging_.path, looks_++));
  ASSIGN_OR_RETURN(const auto live, RunMerge::Open(marker_.live().runs()));
  LiveRows live_rows;
  for (const ObjectKind kind : kKinds) TRY(LookAtRows(kind, live.get(), moves, &rows, &plan, &live_rows));
  ASSIGN_OR_RETURN(plan.row_files, rows.Finish());
  TRY(FindDeadPacks(packs, live_rows, moves, &plan));
  return plan;
}

Status Collector::LookAtRows(ObjectKind kind, RunMerge* live, const Compaction* moves, RowFiles* rows, Plan* plan,
                             LiveRows* live_rows) {
  const bool chunks = kind == ObjectKind::kChunk;
  std::optional<RecordRun::Cursor> moved;
  if (moves) moved.emplace(*moves->chunks);
  return plan->snapshot->database().ForEach(kind, [&](const ObjectId& id, std::string_view value) -> Status {
    const std::string key = IdKey(kind, id);
    while (live->valid() && live->record() < key) TRY(live->Next());
    if (!live->valid() || live->record() != key) {
      ++(chunks ? plan->dead_chunks : plan->dead_objects);
      return options_.dry_run ? Status() : rows->Delete(kind, id);
    }
    ++(chunks ? plan->live_chunks : plan->live_objects);
    if (!chunks) return {};
    ASSIGN_OR_RETURN(const Location location, DecodeLocation(value));
    if (moves && moves->packs.contains(location.pack)) {
      ASSIGN_OR_RETURN(const bool any, moved->Seek(key));
      if (any && moved->record().starts_with(key)) {
        ASSIGN_OR_RETURN(const Location now, MovedLocation(moved->record()));
        return rows->Put(kind, id, EncodeLocation(now));
      }
      // It came to life after the pack had been rewritten, which stays for it.
    }
    ++(*live_rows)[location.pack];
    return {};
  });
}

// A pack of chunks is dead when no live row points into it; one of metadata, when no object in it is live: those rows
// are in RocksDB, and the pack is what they can be rebuilt from.
Status Collector::FindDeadPacks(const std::vector<PackFile>& packs, const LiveRows& live_rows, const Compaction* moves,
                                Plan* plan) {
  ASSIGN_OR_RETURN(const auto condemned, plan->snapshot->database().Condemned());
  constexpr size_t kWidth = kIdKeyBytes + sizeof(uint32_t);
  RecordSorter sorter(scratch_, kWidth, options_.memory_bytes / 8);
  const auto levels = options_.compact ? plan->snapshot->database().PackLevels() : std::map<PackNumber, int>();
  std::vector<PackUse> uses(packs.size());
  std::vector<bool> left_out(packs.size());
  for (size_t i = 0; i < packs.size(); ++i) {
    PackUse& use = uses[i];
    const PackNumber number = packs[i].number;
    use.file = packs[i];
    if (const auto found = live_rows.find(number); found != live_rows.end()) use.live_rows = found->second;
    if (const auto level = levels.find(number); level != levels.end()) use.level = level->second;
    left_out[i] = condemned.contains(number);
    use.chunks = use.live_rows > 0;
    if (left_out[i] || (use.chunks && !options_.compact)) continue;
    TRY(CheckInterrupted());
    const auto scanned = ScanPackTables(
        library_.env(), library_.packs_path() + "/" + PackFileName(number), number, library_.format().uuid,
        [&](const Location&, const BlockTable& table) -> Status {
          use.rows += table.rows.size();
          for (const BlockRow& row : table.rows) {
            if (row.kind == ObjectKind::kChunk) {
              use.chunks = true;
              break;
            }
            std::string record = IdKey(row.kind, row.id);
            for (int byte = 3; byte >= 0; --byte) record.push_back(static_cast<char>(i >> (8 * byte)));
            TRY(sorter.Add(record));
          }
          return {};
        });
    if (scanned) continue;
    if (scanned.error().code != EIO) return scanned;
    left_out[i] = true;  // nobody can tell what is in it
    plan->skipped.push_back(scanned.error().message);
  }
  ASSIGN_OR_RETURN(const auto rows, sorter.Finish());
  ASSIGN_OR_RETURN(const auto live, RunMerge::Open(marker_.live().runs()));
  std::optional<RecordRun::Cursor> moved;
  if (moves) moved.emplace(*moves->objects);
  RecordRun::Cursor row(*rows);
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, row.Next());
    if (!more) break;
    const std::string_view key = row.record().substr(0, kIdKeyBytes);
    while (live->valid() && live->record() < key) TRY(live->Next());
    if (!live->valid() || live->record() != key) continue;
    uint32_t pack = 0;
    for (const char byte : row.record().substr(kIdKeyBytes)) pack = pack << 8 | static_cast<uint8_t>(byte);
    if (moves && moves->packs.contains(packs[pack].number)) {
      ASSIGN_OR_RETURN(const bool any, moved->Seek(key));
      if (any && moved->record() == key) continue;
    }
    ++uses[pack].live_rows;
  }
  for (size_t i = 0; i < packs.size(); ++i) {
    if (left_out[i]) continue;
    if (uses[i].live_rows == 0) {
      plan->dead_packs.push_back(packs[i]);
    } else if (options_.compact) {
      plan->kept.push_back(uses[i]);
    }
  }
  return {};
}

// False: something moved, look again. From here on new snapshots do not find what is dead.
Result<bool> Collector::Condemn(const Plan& plan, Compaction* moves, std::optional<FileLock> lock) {
  if (!lock) {
    ASSIGN_OR_RETURN(lock, Library::Impl::LockPublish(library_, LockMode::kExclusive, "gc"));
  }
  const std::string sessions_path = Library::Impl::SessionsPath(library_);
  SweepSessions(library_.env(), sessions_path);
  ASSIGN_OR_RETURN(std::vector<ObjectId> roots, HeldVersions(library_));
  ASSIGN_OR_RETURN(const auto newest, Library::Impl::ReplayRefs(library_, *plan.snapshot));
  ASSIGN_OR_RETURN(const auto named, NamedVersions(*newest));
  roots.insert(roots.end(), named.begin(), named.end());
  for (const ObjectId& root : roots) {
    if (!marker_.Has(root)) return false;
  }
  ASSIGN_OR_RETURN(const auto writer, MetadataWriter::Open(library_.env(), library_.path() + "/db"));
  // Rows that came since, even such as no ref names yet, may name what was found dead.
  if (writer->StateToken() != plan.snapshot->database().StateToken()) return false;
  ASSIGN_OR_RETURN(uint64_t generation, writer->Generation());
  ASSIGN_OR_RETURN(const auto sessions, LiveSessions(library_.env(), sessions_path));
  for (const SessionInfo& session : sessions) generation = std::max(generation, session.generation);
  ++generation;

  std::vector<std::string> files = plan.row_files;
  files.push_back(fmt::format("{}/collection-{}.sst", staging_.path, generation));
  std::vector<PackNumber> condemned;
  for (const PackFile& pack : plan.dead_packs) condemned.push_back(pack.number);
  std::map<PackNumber, int> levels;
  if (moves) {
    for (const auto* series : {moves->chunk_packs.get(), moves->object_packs.get()}) {
      for (const PackNumber pack : series->sealed()) levels.emplace(pack, moves->level);
    }
    TRY(moves->chunk_packs->MoveTo(library_.packs_path()));
    TRY(moves->object_packs->MoveTo(library_.packs_path()));
    TRY(library_.env().SyncDirectory(library_.packs_path()));
  }
  TRY(WriteCollectionRows(library_.env(), files.back(), generation, condemned, levels));
  // The record first: without the rows it says nothing that is not so; rows without it would not be looked for.
  TRY(Library::Impl::AppendMoves(library_, *newest, "gc", {}));
  TRY(writer->Ingest(files));
  return true;
}

Status Collector::Compact() {
  const int level = options_.compact_level > 0 ? options_.compact_level : library_.policy().compact_level;
  std::set<PackNumber> done;  // rewritten, or written here
  uint64_t batch_bytes = kCompactionBatchBytes;
  for (;;) {
    std::vector<PackUse> candidates;
    for (const PackUse& pack : kept_) {
      if (!done.contains(pack.file.number)) candidates.push_back(pack);
    }
    const auto chosen = PacksToRewrite(candidates, level, batch_bytes);
    if (chosen.empty()) return {};
    uint64_t chosen_bytes = 0;
    for (const PackUse& pack : chosen) chosen_bytes += pack.file.bytes;
    const auto count = [&] {
      for (const PackUse& pack : chosen) done.insert(pack.file.number);
      report_.packs_rewritten += chosen.size();
      report_.rewritten_bytes += chosen_bytes;
    };
    if (options_.dry_run) {
      count();
      continue;
    }
    if (options_.say) options_.say(fmt::format("rewriting {} packs", chosen.size()));
    std::shared_ptr<const Snapshot> snapshot;
    {
      ASSIGN_OR_RETURN(const FileLock lock, Library::Impl::LockPublish(library_, LockMode::kShared, "gc"));
      ASSIGN_OR_RETURN(snapshot, Library::Impl::LoadSnapshot(library_));
    }
    auto rewritten = RewritePacks(library_, *snapshot, marker_, scratch_, chosen, level, options_.interrupted);
    if (!rewritten && rewritten.error().code == EIO) {  // nothing has changed, and what is dead is condemned already
      report_.skipped.push_back(rewritten.error().message);
      return {};
    }
    if (!rewritten && rewritten.error().code == ENOSPC) {
      // What was written goes; a smaller batch may find room, and makes some.
      TRY(RemoveStagedPacks());
      if (chosen.size() == 1) {
        report_.skipped.push_back("no room to rewrite more: " + rewritten.error().message);
        return {};
      }
      batch_bytes = chosen_bytes / 2;
      continue;
    }
    if (!rewritten) return tl::make_unexpected(std::move(rewritten).error());
    Compaction moves = std::move(*rewritten);
    snapshot.reset();
    count();
    Step("rewritten");
    report_.written_bytes += moves.new_bytes;
    for (const auto* series : {moves.chunk_packs.get(), moves.object_packs.get()}) {
      done.insert(series->sealed().begin(), series->sealed().end());
    }
    TRY(Collect(&moves));
    TRY(DeletePacks(0));  // what a batch took on the disk comes back before the next takes more
  }
}

Status Collector::RemoveStagedPacks() {
  ASSIGN_OR_RETURN(const auto names, library_.env().List(staging_.path));
  for (const std::string& name : names) {
    if (ParsePackFileName(name)) TRY(library_.env().Unlink(staging_.path + "/" + name));
  }
  return {};
}

Status Collector::CompactDatabase() {
  ASSIGN_OR_RETURN(const FileLock lock, Library::Impl::LockPublish(library_, LockMode::kExclusive, "gc, compacting the database"));
  ASSIGN_OR_RETURN(const auto writer, MetadataWriter::Open(library_.env(), library_.path() + "/db"));
  return writer->CompactAll();
}

Status Collector::DeletePacks(int wait_ms) {
  Env& env = library_.env();
  ASSIGN_OR_RETURN([[maybe_unused]] const bool changed, library_.Refresh());
  ASSIGN_OR_RETURN(const auto condemned, library_.snapshot()->database().Condemned());
  report_.packs_waiting = report_.waiting_bytes = 0;
  report_.waited_for.clear();
  if (condemned.empty()) return {};
  uint64_t newest = 0, reached = 0;
  for (const auto& [pack, generation] : condemned) newest = std::max(newest, generation);
  const auto deadline = Clock::now() + std::chrono::milliseconds(wait_ms);
  for (;;) {
    ASSIGN_OR_RETURN(const auto sessions, LiveSessions(env, Library::Impl::SessionsPath(library_)));
    reached = ~uint64_t{0};
    report_.waited_for.clear();
    for (const SessionInfo& session : sessions) {
      reached = std::min(reached, session.generation);
      if (session.generation < newest) report_.waited_for.push_back(session.words);
    }
    if (report_.waited_for.empty() || Clock::now() >= deadline) break;
    TRY(CheckInterrupted());
    std::this_thread::sleep_for(kSessionPause);
  }
  std::vector<PackNumber> gone;
  for (const auto& [pack, generation] : condemned) {
    const std::string path = library_.packs_path() + "/" + PackFileName(pack);
    const auto info = env.Stat(path);
    const uint64_t bytes = info ? info->size_bytes : 0;
    if (generation > reached) {
      ++report_.packs_waiting;
      report_.waiting_bytes += bytes;
      continue;
    }
    if (auto removed = env.Unlink(path); !removed && removed.error().code != ENOENT) return removed;
    ++report_.packs_deleted;
    report_.freed_bytes += bytes;
    gone.push_back(pack);
  }
  if (gone.empty()) return {};
  TRY(env.SyncDirectory(library_.packs_path()));
  Step("deleted");
  ASSIGN_OR_RETURN(const FileLock lock, Library::Impl::LockPublish(library_, LockMode::kExclusive, "gc"));
  ASSIGN_OR_RETURN(const auto writer, MetadataWriter::Open(library_.env(), library_.path() + "/db"));
  TRY(writer->ForgetPacks(gone));
  return {};
}

}  // namespace

Result<GcReport> CollectGarbage(Library& library, const GcOptions& options) {
  const auto lock = FileLock::Acquire(library.env(), library.path() + "/locks/gc", LockMode::kExclusive, 0, "gc");
  if (!lock) return Annotate(lock.error(), "another collection is running");
  ASSIGN_OR_RETURN(StagingDirectory staging, Library::Impl::MakeStaging(library, "gc"));
  auto report = Collector(library, options, std::move(staging)).Run();
  if (report && !options.dry_run) {
    const auto snapshot = library.snapshot();
    SweepSourceFacts(library.env(), library.path(), [&](const std::string& branch) {
      const auto head = snapshot->Branch(branch);
      return !head || head->has_value();  // what cannot be looked up stays
    });
  }
  return report;
}

Status MakeReserve(Env& env, const std::string& library_path) {
  const std::string path = library_path + "/reserve";
  if (const auto info = env.Stat(path); info && info->size_bytes == kReserveBytes) return {};
  // Not zeros: a filesystem that compresses would reserve nothing. Not synced: delayed allocation counts the blocks already.
  std::string bytes;
  bytes.reserve(kReserveBytes);
  uint64_t state = 0;
  while (bytes.size() < kReserveBytes) {  // splitmix64
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    bytes.append(reinterpret_cast<const char*>(&z), sizeof z);
  }
  const auto write = [&]() -> Status {
    ASSIGN_OR_RETURN(const auto file, env.Open(path, OpenMode::kOpenOrCreate));
    return file->WriteAt(0, bytes);
  };
  auto written = write();
  if (!written) (void)env.Unlink(path);
  return written;
}

Result<bool> ReleaseReserve(Env& env, const std::string& library_path) {
  const auto removed = env.Unlink(library_path + "/reserve");
  if (removed) return true;
  if (removed.error().code == ENOENT) return false;
  return tl::make_unexpected(removed.error());
}

}  // namespace mirage
