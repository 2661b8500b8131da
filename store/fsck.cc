#include "store/fsck.h"

#include <sys/stat.h>

#include <filesystem>
#include <set>

#include "store/fsck_log.h"
#include "store/fsck_walk.h"
#include "store/library_impl.h"
#include "store/reachable.h"
#include "store/rebuild.h"
#include "store/rocksdb_tail.h"
#include "store/source_facts.h"

namespace mirage {
namespace {

constexpr uint64_t kScratchBytes = 64 << 20;  // of a check, beside what it needs for rows
constexpr uint64_t kMostRowsTold = 20;  // rows of RocksDB that disagree; the rest is counted
constexpr const char* kDirectories[] = {"packs", "staging", "overlays", "locks", "locks/sessions"};

// What refs.log says.
struct Refs {
  std::map<std::string, std::optional<Ref>> refs;
  std::map<std::string, uint64_t> highest;
  LogPosition end;
  std::set<ObjectId> named;  // every manifest that a record ever named
};

class Checker {
 public:
  Checker(std::string path, const FsckOptions& options, const std::function<void(const FsckFinding&)>& finding,
          const FsckProgress& progress)
      : path_(std::move(path)), env_(*options.env), options_(options), finding_(finding), progress_(progress) {}

  Result<FsckReport> Run();

 private:
  void Tell(FsckFinding::Kind kind, std::string what, std::string version = {}, std::string path = {}) {
    if (finding_) finding_({std::move(what), std::move(version), std::move(path), kind});
  }
  void Found(std::string what, std::string version = {}, std::string path = {}) {
    ++report_.damaged;
    Tell(again_ ? FsckFinding::kLeft : FsckFinding::kDamage, std::move(what), std::move(version), std::move(path));
  }
  void Done(std::string what) { Tell(FsckFinding::kRepair, std::move(what)); }

  // One whole check; what it made lies in scratch_. False: something is so wrong that the rest was not looked at.
  Result<bool> Check();
  bool HasRoom() const;
  Result<bool> CheckFormat();
  Status CheckPolicy();
  Result<bool> CheckDirectories();
  Result<bool> CheckLog();
  void OpenDatabase();
  bool RecoverDatabase();
  Status CheckDatabaseRefs(const Refs& at_position, const LogPosition& position);
  Status BuildIndex();
  Status CompareDatabase();
  Status CheckVersions();
  Status TellUnnamed(const std::vector<std::pair<ObjectId, std::string>>& versions);
  std::vector<std::pair<std::string, ObjectId>> NamedVersions() const;

  Status Repair();
  Result<std::string> BuildDatabase(uint64_t generation);
  Result<std::string> Quarantine();  // the directory, made if it is missing
  Status MoveToQuarantine(const std::string& path, const std::string& name);
  Status Lock(std::optional<FileLock>* lock, LockMode mode);

  const std::string path_;
  Env& env_;
  const FsckOptions& options_;
  const std::function<void(const FsckFinding&)>& finding_;
  const FsckProgress& progress_;
  bool again_ = false;  // the check after a repair
  FsckReport report_;

