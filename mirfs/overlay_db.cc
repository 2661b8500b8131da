#include "mirfs/overlay_db.h"

#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/checkpoint.h>
#include <rocksdb/write_batch.h>

#include <bit>
#include <vector>

#include "store/encoding.h"
#include "store/rocksdb_env.h"

namespace mirage {
namespace {

constexpr size_t kWriteBufferBytes = 16 << 20;
constexpr uint64_t kNeverFlush = ~uint64_t{0};  // a copy takes the log along instead

bool IsNoSpace(const rocksdb::Status& status) {
  return status.IsNoSpace() || status.subcode() == rocksdb::Status::kNoSpace;
}

tl::unexpected<Error> FailDb(const rocksdb::Status& status, std::string_view doing) {
  const int code = IsNoSpace(status) ? ENOSPC : status.IsBusy() ? EBUSY : EIO;
  return Fail(code, "overlay: {}: {}", doing, status.ToString());
}

void PutBigEndian(std::string* out, std::integral auto value) { Put<decltype(value)>(out, std::byteswap(value)); }

std::string Key(char kind, uint64_t inode, std::string_view rest = {}) {
  std::string key;
  key.reserve(9 + rest.size());
  key.push_back(kind);
  PutBigEndian(&key, inode);
  key.append(rest);
  return key;
}
std::string BlocksKey(uint64_t inode, uint32_t piece) {
  std::string key = Key('B', inode);
  PutBigEndian(&key, piece);
  return key;
}
const std::string kNextKey = "S";

uint64_t InodeAt(std::string_view key) { return std::byteswap(LoadAt<uint64_t>(key, 1)); }

Result<Dirent> DecodeDirent(std::string_view value) {
  Decoder in(value);
  Dirent dirent;
  dirent.whiteout = in.Take<uint8_t>() == 'w';
  if (!dirent.whiteout) {
    dirent.type = static_cast<FileType>(in.Take<uint8_t>());
    dirent.child = in.Take<uint64_t>();
  }
  if (!in.AtEnd()) return Fail(EIO, "overlay: damaged directory entry");
  return dirent;
}

}  // namespace

struct OverlayDb::Impl {
  explicit Impl(Env& e) : env(e) {}
  const RocksDbEnv env;
  std::unique_ptr<rocksdb::DB> db;

  Result<std::optional<std::string>> Get(const std::string& key) const {
    std::string value;
    const rocksdb::Status status = db->Get(rocksdb::ReadOptions(), key, &value);
    if (status.IsNotFound()) return std::optional<std::string>();
    if (!status.ok()) return FailDb(status, "read");
    return std::optional<std::string>(std::move(value));
  }
  Status Scan(std::string_view prefix,
              const std::function<Result<bool>(std::string_view key, std::string_view value)>& visit) const {
    const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(rocksdb::ReadOptions()));
    for (it->Seek(rocksdb::Slice(prefix.data(), prefix.size())); it->Valid(); it->Next()) {
      const std::string_view key(it->key().data(), it->key().size());
      if (!key.starts_with(prefix)) break;
      ASSIGN_OR_RETURN(const bool more, visit(key, {it->value().data(), it->value().size()}));
      if (!more) return {};
    }
    if (!it->status().ok()) return FailDb(it->status(), "scan");
    return {};
  }
};

struct OverlayDb::Batch::Impl {
  rocksdb::WriteBatch batch;
};

OverlayDb::Batch::Batch() : impl_(std::make_unique<Impl>()) {}
OverlayDb::Batch::~Batch() = default;

void OverlayDb::Batch::PutInode(uint64_t inode, const InodeRecord& record) {
  impl_->batch.Put(Key('I', inode), EncodeInodeRecord(record));
}
void OverlayDb::Batch::DeleteInode(uint64_t inode) { impl_->batch.Delete(Key('I', inode)); }
void OverlayDb::Batch::PutDirent(uint64_t directory, std::string_view name, const Dirent& dirent) {
  std::string value(1, dirent.whiteout ? 'w' : 'c');
  if (!dirent.whiteout) {
    Put<uint8_t>(&value, static_cast<uint8_t>(dirent.type));
    Put<uint64_t>(&value, dirent.child);
  }
  impl_->batch.Put(Key('D', directory, name), value);
}
void OverlayDb::Batch::DeleteDirent(uint64_t directory, std::string_view name) {
  impl_->batch.Delete(Key('D', directory, name));
}
void OverlayDb::Batch::PutBlocks(uint64_t inode, uint32_t piece, std::string_view bits) {
  impl_->batch.Put(BlocksKey(inode, piece), rocksdb::Slice(bits.data(), bits.size()));
}
void OverlayDb::Batch::DeleteBlocks(uint64_t inode, uint32_t pieces) {
  for (uint32_t piece = 0; piece < pieces; ++piece) impl_->batch.Delete(BlocksKey(inode, piece));
}
void OverlayDb::Batch::PutOrphan(uint64_t inode) { impl_->batch.Put(Key('O', inode), ""); }
void OverlayDb::Batch::DeleteOrphan(uint64_t inode) { impl_->batch.Delete(Key('O', inode)); }
void OverlayDb::Batch::PutNextInode(uint64_t next) {
  std::string value;
  Put<uint64_t>(&value, next);
  impl_->batch.Put(kNextKey, value);
}

