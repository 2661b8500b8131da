// Rows in key order: a cursor over them, several merged into one, and the file that they lie in when they are many.
//
//   table:   blocks, index, filter, trailer; written once, then only read
//   block:   rows, 4 KiB or one that is longer, u64 checksum of them
//   row:     u8 kind (0 deleted, 1 put), u16 length of the key, u32 length of the value, key, value
//   index:   for each block u64 offset, u32 length of its rows, u16 length of its first key, key
//   filter:  a Bloom filter of ten bits a row (Bloom, 1970), its probes by double hashing (Kirsch and Mitzenmacher, 2006)
//   trailer: "mirage rows 1   ", u64 offset of the index, u64 of the filter, u64 of the trailer, u64 checksum of index and
//            filter, u64 checksum of the trailer so far
// Numbers are little-endian, checksums XXH3, that of a block seeded with its offset. Index and filter are kept in memory: ten bits
// a row, and a hundredth of the rows' bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/env.h"
#include "store/result.h"

namespace mirage {

// Views are good until Next.
class RowCursor {
 public:
  virtual ~RowCursor() = default;
  virtual bool valid() const = 0;                              // false: at the end
  virtual std::string_view key() const = 0;
  virtual std::optional<std::string_view> value() const = 0;   // none: the row says that there is none
  virtual Status Next() = 0;
};

// Of rows of the same key that of the first cursor, the newest, is shown.
class MergedRows final : public RowCursor {
 public:
  explicit MergedRows(std::vector<std::unique_ptr<RowCursor>> newest_first);
  bool valid() const override { return at_ != nullptr; }
  std::string_view key() const override { return at_->key(); }
  std::optional<std::string_view> value() const override { return at_->value(); }
  Status Next() override;

 private:
  void Choose();
  std::vector<std::unique_ptr<RowCursor>> cursors_;
  RowCursor* at_ = nullptr;
};

// Thread-safe.
class RowTable {
 public:
  // What the cursor has left, in a new file at `path`, which is on the disk (its name is not) when it returns. Without
  // `deletions` rows that say there is none are left out.
  static Status Write(Env& env, const std::string& path, RowCursor& rows, bool deletions);
  // EIO: it is damaged. Of a file that is open `path` is for errors.
  static Result<std::unique_ptr<RowTable>> Open(Env& env, const std::string& path);
  static Result<std::unique_ptr<RowTable>> Open(std::unique_ptr<File> file, std::string path);

  // Nothing: the table says nothing of the key. An empty inner value: it says that there is none.
  Result<std::optional<std::optional<std::string>>> Find(std::string_view key) const;
  // From the first key that is not before `from`. The table must outlive it.
  Result<std::unique_ptr<RowCursor>> Seek(std::string_view from) const;
  uint64_t size_bytes() const { return size_bytes_; }

 private:
  struct Block {
    uint64_t offset = 0;
    uint32_t bytes = 0;
    std::string first_key;
  };
  class Cursor;
  friend class RowTableWriter;

  size_t BlockOf(std::string_view key) const;  // the last that begins with it or before it; or the first
  Status Load(const Block& block, std::string* rows) const;

  std::string path_;
  std::unique_ptr<File> file_;
  uint64_t size_bytes_ = 0;
  std::vector<Block> blocks_;
  std::string filter_;
};

}  // namespace mirage
