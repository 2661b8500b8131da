#include "store/metadata_db.h"

#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <algorithm>

#include "store/rocksdb_options.h"

namespace mirage {
namespace {

constexpr uint64_t kLevel1Bytes = 32 << 20;
constexpr int kLevel0Trigger = 8;
constexpr char kRefPrefix = 'R', kVersionPrefix = 'N', kPositionKey = 'P', kGenerationKey = 'G', kMadeKey = 'A', kCondemnedPrefix = 'D',
               kLevelPrefix = 'Z';

rocksdb::Slice ToSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
std::string_view View(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

void PutU64(std::string* out, uint64_t value) {
  for (int i = 0; i < 8; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}
uint64_t GetU64(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value |= uint64_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
  return value;
}

std::string EncodeRef(const Ref& ref) {
  std::string out(ref.manifest.view());
  PutU64(&out, ref.sequence);
  PutU64(&out, static_cast<uint64_t>(ref.time_sec));
  return out;
}
Result<Ref> DecodeRef(std::string_view bytes) {
  if (bytes.size() != 48) return Fail(EIO, "library database: a ref of {} bytes; run fsck", bytes.size());
  return Ref{*ObjectId::FromBytes(bytes.substr(0, 32)), GetU64(bytes.substr(32)),
             static_cast<int64_t>(GetU64(bytes.substr(40)))};
}

std::string Key(ObjectKind kind, const ObjectId& id) {
  std::string key(1, static_cast<char>(kind));
  key += id.view();
  return key;
}

// Every change of the rows makes a new table, and no table's name is used twice.
std::string TableNames(rocksdb::DB& db) {
  std::vector<rocksdb::LiveFileMetaData> files;
  db.GetLiveFilesMetaData(&files);
  std::vector<std::string> names;
  for (const auto& file : files) names.push_back(file.name);
  std::sort(names.begin(), names.end());
  std::string all;
  for (const std::string& name : names) all += name;
  return all;
}

// Of a row that holds a generation; 0: there is none.
Result<uint64_t> ReadGeneration(const rocksdb::DB& db, const char& key) {
  std::string value;
  auto& reader = const_cast<rocksdb::DB&>(db);  // Get is not const there
  const rocksdb::Status status = reader.Get(rocksdb::ReadOptions(), rocksdb::Slice(&key, 1), &value);
  if (status.IsNotFound()) return uint64_t{0};
  if (!status.ok()) return FailRocksDb(status, "read");
  if (value.size() != 8) return Fail(EIO, "library database: a generation of {} bytes; run fsck", value.size());
  return GetU64(value);
}

// A database made anew counts its tables from the beginning.
std::string StateOf(rocksdb::DB& db) {
  const auto made = ReadGeneration(db, kMadeKey);
  return fmt::format("{}:{}", made ? fmt::to_string(*made) : "?", TableNames(db));
}

std::string PackKey(char prefix, PackNumber pack) {
  std::string key(1, prefix);
  PutU64(&key, pack);
  return key;
}

// The first key behind every key that begins with `prefix` (prefixes here are never 0xff).
std::string Behind(std::string prefix) {
  prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

class SilentLogger final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

}  // namespace

rocksdb::Options LibraryDbOptions(const RocksDbEnv& env) {
  static const std::shared_ptr<rocksdb::Cache> cache = rocksdb::NewLRUCache(32 << 20);
  static const std::shared_ptr<rocksdb::Logger> silent = std::make_shared<SilentLogger>();
  rocksdb::Options options;
  options.env = env.get();
  options.max_open_files = -1;
  options.disable_auto_compactions = true;
  options.compression = rocksdb::kLZ4Compression;
  options.target_file_size_base = 8 << 20;
  options.level_compaction_dynamic_level_bytes = false;
  options.info_log = silent;
  options.max_background_jobs = 1;
  options.write_buffer_size = 4 << 20;
  options.level0_slowdown_writes_trigger = 1 << 20;
  options.level0_stop_writes_trigger = 1 << 20;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.skip_stats_update_on_db_open = true;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10, false));
  table.checksum = rocksdb::kXXH3;
  table.format_version = 5;
  table.block_size = 8 << 10;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

tl::unexpected<Error> FailRocksDb(const rocksdb::Status& status, std::string_view doing) {
  int code = EIO;
  if (status.IsNoSpace()) code = ENOSPC;
  const std::string text = status.ToString();
  if (text.find("No space left") != std::string::npos) code = ENOSPC;
  if (text.find("Permission denied") != std::string::npos) code = EACCES;
  return Fail(code, "library database: {}: {}{}", doing, text,
              code == ENOSPC ? "; free some space and try again" : code == EACCES ? "" : "; run fsck");
}

struct MetadataDb::Impl {
  explicit Impl(Env& e) : env(e) {}
  const RocksDbEnv env;
  std::unique_ptr<rocksdb::DB> db;

  Result<std::optional<std::string>> Get(std::string_view key) const {
    std::string value;
    const rocksdb::Status status = db->Get(rocksdb::ReadOptions(), ToSlice(key), &value);
    if (status.IsNotFound()) return std::optional<std::string>();
    if (!status.ok()) return FailRocksDb(status, "read");
    return std::optional<std::string>(std::move(value));
  }
  // Calls visit(key, value) over the keys that begin with `prefix` until it returns false.
  Status Scan(const std::string& prefix,
              const std::function<Result<bool>(std::string_view, std::string_view)>& visit) const {
    const std::string end = Behind(prefix);
    const rocksdb::Slice bound = ToSlice(end);
    rocksdb::ReadOptions options;
    options.iterate_upper_bound = &bound;
    std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(options));
    for (it->Seek(prefix); it->Valid(); it->Next()) {
      ASSIGN_OR_RETURN(const bool more, visit(View(it->key()), View(it->value())));
      if (!more) return {};
    }
    if (!it->status().ok()) return FailRocksDb(it->status(), "scan");
    return {};
  }
};

MetadataDb::MetadataDb(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MetadataDb::~MetadataDb() = default;

Status MetadataDb::Create(Env& env, const std::string& path) {
  const RocksDbEnv road(env);
  rocksdb::Options options = LibraryDbOptions(road);
  options.create_if_missing = true;
  options.error_if_exists = true;
  rocksdb::DB* raw = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, path, &raw);
  if (!status.ok()) return FailRocksDb(status, "create");
  const std::unique_ptr<rocksdb::DB> db(raw);
  std::string position;
  PutU64(&position, 0);
  PutU64(&position, 0);
  position.append(32, '\0');
  rocksdb::WriteOptions unlogged;
  unlogged.disableWAL = true;
  rocksdb::Status put = db->Put(unlogged, rocksdb::Slice(&kPositionKey, 1), position);
  if (put.ok()) put = db->Flush(rocksdb::FlushOptions());
  if (put.ok()) put = db->Close();
  if (!put.ok()) return FailRocksDb(put, "create");
  return {};
}

Result<std::unique_ptr<MetadataDb>> MetadataDb::OpenReadOnly(Env& env, const std::string& path) {
  auto impl = std::make_unique<Impl>(env);
  rocksdb::DB* raw = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(LibraryDbOptions(impl->env), path, &raw);
  if (!status.ok()) return FailRocksDb(status, "open");
  impl->db.reset(raw);
  return std::unique_ptr<MetadataDb>(new MetadataDb(std::move(impl)));
}

Result<std::optional<std::string>> MetadataDb::Get(ObjectKind kind, const ObjectId& id) const {
  return impl_->Get(Key(kind, id));
}

Result<LogPosition> MetadataDb::Position() const {
  ASSIGN_OR_RETURN(const auto value, impl_->Get(std::string_view(&kPositionKey, 1)));
  if (!value || value->size() != 48) return Fail(EIO, "library database: its position in refs.log is missing; run fsck");
  const std::string_view bytes = *value;
  return LogPosition{GetU64(bytes), GetU64(bytes.substr(8)), *ObjectId::FromBytes(bytes.substr(16))};
}

Result<std::optional<Ref>> MetadataDb::GetRef(const std::string& name) const {
  ASSIGN_OR_RETURN(const auto value, impl_->Get(kRefPrefix + name));
  if (!value) return std::optional<Ref>();
  ASSIGN_OR_RETURN(const Ref ref, DecodeRef(*value));
  return std::optional<Ref>(ref);
}

Result<std::map<std::string, Ref>> MetadataDb::Refs(const std::string& prefix) const {
  std::map<std::string, Ref> refs;
  TRY(impl_->Scan(kRefPrefix + prefix, [&](std::string_view key, std::string_view value) -> Result<bool> {
    ASSIGN_OR_RETURN(const Ref ref, DecodeRef(value));
    refs.emplace(key.substr(1), ref);
    return true;
  }));
  return refs;
}

Result<std::map<std::string, Ref>> MetadataDb::Branches() const {
  std::map<std::string, Ref> refs;
  const std::string first(1, kRefPrefix), end = Behind(first);
  const rocksdb::Slice bound = ToSlice(end);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &bound;
  std::unique_ptr<rocksdb::Iterator> it(impl_->db->NewIterator(options));
  it->Seek(first);
  while (it->Valid()) {
    const std::string_view name = View(it->key()).substr(1);
    if (const size_t slash = name.find('/'); slash != std::string_view::npos) {
      it->Seek(Behind(first + std::string(name.substr(0, slash + 1))));  // over all tags of the branch
      continue;
    }
    ASSIGN_OR_RETURN(const Ref ref, DecodeRef(View(it->value())));
    refs.emplace(name, ref);
    it->Next();
  }
  if (!it->status().ok()) return FailRocksDb(it->status(), "scan");
  return refs;
}

Result<uint64_t> MetadataDb::HighestVersion(const std::string& branch) const {
  ASSIGN_OR_RETURN(const auto value, impl_->Get(kVersionPrefix + branch));
  if (!value) return uint64_t{0};
  if (value->size() != 8) return Fail(EIO, "library database: a version counter of {} bytes; run fsck", value->size());
  return GetU64(*value);
}

Result<uint64_t> MetadataDb::Generation() const { return ReadGeneration(*impl_->db, kGenerationKey); }
Result<uint64_t> MetadataDb::MadeIn() const { return ReadGeneration(*impl_->db, kMadeKey); }
std::string MetadataDb::StateToken() const { return StateOf(*impl_->db); }

std::map<PackNumber, int> MetadataDb::PackLevels() const {
  std::map<PackNumber, int> levels;
  (void)impl_->Scan(std::string(1, kLevelPrefix), [&](std::string_view key, std::string_view value) -> Result<bool> {
    if (key.size() == 9 && value.size() == 1) levels.emplace(GetU64(key.substr(1)), value[0]);
    return true;
  });
  return levels;
}

Result<std::map<PackNumber, uint64_t>> MetadataDb::Condemned() const {
  std::map<PackNumber, uint64_t> packs;
  TRY(impl_->Scan(std::string(1, kCondemnedPrefix), [&](std::string_view key, std::string_view value) -> Result<bool> {
    if (key.size() != 9 || value.size() != 8) return Fail(EIO, "library database: a malformed condemned pack; run fsck");
    packs.emplace(GetU64(key.substr(1)), GetU64(value));
    return true;
  }));
  return packs;
}

Status MetadataDb::ForEach(ObjectKind kind,
                           const std::function<Status(const ObjectId&, std::string_view)>& visit) const {
  return impl_->Scan(std::string(1, static_cast<char>(kind)),
                     [&](std::string_view key, std::string_view value) -> Result<bool> {
                       const auto id = ObjectId::FromBytes(key.substr(1));
                       if (!id) return Fail(EIO, "library database: a key of {} bytes; run fsck", key.size());
                       TRY(visit(*id, value));
                       return true;
                     });
}

Result<std::vector<ObjectId>> MetadataDb::IdsWithPrefix(ObjectKind kind, std::string_view hex, size_t limit) const {
  std::vector<ObjectId> ids;
  if (hex.empty() || hex.size() > 64) return ids;
  const auto low = ObjectId::FromHex(std::string(hex) + std::string(64 - hex.size(), '0'));
  if (!low) return ids;
  std::unique_ptr<rocksdb::Iterator> it(impl_->db->NewIterator(rocksdb::ReadOptions()));
  for (it->Seek(Key(kind, *low)); it->Valid() && ids.size() < limit; it->Next()) {
    const std::string_view key = View(it->key());
    if (key.size() != 33 || key[0] != static_cast<char>(kind)) break;
    const ObjectId id = *ObjectId::FromBytes(key.substr(1));
    if (!id.Hex().starts_with(hex)) break;
    ids.push_back(id);
  }
  if (!it->status().ok()) return FailRocksDb(it->status(), "scan");
  return ids;
}

Status MetadataDb::VerifyChecksums() const {
  if (const auto status = impl_->db->VerifyChecksum(); !status.ok()) return FailRocksDb(status, "verify checksums");
  return {};
}

Status MetadataDb::Compare(const MetadataDb& other, const VisitPair& visit) const {
  for (const ObjectKind kind : kObjectKinds) {
    const std::string prefix(1, static_cast<char>(kind)), end = Behind(prefix);
    const rocksdb::Slice bound = ToSlice(end);
    rocksdb::ReadOptions options;
    options.iterate_upper_bound = &bound;
    options.fill_cache = false;
    const std::unique_ptr<rocksdb::Iterator> here(impl_->db->NewIterator(options));
    const std::unique_ptr<rocksdb::Iterator> there(other.impl_->db->NewIterator(options));
    here->Seek(prefix);
    there->Seek(prefix);
    while (here->Valid() || there->Valid()) {
      const int order = !there->Valid() ? -1 : !here->Valid() ? 1 : here->key().compare(there->key());
      const std::string_view key = View(order <= 0 ? here->key() : there->key());
      const auto id = ObjectId::FromBytes(key.substr(1));
      if (!id) return Fail(EIO, "library database: a key of {} bytes", key.size());
      TRY(visit(kind, *id, order <= 0 ? std::optional(View(here->value())) : std::nullopt,
                order >= 0 ? std::optional(View(there->value())) : std::nullopt));
      if (order <= 0) here->Next();
      if (order >= 0) there->Next();
    }
    if (!here->status().ok()) return FailRocksDb(here->status(), "scan");
    if (!there->status().ok()) return FailRocksDb(there->status(), "scan");
  }
  return {};
}

MetadataDb::Shape MetadataDb::shape() const {
  std::vector<rocksdb::LiveFileMetaData> files;
  impl_->db->GetLiveFilesMetaData(&files);
  Shape shape;
  for (const auto& file : files) {
    shape.files++;
    shape.bytes += file.size;
    if (file.level == 0) shape.level0_files++;
  }
  return shape;
}

struct MetadataWriter::Impl {
  explicit Impl(Env& e) : env(e, RocksDbEnv::Removal::kWhenLet) {}
  ~Impl() {
    if (db && !failed) env.LetRemove();  // closing removes what is no longer used
  }
  // Of anything that may have written.
  Status Checked(const rocksdb::Status& status, std::string_view doing) {
    if (status.ok()) return {};
    failed = true;
    return FailRocksDb(status, doing);
  }
  // Not through the write-ahead log: a flush makes it durable, and a read-only open then replays nothing.
  Status Write(rocksdb::WriteBatch* batch, std::string_view doing) {
    rocksdb::WriteOptions unlogged;
    unlogged.disableWAL = true;
    TRY(Checked(db->Write(unlogged, batch), doing));
    return Checked(db->Flush(rocksdb::FlushOptions()), doing);
  }
  RocksDbEnv env;
  bool failed = false;
  std::unique_ptr<rocksdb::DB> db;
};

MetadataWriter::MetadataWriter(Env& env) : impl_(std::make_unique<Impl>(env)) {}
MetadataWriter::~MetadataWriter() = default;

Result<std::unique_ptr<MetadataWriter>> MetadataWriter::Open(Env& env, const std::string& path) {
  auto writer = std::unique_ptr<MetadataWriter>(new MetadataWriter(env));
  rocksdb::DB* raw = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(LibraryDbOptions(writer->impl_->env), path, &raw);
  if (!status.ok()) return FailRocksDb(status, "open for writing");
  writer->impl_->db.reset(raw);
  writer->impl_->env.HoldRemovals();
  return writer;
}

Status MetadataWriter::Ingest(const std::vector<std::string>& sst_paths) {
  if (sst_paths.empty()) return {};
  rocksdb::IngestExternalFileOptions options;
  options.move_files = true;
  options.failed_move_fall_back_to_copy = true;
  options.write_global_seqno = false;
  return impl_->Checked(impl_->db->IngestExternalFile(sst_paths, options), "ingest");
}

Status MetadataWriter::CatchUp(const std::map<std::string, std::optional<Ref>>& refs,
                               const std::map<std::string, uint64_t>& highest, const LogPosition& position) {
  rocksdb::WriteBatch batch;
  for (const auto& [name, ref] : refs) {
    if (ref) {
      batch.Put(kRefPrefix + name, EncodeRef(*ref));
    } else {
      batch.Delete(kRefPrefix + name);
    }
  }
  for (const auto& [branch, number] : highest) {
    std::string value;
    PutU64(&value, number);
    batch.Put(kVersionPrefix + branch, value);
  }
  std::string value;
  PutU64(&value, position.sequence);
  PutU64(&value, position.offset);
  value += position.chain.view();
  batch.Put(rocksdb::Slice(&kPositionKey, 1), value);
  return impl_->Write(&batch, "catch up");
}

Status MetadataWriter::ForgetPacks(const std::vector<PackNumber>& packs) {
  rocksdb::WriteBatch batch;
  for (const PackNumber pack : packs) {
    batch.Delete(PackKey(kCondemnedPrefix, pack));
    batch.Delete(PackKey(kLevelPrefix, pack));
  }
  return impl_->Write(&batch, "forget deleted packs");
}

Result<uint64_t> MetadataWriter::Generation() const { return ReadGeneration(*impl_->db, kGenerationKey); }
std::string MetadataWriter::StateToken() const { return StateOf(*impl_->db); }

Status MetadataWriter::CompactAll() {
  rocksdb::CompactRangeOptions options;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  return impl_->Checked(impl_->db->CompactRange(options, nullptr, nullptr), "compact");
}

Status WriteCollectionRows(Env& env, const std::string& path, uint64_t generation, const std::vector<PackNumber>& condemned,
                           const std::map<PackNumber, int>& levels) {
  std::string number;
  PutU64(&number, generation);
  std::map<std::string, std::string> rows{{std::string(1, kGenerationKey), number}};
  for (const PackNumber pack : condemned) rows.emplace(PackKey(kCondemnedPrefix, pack), number);
  for (const auto& [pack, level] : levels) {
    rows.emplace(PackKey(kLevelPrefix, pack), std::string(1, static_cast<char>(level)));
  }
  const RocksDbEnv road(env);
  rocksdb::SstFileWriter writer(rocksdb::EnvOptions(), LibraryDbOptions(road));
  rocksdb::Status status = writer.Open(path);
  for (auto row = rows.begin(); status.ok() && row != rows.end(); ++row) status = writer.Put(row->first, row->second);
  if (status.ok()) status = writer.Finish();
  if (!status.ok()) return FailRocksDb(status, "stage a collection");
  return {};
}

Status MetadataWriter::MakeIn(uint64_t generation, const std::map<PackNumber, uint64_t>& condemned) {
  rocksdb::WriteBatch batch;
  std::string value;
  PutU64(&value, generation);
  batch.Put(rocksdb::Slice(&kGenerationKey, 1), value);
  batch.Put(rocksdb::Slice(&kMadeKey, 1), value);
  for (const auto& [pack, since] : condemned) {
    value.clear();
    PutU64(&value, since);
    batch.Put(PackKey(kCondemnedPrefix, pack), value);
  }
  return impl_->Write(&batch, "catch up");
}

// Leveled compaction in pieces: all of level 0 into level 1, or one file of a level that is over its size into the
// next. CompactFiles adds what overlaps in the output level.
Result<bool> MetadataWriter::CompactPiece() {
  std::vector<rocksdb::LiveFileMetaData> files;
  impl_->db->GetLiveFilesMetaData(&files);
  std::array<std::vector<std::string>, 7> names;
  std::array<uint64_t, 7> bytes{};
  for (const auto& file : files) {
    const auto level = static_cast<size_t>(file.level);
    names.at(level).push_back(file.name);
    bytes.at(level) += file.size;
  }
  std::vector<std::string> input;
  int output = 1;
  if (names[0].size() >= kLevel0Trigger) {
    input = names[0];
  } else {
    uint64_t limit = kLevel1Bytes;
    for (size_t level = 1; level < 6; ++level, limit *= 10) {
      if (bytes.at(level) <= limit) continue;
      input = {names.at(level)[files.size() % names.at(level).size()]};
      output = static_cast<int>(level) + 1;
      break;
    }
  }
  if (input.empty()) return false;
  TRY(impl_->Checked(impl_->db->CompactFiles(rocksdb::CompactionOptions(), input, output), "compact"));
  return true;
}

}  // namespace mirage