OverlayDb::OverlayDb(Env& env) : impl_(std::make_unique<Impl>(env)) {}
OverlayDb::~OverlayDb() = default;

Result<std::unique_ptr<OverlayDb>> OverlayDb::Open(Env& env, const std::string& path, bool create) {
  auto overlay_db = std::unique_ptr<OverlayDb>(new OverlayDb(env));
  rocksdb::Options options;
  options.env = overlay_db->impl_->env.get();
  options.create_if_missing = create;
  options.error_if_exists = create;
  options.write_buffer_size = kWriteBufferBytes;
  options.compression = rocksdb::kNoCompression;
  options.max_background_jobs = 2;
  options.keep_log_file_num = 1;
  options.info_log_level = rocksdb::FATAL_LEVEL;
  options.avoid_flush_during_shutdown = true;  // the log is enough, and is replayed at the next open
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  rocksdb::BlockBasedTableOptions table;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10, false));  // most lookups ask for what is not there
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  rocksdb::DB* db = nullptr;
  if (const auto status = rocksdb::DB::Open(options, path, &db); !status.ok()) return FailDb(status, "open " + path);
  overlay_db->impl_->db.reset(db);
  return overlay_db;
}

Status OverlayDb::Write(const Batch& batch) {
  auto status = impl_->db->Write(rocksdb::WriteOptions(), &batch.impl_->batch);
  // A write that found the disk full stops all that follow, until somebody says that there may be room again.
  if (IsNoSpace(status) && make_room_) make_room_();
  if (IsNoSpace(status) && impl_->db->Resume().ok()) {
    status = impl_->db->Write(rocksdb::WriteOptions(), &batch.impl_->batch);
  }
  if (!status.ok()) return FailDb(status, "write");
  written_.fetch_add(1);
  return {};
}

Status OverlayDb::CopyTo(const std::string& path) const {
  rocksdb::Checkpoint* made = nullptr;
  auto status = rocksdb::Checkpoint::Create(impl_->db.get(), &made);
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  if (status.ok()) status = checkpoint->CreateCheckpoint(path, kNeverFlush);
  if (!status.ok()) return FailDb(status, "copy to " + path);
  return {};
}

Status OverlayDb::SyncTo(uint64_t sequence) {
  if (synced_.load() >= sequence) return {};
  const std::lock_guard lock(sync_mutex_);
  if (synced_.load() >= sequence) return {};
  const uint64_t before = written_.load();
  if (before_sync_) TRY(before_sync_());
  if (const auto status = impl_->db->SyncWAL(); !status.ok()) return FailDb(status, "sync");
  synced_.store(before);
  return {};
}

Result<std::optional<InodeRecord>> OverlayDb::Inode(uint64_t inode) const {
  ASSIGN_OR_RETURN(const auto value, impl_->Get(Key('I', inode)));
  if (!value) return std::optional<InodeRecord>();
  ASSIGN_OR_RETURN(auto record, DecodeInodeRecord(*value));
  return std::optional<InodeRecord>(std::move(record));
}

Result<std::optional<Dirent>> OverlayDb::Find(uint64_t directory, std::string_view name) const {
  ASSIGN_OR_RETURN(const auto value, impl_->Get(Key('D', directory, name)));
  if (!value) return std::optional<Dirent>();
  ASSIGN_OR_RETURN(const auto dirent, DecodeDirent(*value));
  return std::optional<Dirent>(dirent);
}

Result<uint64_t> OverlayDb::NextInode() const {
  ASSIGN_OR_RETURN(const auto value, impl_->Get(kNextKey));
  if (!value) return uint64_t{0};
  if (value->size() != sizeof(uint64_t)) return Fail(EIO, "overlay: damaged inode counter");
  return LoadAt<uint64_t>(*value, 0);
}

Status OverlayDb::VisitDirents(uint64_t directory,
                               const std::function<bool(std::string_view, const Dirent&)>& visit) const {
  return impl_->Scan(Key('D', directory), [&](std::string_view key, std::string_view value) -> Result<bool> {
    ASSIGN_OR_RETURN(const auto dirent, DecodeDirent(value));
    return visit(key.substr(9), dirent);
  });
}

Status OverlayDb::VisitInodes(const std::function<bool(uint64_t, const InodeRecord&)>& visit) const {
  return impl_->Scan("I", [&](std::string_view key, std::string_view value) -> Result<bool> {
    ASSIGN_OR_RETURN(const auto record, DecodeInodeRecord(value));
    return visit(InodeAt(key), record);
  });
}

Status OverlayDb::VisitOrphans(const std::function<bool(uint64_t)>& visit) const {
  return impl_->Scan("O", [&](std::string_view key, std::string_view) -> Result<bool> { return visit(InodeAt(key)); });
}

Status OverlayDb::VisitBlocks(uint64_t inode, const std::function<bool(uint32_t, std::string_view)>& visit) const {
  return impl_->Scan(Key('B', inode), [&](std::string_view key, std::string_view value) -> Result<bool> {
    return visit(std::byteswap(LoadAt<uint32_t>(key, 9)), value);
  });
}

}  // namespace mirage
