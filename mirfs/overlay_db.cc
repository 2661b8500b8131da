#include "mirfs/overlay_db.h"

#include <bit>

#include "store/encoding.h"

namespace mirage {
namespace {

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
constexpr std::string_view kNextKey = "S";

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

void OverlayDb::Batch::PutInode(uint64_t inode, const InodeRecord& record) {
  rows_.Put(Key('I', inode), EncodeInodeRecord(record));
}
void OverlayDb::Batch::DeleteInode(uint64_t inode) { rows_.Delete(Key('I', inode)); }
void OverlayDb::Batch::PutDirent(uint64_t directory, std::string_view name, const Dirent& dirent) {
  std::string value(1, dirent.whiteout ? 'w' : 'c');
  if (!dirent.whiteout) {
    Put<uint8_t>(&value, static_cast<uint8_t>(dirent.type));
    Put<uint64_t>(&value, dirent.child);
  }
  rows_.Put(Key('D', directory, name), value);
}
void OverlayDb::Batch::DeleteDirent(uint64_t directory, std::string_view name) {
  rows_.Delete(Key('D', directory, name));
}
void OverlayDb::Batch::PutBlocks(uint64_t inode, uint32_t piece, std::string_view bits) {
  rows_.Put(BlocksKey(inode, piece), bits);
}
void OverlayDb::Batch::PutOrphan(uint64_t inode) { rows_.Put(Key('O', inode), ""); }
void OverlayDb::Batch::DeleteOrphan(uint64_t inode) { rows_.Delete(Key('O', inode)); }
void OverlayDb::Batch::PutNextInode(uint64_t next) {
  std::string value;
  Put<uint64_t>(&value, next);
  rows_.Put(kNextKey, value);
}

Result<std::unique_ptr<OverlayDb>> OverlayDb::Open(Env& env, const std::string& path, bool create,
                                                   const RowStore::Limits& limits) {
  ASSIGN_OR_RETURN(auto rows, RowStore::Open(env, path, create, limits));
  return std::unique_ptr<OverlayDb>(new OverlayDb(std::move(rows)));
}

Result<std::optional<InodeRecord>> OverlayDb::Inode(uint64_t inode) const {
  ASSIGN_OR_RETURN(const auto value, rows_->Get(Key('I', inode)));
  if (!value) return std::optional<InodeRecord>();
  ASSIGN_OR_RETURN(auto record, DecodeInodeRecord(*value));
  return std::optional<InodeRecord>(std::move(record));
}

Result<std::optional<Dirent>> OverlayDb::Find(uint64_t directory, std::string_view name) const {
  ASSIGN_OR_RETURN(const auto value, rows_->Get(Key('D', directory, name)));
  if (!value) return std::optional<Dirent>();
  ASSIGN_OR_RETURN(const auto dirent, DecodeDirent(*value));
  return std::optional<Dirent>(dirent);
}

Result<uint64_t> OverlayDb::NextInode() const {
  ASSIGN_OR_RETURN(const auto value, rows_->Get(kNextKey));
  if (!value) return uint64_t{0};
  if (value->size() != sizeof(uint64_t)) return Fail(EIO, "overlay: damaged inode counter");
  return LoadAt<uint64_t>(*value, 0);
}

void OverlayDb::DeleteBlocks(uint64_t inode, Batch* batch) const {
  static_cast<void>(VisitBlocks(inode, [&](uint32_t piece, std::string_view) {
    batch->rows_.Delete(BlocksKey(inode, piece));
    return true;
  }));
}

Status OverlayDb::VisitDirents(uint64_t directory,
                               const std::function<bool(std::string_view, const Dirent&)>& visit) const {
  return rows_->Scan(Key('D', directory), [&](std::string_view key, std::string_view value) -> Result<bool> {
    ASSIGN_OR_RETURN(const auto dirent, DecodeDirent(value));
    return visit(key.substr(9), dirent);
  });
}

Status OverlayDb::VisitInodes(const std::function<bool(uint64_t, const InodeRecord&)>& visit) const {
  return rows_->Scan("I", [&](std::string_view key, std::string_view value) -> Result<bool> {
    ASSIGN_OR_RETURN(const auto record, DecodeInodeRecord(value));
    return visit(InodeAt(key), record);
  });
}

Status OverlayDb::VisitOrphans(const std::function<bool(uint64_t)>& visit) const {
  return rows_->Scan("O", [&](std::string_view key, std::string_view) -> Result<bool> { return visit(InodeAt(key)); });
}

Status OverlayDb::VisitBlocks(uint64_t inode, const std::function<bool(uint32_t, std::string_view)>& visit) const {
  return rows_->Scan(Key('B', inode), [&](std::string_view key, std::string_view value) -> Result<bool> {
    return visit(std::byteswap(LoadAt<uint32_t>(key, 9)), value);
  });
}

}  // namespace mirage