  Format format_;
  std::optional<std::string> mended_format_, mended_log_;
  std::optional<FileLock> publish_;
  std::shared_ptr<LibrarySession> session_;  // what is read here is not collected meanwhile
  bool whole_log_ = true;
  Refs refs_;
  std::unique_ptr<ScratchDirectory> scratch_;
  std::unique_ptr<MetadataDb> live_, packed_;
  bool database_due_ = false;                 // RocksDB is to be made anew
  uint64_t collections_ = 0;                  // as many records of refs.log tell of, or of a repair
  std::map<PackNumber, uint64_t> condemned_;  // packs that are nobody's
  uint64_t unmatched_ = 0;                    // rows of packs that RocksDB lacks: garbage, or lost
  PackScan packs_;
  std::set<ObjectId> ancestors_;  // of named versions, that are there
  std::unique_ptr<PackSalvage> salvage_;
};

Status Checker::Lock(std::optional<FileLock>* lock, LockMode mode) {
  const std::string purpose = mode == LockMode::kExclusive ? "fsck --repair" : "fsck";
  ASSIGN_OR_RETURN(const FileLock turnstile,
                   FileLock::Acquire(env_, path_ + "/locks/turnstile", mode, options_.lock_timeout_ms, purpose));
  ASSIGN_OR_RETURN(FileLock publish,
                   FileLock::Acquire(env_, path_ + "/locks/publish", mode, options_.lock_timeout_ms, purpose));
  lock->emplace(std::move(publish));
  return {};
}

Result<FsckReport> Checker::Run() {
  ASSIGN_OR_RETURN(bool whole, Check());
  if (!options_.repair || report_.damaged == 0) return report_;
  if (whole) TRY(Repair());
  const FsckReport before = report_;
  live_.reset();
  packed_.reset();
  salvage_.reset();
  scratch_.reset();
  if (whole) {
    again_ = true;
    report_ = {};
    ASSIGN_OR_RETURN(whole, Check());
  }
  report_.repaired = before.damaged;
  return report_;
}

Result<bool> Checker::Check() {
  live_.reset();
  refs_ = {};
  packs_ = {};
  mended_format_.reset();
  mended_log_.reset();
  whole_log_ = true;
  database_due_ = false;
  unmatched_ = 0;
  collections_ = 0;
  condemned_.clear();
  ancestors_.clear();
  ASSIGN_OR_RETURN(const bool format, CheckFormat());
  if (!format) return false;
  TRY(CheckPolicy());
  ASSIGN_OR_RETURN(const bool directories, CheckDirectories());
  if (!directories) return false;
  if (!publish_) TRY(Lock(&publish_, options_.repair ? LockMode::kExclusive : LockMode::kShared));
  if (!session_) {
    ASSIGN_OR_RETURN(session_, LibrarySession::Register(env_, path_ + "/locks/sessions", "fsck"));
  }
  OpenDatabase();
  ASSIGN_OR_RETURN(const bool log, CheckLog());
  if (!options_.repair) publish_.reset();
  if (!log) return false;
  if (options_.repair || HasRoom()) {
    ASSIGN_OR_RETURN(scratch_, ScratchDirectory::Create(env_, path_, options_.lock_timeout_ms));
  } else {
    ASSIGN_OR_RETURN(scratch_, ScratchDirectory::CreateElsewhere(env_));
  }
  if (options_.repair) salvage_ = std::make_unique<PackSalvage>(env_, scratch_->path(), format_.uuid);
  TRY(BuildIndex());
  TRY(CompareDatabase());
  TRY(CheckVersions());
  for (std::string& what : CheckSourceFacts(env_, path_, options_.repair)) Tell(FsckFinding::kNote, std::move(what));
  return true;
}

// Whether a check's scratch files fit beside the library: the rows once more, sorted on the way.
bool Checker::HasRoom() const {
  std::error_code ec;
  const auto space = std::filesystem::space(path_, ec);
  const uint64_t rows = live_ ? live_->shape().bytes : 0;
  return ec || space.available > 3 * rows + kScratchBytes;
}

Result<bool> Checker::CheckFormat() {
  const std::string path = path_ + "/FORMAT";
  const auto text = ReadWholeFile(env_, path, 1 << 16);
  if (!text) {
    if (text.error().code != ENOENT && text.error().code != ENOTDIR) return tl::make_unexpected(text.error());
    if (!env_.Stat(path_ + "/refs.log")) {
      return Fail(ENOENT, "{}: no library there; make one with `mirage init {}`, or name yours with -L", path_, path_);
    }
    Found("FORMAT: missing; restore it from a copy: nothing else can be read without it");
    return false;
  }
  auto format = DecodeFormat(*text, path);
  if (!format && format.error().code == EPROTONOSUPPORT) return tl::make_unexpected(format.error());
  if (format) {
    format_ = *format;
    return true;
  }
  mended_format_ = MendFormat(*text, path);
  if (!mended_format_) {
    Found(fmt::format("FORMAT: {}; nothing else was looked at", format.error().message));
    return false;
  }
  Found("FORMAT: damaged in one byte");
  ASSIGN_OR_RETURN(format_, DecodeFormat(*mended_format_, path));
  return true;
}

Status Checker::CheckPolicy() {
  const std::string path = path_ + "/mirage.yaml";
  const auto yaml = ReadWholeFile(env_, path, 1 << 20);
  if (!yaml && yaml.error().code == ENOENT) return {};  // the defaults hold
  if (!yaml) {
    Found(yaml.error().message);
  } else if (const auto policy = ParsePolicy(*yaml, "mirage.yaml"); !policy) {
    Found(policy.error().message + "; mend it, or remove it: then the defaults hold");
  }
  return {};
}

Result<bool> Checker::CheckDirectories() {
  bool all = true;
  for (const char* name : kDirectories) {
    const std::string path = path_ + "/" + name;
    const auto info = env_.Stat(path);
    if (info && info->is_directory) continue;
    Found(info ? fmt::format("{}: not a directory", name) : fmt::format("{}/: missing", name));
    all = false;
    if (info || !options_.repair) continue;
    TRY(env_.MakeDirectory(path, 0700));
    TRY(env_.SyncDirectory(path_));
    Done(fmt::format("{}/: made", name));
    all = true;
  }
  return all;
}

// As opening the library does, before anything is called damage. Whether it is worth another try.
bool Checker::RecoverDatabase() {
  if (!options_.repair) {
    publish_.reset();
    if (!Lock(&publish_, LockMode::kExclusive)) return false;
    if (MetadataDb::OpenReadOnly(env_, path_ + "/db")) return true;  // another process was first
  }
  const auto cut = CutTornTail(env_, path_ + "/db");
  if (!cut || !*cut) return false;
  Tell(FsckFinding::kNote, "db: a record that was being written when the power went was cut off");
  return true;
}

void Checker::OpenDatabase() {
  auto opened = MetadataDb::OpenReadOnly(env_, path_ + "/db");
  if (!opened && opened.error().code == EIO && RecoverDatabase()) opened = MetadataDb::OpenReadOnly(env_, path_ + "/db");
  Status status;
  if (opened) {
    status = (*opened)->VerifyChecksums();
    // What can be read of it is used, checksums being checked at each read.
    live_ = std::move(*opened);
  } else {
    status = tl::make_unexpected(opened.error());
  }
  if (status) return;
  Found(fmt::format("db: {}", status.error().message));
  database_due_ = true;
}

Result<bool> Checker::CheckLog() {
  std::optional<LogPosition> position;
  if (live_) {
    if (auto condemned = live_->Condemned()) condemned_ = std::move(*condemned);
    if (const auto at = live_->Position()) {
      position = *at;
    } else {
      Found(fmt::format("db: {}", at.error().message));
      database_due_ = true;
    }
  }
  Refs at_position;
  const std::string path = path_ + "/refs.log";
  auto check = CheckRefLog(env_, path, [&](const RefRecord& record) -> Status {
    ++report_.records;
    if (record.moves.empty()) ++collections_;
    for (const RefMove& move : record.moves) {
      const auto it = refs_.refs.find(move.name);
      const ObjectId before = it != refs_.refs.end() && it->second ? it->second->manifest : ObjectId();
      if (before != move.from) {
        Found(fmt::format("refs.log: record {}: {} was not where it says", record.sequence, move.name));
      }
      refs_.named.insert(move.from);
      refs_.named.insert(move.to);
    }
    Library::Impl::Apply(record, &refs_.refs, &refs_.highest);
    if (position && record.sequence == position->sequence) at_position = refs_;
    return {};
  });
  if (!check) {
    Found(check.error().code == ENOENT ? "refs.log: missing; restore it from a copy: it names the versions"
                                       : fmt::format("refs.log: {}", check.error().message));
    return false;
  }
  for (std::string& damage : check->damage) Found(std::move(damage));
  whole_log_ = check->whole;
  mended_log_ = std::move(check->mended);
  refs_.end = check->end;
  if (!whole_log_) {
    Tell(FsckFinding::kNote, "refs.log: what follows is checked with the records before the damaged one");
  } else if (position) {
    if (position->sequence > check->end.sequence) {
      // The records are gone; what they said of refs is still in RocksDB, and stays there until a person has looked.
      Found(fmt::format(
          "refs.log: ends with record {}, and the database has followed it to {}: its end is lost; restore it "
          "from a copy",
          check->end.sequence, position->sequence));
      whole_log_ = false;
    } else {
      TRY(CheckDatabaseRefs(at_position, *position));
    }
  }
  return true;
}

Status Checker::CheckDatabaseRefs(const Refs& at_position, const LogPosition& position) {
  const auto differs = [&](std::string what) {
    Found("db: " + std::move(what));
    database_due_ = true;
  };
  const RefLog log(env_, path_ + "/refs.log");
  if (!mended_log_) {
    const auto end = log.Replay(position, [](const RefRecord&) { return Status(); });
    if (!end || (position.sequence > 0 && *end != refs_.end))
      differs("its position in refs.log is not one of a record");
  }
  const auto refs = live_->Refs("");
  if (!refs) {
    differs(refs.error().message);
    return {};
  }
  std::map<std::string, Ref> wanted;
  for (const auto& [name, ref] : at_position.refs) {
    if (ref) wanted.emplace(name, *ref);
  }
  for (const auto& [name, ref] : *refs) {
    const auto it = wanted.find(name);
    if (it == wanted.end() || it->second != ref) {
      differs(fmt::format("{} stands at {}, refs.log says {}", name, ref.manifest.Hex(),
                          it == wanted.end() ? "nothing" : it->second.manifest.Hex()));
    }
  }
  for (const auto& [name, ref] : wanted) {
    if (!refs->contains(name)) differs(fmt::format("{} is missing, refs.log says {}", name, ref.manifest.Hex()));
  }
  for (const auto& [branch, number] : at_position.highest) {
    const auto counted = live_->HighestVersion(branch);
    if (!counted || *counted != number) differs(fmt::format("the last v{} of {} is not counted", number, branch));
  }
  return {};
}

Status Checker::BuildIndex() {
  ASSIGN_OR_RETURN(const std::string runs, scratch_->Make("rows"));
  SortedRuns rows(env_, runs, kFsckRunsBytes);
  ASSIGN_OR_RETURN(packs_, ScanPacks(
                               env_, path_ + "/packs", format_.uuid, condemned_, &rows,
                               [&](std::string what) { Found(std::move(what)); },
                               [&](uint64_t done, uint64_t total) {
                                 if (progress_) progress_("packs", done, total);
                               }));
  report_.packs = packs_.packs;
  report_.blocks = packs_.blocks;
  report_.objects = packs_.objects;
  report_.chunks = packs_.chunks;
  const std::string db = scratch_->path() + "/db";
  TRY(MetadataDb::Create(env_, db));
  ASSIGN_OR_RETURN(const auto files, rows.Finish());
  {
    ASSIGN_OR_RETURN(const auto writer, MetadataWriter::Open(env_, db));
    TRY(writer->Ingest(files));
  }
  ASSIGN_OR_RETURN(packed_, MetadataDb::OpenReadOnly(env_, db));
  return {};
}

// RocksDB's rows must be the packs'. The other way about is no damage: a publish that was cut short, or a collector,
// leaves objects in packs that RocksDB does not name; those that a version needs are found missing when it is walked.
Status Checker::CompareDatabase() {
  if (!live_) return {};
  ChunkStore chunks(env_, path_ + "/packs", {.cache_bytes = 1 << 20});
  std::map<PackNumber, uint64_t> astray;  // chunks of RocksDB that are not in the pack it names
  uint64_t rows_told = 0;
  const auto differs = [&](std::string what) {
    database_due_ = true;
    if (++rows_told <= kMostRowsTold) Found("db: " + std::move(what));
  };
  Status salvaged;
  const auto compare = [&](ObjectKind kind, const ObjectId& id, std::optional<std::string_view> live,
                           std::optional<std::string_view> packed) -> Status {
    if (!live) {
      ++unmatched_;
      return {};
    }
    if (live == packed) return {};
    if (kind == ObjectKind::kChunk) {
      const auto location = DecodeLocation(*live);
      if (!location) {
        differs(fmt::format("chunk {}: {}", id.Hex(), location.error().message));
        return {};
      }
      // Another pack may have it too.
      const auto block = chunks.ReadBlock(*location);
      const bool right = block && location->slot < (*block)->rows().size() &&
                         (*block)->rows()[location->slot].kind == kind && (*block)->rows()[location->slot].id == id &&
                         HashBytes((*block)->Bytes(location->slot)) == id;
      if (!right) ++astray[location->pack];
      return {};
    }
    if (packed) {
      differs(fmt::format("object {} differs from what the packs hold", id.Hex()));
      return {};
    }
    const bool good = kind == ObjectKind::kContent ? DecodeContentNode(*live).has_value() : HashBytes(*live) == id;
    differs(fmt::format("object {} of kind '{}' {}", id.Hex(), static_cast<char>(kind),
                        good ? "is in no pack" : "is in no pack, and is not what its id says"));
    if (good && salvage_) {
      salvaged = salvage_->AddObject(kind, id, *live);
      return salvaged;
    }
    return {};
  };
  const Status status = live_->Compare(*packed_, compare);
  if (!salvaged) return salvaged;
  if (!status && !database_due_) {
    Found(fmt::format("db: {}", status.error().message));
    database_due_ = true;
  }
  if (!status) unmatched_ = 1;  // it is not known what it lacks
  for (const auto& [pack, count] : astray) {
    const bool missing = !packs_.bytes_before.contains(pack);
    Found(fmt::format("db: {} chunks are not in packs/{}{}", count, PackFileName(pack),
                      missing ? ", which is missing" : ""));
    database_due_ = true;
  }
  if (rows_told > kMostRowsTold) Found(fmt::format("db: {} rows more differ", rows_told - kMostRowsTold));
  return {};
}

// Tags first: they read better in a report than a branch.
std::vector<std::pair<std::string, ObjectId>> Checker::NamedVersions() const {
  std::vector<std::pair<std::string, ObjectId>> versions;
  std::set<ObjectId> seen;
  for (const bool tags : {true, false}) {
    for (const auto& [name, ref] : refs_.refs) {
      if (!ref || (name.find('/') != std::string::npos) != tags || !seen.insert(ref->manifest).second) continue;
      versions.emplace_back(name, ref->manifest);
    }
  }
  return versions;
}

Status Checker::CheckVersions() {
  const CheckedIndex index(*packed_, live_.get(), unmatched_ > 0);
  const ChunkStore chunks(env_, path_ + "/packs", {.cache_bytes = 16 << 20});
  FsckWalk walk(env_, scratch_->path(), index, chunks,
                [&](std::string what, const std::string& version, const std::string& path) {
                  Found(std::move(what), version, path);
                });
  std::set<ObjectId> known;
  std::vector<std::pair<ObjectId, std::string>> ancestors;
  std::vector<std::pair<std::string, ObjectId>> readable;
  for (const auto& [name, id] : NamedVersions()) {
    const auto manifest = ReadManifest(index, id);
    known.insert(id);
    if (index.TakeLacking()) {
      Found("db: lacks the manifest that the packs hold", name);
      database_due_ = true;
    }
    if (!manifest) {
      Found(manifest.error().message, name);
      continue;
    }
    ++report_.versions;
    readable.emplace_back(name, id);
    for (const ObjectId& parent : manifest->parents) ancestors.emplace_back(parent, name);
    TRY(walk.CheckStructure(name, *manifest));
  }
  // History: of versions without a name the manifests alone are sure to be kept.
  while (!ancestors.empty()) {
    const auto [id, descendant] = std::move(ancestors.back());
    ancestors.pop_back();
    if (!known.insert(id).second) continue;
    const auto manifest = ReadManifest(index, id);
    if (!manifest) {
      Found(fmt::format("an ancestor: {}", manifest.error().message), descendant);
      continue;
    }
    ancestors_.insert(id);
    for (const ObjectId& parent : manifest->parents) ancestors.emplace_back(parent, descendant);
  }
  static_cast<void>(index.TakeLacking());
  ASSIGN_OR_RETURN(report_.contents, walk.CheckContents([&](PackNumber pack, uint64_t offset) {
    const auto it = packs_.bytes_before.find(pack);
    if (progress_ && it != packs_.bytes_before.end()) progress_("contents", it->second + offset, packs_.total_bytes);
  }));
  if (progress_) progress_("contents", packs_.total_bytes, packs_.total_bytes);
  if (walk.found_bad_contents()) {
    for (const auto& [name, id] : readable) {
      ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(index, id));
      TRY(walk.ReportBadContents(name, manifest));
    }
  }
  database_due_ |= walk.found_lacking();
  std::vector<std::pair<ObjectId, std::string>> unnamed;
  TRY(packed_->ForEach(ObjectKind::kManifest, [&](const ObjectId& id, std::string_view bytes) -> Status {
    if (known.contains(id) || refs_.named.contains(id)) return {};
    const auto manifest = DecodeManifest(bytes);
    unnamed.emplace_back(id, manifest ? " of branch " + manifest->branch : "");
    return {};
  }));
  return TellUnnamed(unnamed);
}

Status Checker::TellUnnamed(const std::vector<std::pair<ObjectId, std::string>>& versions) {
  if (versions.empty()) return {};
  // They may have been published since the log was read, or be about to: nobody is publishing while the lock is held.
  std::optional<FileLock> lock;
  if (!publish_) TRY(Lock(&lock, LockMode::kShared));
  if (whole_log_ && !mended_log_) {
    const RefLog log(env_, path_ + "/refs.log");
    ASSIGN_OR_RETURN([[maybe_unused]] const LogPosition end,
                     log.Replay(refs_.end, [&](const RefRecord& record) -> Status {
                       for (const RefMove& move : record.moves) refs_.named.insert(move.to);
                       return {};
                     }));
  }
  for (const auto& [id, of_branch] : versions) {
    if (refs_.named.contains(id)) continue;
    Tell(FsckFinding::kNote,
         fmt::format(
             "version @{}{}: no record of refs.log ever named it: a publish was cut short, or the log lost its end",
             id.Hex().substr(0, 12), of_branch));
  }
  return {};
}

Result<std::string> Checker::Quarantine() {
  const std::string path = path_ + "/quarantine";
  if (!env_.Stat(path)) {
    TRY(env_.MakeDirectory(path, 0700));
    TRY(env_.SyncDirectory(path_));
  }
  return path;
}

// Nothing there is replaced: what has the name already gets company.
Status Checker::MoveToQuarantine(const std::string& path, const std::string& name) {
  ASSIGN_OR_RETURN(const std::string directory, Quarantine());
  std::string to = directory + "/" + name;
  for (int i = 2; env_.Stat(to); ++i) to = fmt::format("{}/{}.{}", directory, name, i);
  TRY(env_.Rename(path, to));
  Done(fmt::format("{} moved to {}", path.substr(path_.size() + 1), to.substr(path_.size() + 1)));
  return env_.SyncDirectory(directory);
}

// A database of what versions reach, with refs.log followed to its end. Not of all that lies in packs: a collector may
// have taken what dead rows name, and a writer takes a row that is there for whole. Versions that no ref names stay, if
// all of them is there: an overlay may stand on one.
Result<std::string> Checker::BuildDatabase(uint64_t generation) {
  ReachableMarks marks(
      env_, scratch_->path(),
      [&](ObjectKind kind, const ObjectId& id) -> Result<std::optional<std::string>> {
        ASSIGN_OR_RETURN(auto value, packed_->Get(kind, id));
        if (value) return value;
        return salvage_->rows().Get(kind, id);
      },
      [&](const ObjectId& id) -> Result<bool> {
        ASSIGN_OR_RETURN(const auto value, packed_->Get(ObjectKind::kChunk, id));
        return value.has_value();
      });
  for (const auto& [name, id] : NamedVersions()) TRY(marks.Mark(id));
  std::vector<ObjectId> others;
  const auto look = [&](const ObjectId& id) -> Status {
    ASSIGN_OR_RETURN(const bool whole, marks.IsWhole(id));
    return whole ? marks.Mark(id) : Status();
  };
  TRY(packed_->ForEach(ObjectKind::kManifest, [&](const ObjectId& id, std::string_view) { return look(id); }));
  TRY(salvage_->rows().Visit([&](std::string_view key, std::string_view) -> Status {
    if (key[0] == static_cast<char>(ObjectKind::kManifest)) others.push_back(*ObjectId::FromBytes(key.substr(1)));
    return {};
  }));
  for (const ObjectId& id : others) TRY(look(id));
  for (const ObjectId& id : ancestors_) TRY(marks.MarkManifest(id));

  ASSIGN_OR_RETURN(const std::string kept_path, scratch_->Make("kept-rows"));
  ASSIGN_OR_RETURN(const std::string over_path, scratch_->Make("kept-salvaged-rows"));
  SortedRuns kept(env_, kept_path, kFsckRunsBytes), over(env_, over_path, kFsckRunsBytes);
  for (const ObjectKind kind : kObjectKinds) {
    TRY(packed_->ForEach(kind, [&](const ObjectId& id, std::string_view value) -> Status {
      ASSIGN_OR_RETURN(const bool wanted, marks.Contains(kind, id));
      return wanted ? kept.Put(kind, id, std::string(value)) : Status{};
    }));
  }
  TRY(salvage_->rows().Visit([&](std::string_view key, std::string_view value) -> Status {
    const auto kind = static_cast<ObjectKind>(key[0]);
    const ObjectId id = *ObjectId::FromBytes(key.substr(1));
    ASSIGN_OR_RETURN(const bool wanted, marks.Contains(kind, id));
    return wanted ? over.Put(kind, id, std::string(value)) : Status{};
  }));
  const std::string made = scratch_->path() + "/made";
  TRY(MetadataDb::Create(env_, made));
  ASSIGN_OR_RETURN(const auto kept_files, kept.Finish());
  ASSIGN_OR_RETURN(const auto over_files, over.Finish());
  ASSIGN_OR_RETURN(const auto writer, MetadataWriter::Open(env_, made));
  TRY(writer->Ingest(kept_files));
  TRY(writer->Ingest(over_files));  // what was salvaged lies elsewhere now
  TRY(writer->MakeIn(generation, condemned_));
  TRY(writer->CatchUp(refs_.refs, refs_.highest, refs_.end));
  return made;
}

// In this order, so that whatever is named is there at every step: copies are in packs/ before RocksDB names them, and
// damaged packs stay until it names them no more. Between the two renames there is no db/: then a repair makes one.
Status Checker::Repair() {
  if (mended_format_) {
    ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(env_, path_ + "/FORMAT", 1 << 16));
    ASSIGN_OR_RETURN(const std::string directory, Quarantine());
    TRY(WriteFileAtomically(env_, directory + "/FORMAT", text));
    TRY(WriteFileAtomically(env_, path_ + "/FORMAT", *mended_format_));
    Done("FORMAT: the byte put right");
  }
  if (mended_log_) {
    ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(env_, path_ + "/refs.log", 1 << 30));
    ASSIGN_OR_RETURN(const std::string directory, Quarantine());
    TRY(WriteFileAtomically(env_, directory + "/refs.log", text));
    TRY(WriteFileAtomically(env_, path_ + "/refs.log", *mended_log_));
    Done("refs.log: the bytes put right");
  }
  for (const std::string& name : packs_.damaged) {
    TRY(salvage_->AddPack(path_ + "/packs/" + name, *ParsePackFileName(name)));
  }
  TRY(salvage_->Finish());
  for (const std::string& name : salvage_->names()) {
    TRY(env_.Rename(scratch_->path() + "/" + name, path_ + "/packs/" + name));
    Done(fmt::format("packs/{}: made of what was sound", name));
  }
  if (!salvage_->names().empty()) TRY(env_.SyncDirectory(path_ + "/packs"));

  // With a log whose records are lost, its refs must not go over those that RocksDB may still know.
  if ((database_due_ || !packs_.damaged.empty()) && whole_log_) {
    // A generation once given is never given again.
    uint64_t generation = collections_ + 1;
    if (live_) generation = std::max(generation, live_->Generation().value_or(0) + 1);
    ASSIGN_OR_RETURN(const auto sessions, LiveSessions(env_, path_ + "/locks/sessions"));
    for (const SessionInfo& session : sessions) generation = std::max(generation, session.generation + 1);
    ASSIGN_OR_RETURN(const std::string made, BuildDatabase(generation));
    packed_.reset();
    live_.reset();
    // The record first, as a collection does: readers look for other rows, and who has begun to write begins again.
    TRY(Library::Impl::AppendRecord(env_, path_, refs_.end, "fsck --repair", {}));
    const std::string db = path_ + "/db";
    TRY(env_.SyncDirectory(made));
    if (env_.Stat(db)) TRY(MoveToQuarantine(db, "db"));
    TRY(env_.Rename(made, db));
    TRY(env_.SyncDirectory(path_));
    Done("db: made anew from packs and refs.log");
  }
  if (!packs_.damaged.empty() && !whole_log_) return {};  // RocksDB still names them
  for (const std::string& name : packs_.damaged) TRY(MoveToQuarantine(path_ + "/packs/" + name, name));
  for (const std::string& name : packs_.strangers) TRY(MoveToQuarantine(path_ + "/packs/" + name, name));
  if (!packs_.damaged.empty() || !packs_.strangers.empty()) TRY(env_.SyncDirectory(path_ + "/packs"));
  return {};
}

}  // namespace

Result<FsckReport> Fsck(const std::string& path, const FsckOptions& options,
                        const std::function<void(const FsckFinding&)>& finding, const FsckProgress& progress) {
  std::error_code ec;
  const std::string absolute = std::filesystem::weakly_canonical(path, ec).string();
  return Checker(ec ? path : absolute, options, finding, progress).Run();
}

Result<FsckReport> Fsck(Library& library, const std::function<void(const FsckFinding&)>& finding,
                        const FsckProgress& progress) {
  FsckOptions options;
  options.env = &library.env();
  options.lock_timeout_ms = library.policy().lock_timeout_ms;
  return Fsck(library.path(), options, finding, progress);
}

}  // namespace mirage
