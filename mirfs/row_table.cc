#include "mirfs/row_table.h"

#include <xxhash.h>

#include <algorithm>

#include "store/encoding.h"

namespace mirage {
namespace {

constexpr std::string_view kMagic = "mirage rows 1   ";
constexpr size_t kTrailerBytes = kMagic.size() + 5 * sizeof(uint64_t);
constexpr size_t kBlockBytes = 4096;
constexpr size_t kWriteBytes = 1 << 20;
constexpr size_t kFilterBitsPerRow = 10;
constexpr int kFilterProbes = 7;  // the best for ten bits
constexpr uint64_t kMaxTableBytes = uint64_t{1} << 40;

enum Kind : uint8_t { kDeleted = 0, kPut = 1 };

uint64_t Checksum(std::string_view bytes, uint64_t seed) { return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed); }

// Visits the places of a key's bits until `visit` returns false.
template <typename Visit>
bool ForEachBit(XXH128_hash_t hash, uint64_t bits, const Visit& visit) {
  uint64_t place = hash.low64;
  for (int i = 0; i < kFilterProbes; ++i, place += hash.high64 | 1) {
    if (!visit(place % bits)) return false;
  }
  return true;
}
XXH128_hash_t HashOf(std::string_view key) { return XXH3_128bits(key.data(), key.size()); }

bool MayHold(std::string_view filter, std::string_view key) {
  if (filter.empty()) return false;
  return ForEachBit(HashOf(key), filter.size() * 8, [&](uint64_t bit) { return (filter[bit / 8] >> (bit % 8)) & 1; });
}

struct RowView {
  std::string_view key;
  std::optional<std::string_view> value;
};

std::optional<RowView> TakeRow(Decoder& in) {
  const auto kind = in.Take<uint8_t>();
  const auto key_bytes = in.Take<uint16_t>();
  const auto value_bytes = in.Take<uint32_t>();
  RowView row;
  row.key = in.Bytes(key_bytes);
  const std::string_view value = in.Bytes(value_bytes);
  if (!in.ok() || kind > kPut) return std::nullopt;
  if (kind == kPut) row.value = value;
  return row;
}

tl::unexpected<Error> Damaged(const std::string& path) { return Fail(EIO, "overlay: {}: it is damaged", path); }

}  // namespace

MergedRows::MergedRows(std::vector<std::unique_ptr<RowCursor>> newest_first) : cursors_(std::move(newest_first)) { Choose(); }

void MergedRows::Choose() {
  at_ = nullptr;
  for (const auto& cursor : cursors_) {
    if (cursor->valid() && (!at_ || cursor->key() < at_->key())) at_ = cursor.get();
  }
}

Status MergedRows::Next() {
  for (const auto& cursor : cursors_) {
    if (cursor.get() != at_ && cursor->valid() && cursor->key() == at_->key()) TRY(cursor->Next());
  }
  TRY(at_->Next());
  Choose();
  return {};
}

class RowTableWriter {
 public:
  explicit RowTableWriter(std::unique_ptr<File> file) : file_(std::move(file)) {}

  Status Add(std::string_view key, const std::optional<std::string_view>& value) {
    if (rows_.empty()) first_key_ = key;
    Put<uint8_t>(&rows_, value ? kPut : kDeleted);
    Put<uint16_t>(&rows_, static_cast<uint16_t>(key.size()));
    Put<uint32_t>(&rows_, value ? static_cast<uint32_t>(value->size()) : 0);
    rows_.append(key);
    if (value) rows_.append(*value);
    hashes_.push_back(HashOf(key));
    return rows_.size() >= kBlockBytes ? EndBlock() : Status();
  }

  Status Finish() {
    TRY(EndBlock());
    const uint64_t index_at = offset();
    buffer_ += index_;
    const uint64_t filter_at = offset();
    const std::string filter = Filter();
    buffer_ += filter;
    std::string trailer(kMagic);
    for (const uint64_t at : {index_at, filter_at, offset()}) Put<uint64_t>(&trailer, at);
    Put<uint64_t>(&trailer, Checksum(index_ + filter, 0));
    Put<uint64_t>(&trailer, Checksum(trailer, 0));
    buffer_ += trailer;
    TRY(Flush());
    return file_->Sync();
  }

 private:
  uint64_t offset() const { return written_ + buffer_.size(); }

  Status EndBlock() {
    if (rows_.empty()) return {};
    Put<uint64_t>(&index_, offset());
    Put<uint32_t>(&index_, static_cast<uint32_t>(rows_.size()));
    Put<uint16_t>(&index_, static_cast<uint16_t>(first_key_.size()));
    index_ += first_key_;
    const uint64_t checksum = Checksum(rows_, offset());
    buffer_ += rows_;
    Put<uint64_t>(&buffer_, checksum);
    rows_.clear();
    return buffer_.size() >= kWriteBytes ? Flush() : Status();
  }
  Status Flush() {
    TRY(file_->WriteAt(written_, buffer_));
    written_ += buffer_.size();
    buffer_.clear();
    return {};
  }
  std::string Filter() const {
    std::string filter((hashes_.size() * kFilterBitsPerRow + 7) / 8, '\0');
    for (const XXH128_hash_t hash : hashes_) {
      ForEachBit(hash, filter.size() * 8, [&](uint64_t bit) {
        filter[bit / 8] = static_cast<char>(filter[bit / 8] | (1 << (bit % 8)));
        return true;
      });
    }
    return filter;
  }

  const std::unique_ptr<File> file_;
  std::string rows_, first_key_;  // of the block that is filled
  std::string index_;
  std::vector<XXH128_hash_t> hashes_;
  std::string buffer_;            // not yet in the file
  uint64_t written_ = 0;
};

Status RowTable::Write(Env& env, const std::string& path, RowCursor& rows, bool deletions) {
  ASSIGN_OR_RETURN(auto file, env.Open(path, OpenMode::kCreate));
  RowTableWriter writer(std::move(file));
  while (rows.valid()) {
    if (deletions || rows.value()) TRY(writer.Add(rows.key(), rows.value()));
    TRY(rows.Next());
  }
  return writer.Finish();
}

Result<std::unique_ptr<RowTable>> RowTable::Open(Env& env, const std::string& path) {
  ASSIGN_OR_RETURN(auto file, env.Open(path, OpenMode::kRead));
  return Open(std::move(file), path);
}

Result<std::unique_ptr<RowTable>> RowTable::Open(std::unique_ptr<File> file, std::string path) {
  auto table = std::make_unique<RowTable>();
  table->path_ = path;
  table->file_ = std::move(file);
  ASSIGN_OR_RETURN(const uint64_t size, table->file_->Size());
  if (size < kTrailerBytes || size > kMaxTableBytes) return Damaged(path);
  table->size_bytes_ = size;
  std::string trailer;
  TRY(table->file_->ReadAt(size - kTrailerBytes, kTrailerBytes, &trailer));
  Decoder in(trailer);
  const std::string_view magic = in.Bytes(kMagic.size());
  const auto index_at = in.Take<uint64_t>(), filter_at = in.Take<uint64_t>(), end = in.Take<uint64_t>();
  const auto checksum = in.Take<uint64_t>(), trailer_checksum = in.Take<uint64_t>();
  const bool whole = in.AtEnd() && Checksum(std::string_view(trailer).substr(0, kTrailerBytes - 8), 0) == trailer_checksum;
  if (!whole || magic != kMagic || end != size - kTrailerBytes || index_at > filter_at || filter_at > end) {
    return Damaged(path);
  }
  std::string tail;
  TRY(table->file_->ReadAt(index_at, static_cast<size_t>(end - index_at), &tail));
  if (tail.size() != end - index_at || Checksum(tail, 0) != checksum) return Damaged(path);
  table->filter_ = tail.substr(filter_at - index_at, end - filter_at);
  Decoder index(std::string_view(tail).substr(0, filter_at - index_at));
  while (index.left() > 0) {
    Block block;
    block.offset = index.Take<uint64_t>();
    block.bytes = index.Take<uint32_t>();
    block.first_key = index.Bytes(index.Take<uint16_t>());
    if (!index.ok() || block.offset > index_at || block.bytes > index_at - block.offset) return Damaged(path);
    table->blocks_.push_back(std::move(block));
  }
  if (table->blocks_.empty() && !table->filter_.empty()) return Damaged(path);
  return table;
}

size_t RowTable::BlockOf(std::string_view key) const {
  const auto behind = std::upper_bound(blocks_.begin(), blocks_.end(), key,
                                       [](std::string_view wanted, const Block& block) { return wanted < block.first_key; });
  return behind == blocks_.begin() ? 0 : static_cast<size_t>(behind - blocks_.begin()) - 1;
}

Status RowTable::Load(const Block& block, std::string* rows) const {
  TRY(file_->ReadAt(block.offset, block.bytes + sizeof(uint64_t), rows));
  if (rows->size() != block.bytes + sizeof(uint64_t)) return Damaged(path_);
  const auto checksum = LoadAt<uint64_t>(*rows, block.bytes);
  rows->resize(block.bytes);
  return checksum == Checksum(*rows, block.offset) ? Status() : Damaged(path_);
}

Result<std::optional<std::optional<std::string>>> RowTable::Find(std::string_view key) const {
  using Found = std::optional<std::optional<std::string>>;
  if (!MayHold(filter_, key)) return Found();
  thread_local std::string rows;
  TRY(Load(blocks_[BlockOf(key)], &rows));
  for (Decoder in(rows); in.left() > 0;) {
    const auto row = TakeRow(in);
    if (!row) return Damaged(path_);
    if (row->key < key) continue;
    if (row->key > key) break;
    return Found(row->value ? std::optional<std::string>(*row->value) : std::nullopt);
  }
  return Found();
}

class RowTable::Cursor final : public RowCursor {
 public:
  Cursor(const RowTable& table, size_t block) : table_(table), next_block_(block) {}
  bool valid() const override { return valid_; }
  std::string_view key() const override { return row_.key; }
  std::optional<std::string_view> value() const override { return row_.value; }
  Status Next() override {
    valid_ = false;
    while (in_.left() == 0) {
      if (next_block_ == table_.blocks_.size()) return {};
      TRY(table_.Load(table_.blocks_[next_block_++], &rows_));
      in_ = Decoder(rows_);
    }
    const auto row = TakeRow(in_);
    if (!row) return Damaged(table_.path_);
    row_ = *row;
    valid_ = true;
    return {};
  }

 private:
  const RowTable& table_;
  size_t next_block_;
  std::string rows_;
  Decoder in_{std::string_view()};
  RowView row_;
  bool valid_ = false;
};

Result<std::unique_ptr<RowCursor>> RowTable::Seek(std::string_view from) const {
  auto cursor = std::make_unique<Cursor>(*this, BlockOf(from));
  do {
    TRY(cursor->Next());
  } while (cursor->valid() && cursor->key() < from);
  return cursor;
}

}  // namespace mirage
