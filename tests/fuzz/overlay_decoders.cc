#include "tests/fuzz/overlay_decoders.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "mirfs/inode_record.h"
#include "mirfs/overlay.h"
#include "mirfs/row_store.h"
#include "mirfs/row_table.h"
#include "store/encoding.h"
#include "tests/fuzz/memory_file.h"
#include "tests/testing/object_samples.h"

namespace mirage::testing {
namespace {

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

uint64_t Checksum(std::string_view bytes, uint64_t seed) { return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed); }
void StoreAt(std::string* bytes, size_t at, uint64_t value) { std::memcpy(bytes->data() + at, &value, sizeof value); }

// ---- the record of an inode

void RunInodeRecord(std::string_view bytes) {
  if (const auto record = DecodeInodeRecord(bytes)) {
    Require(EncodeInodeRecord(*record) == bytes, "what is accepted encodes to the same bytes");
  }
}
std::vector<std::string> InodeRecordSeeds() {
  std::vector<std::string> seeds;
  for (const Entry& entry : SampleEntries()) seeds.push_back(EncodeInodeRecord(RecordOfLower(entry, "usr/lib/a", 2)));
  InodeRecord file;
  file.mode = 0640;
  file.nlink = 1;
  file.mtime = {-1, 999'999'999};
  file.may_have_data = file.own_xattrs = true;
  file.xattrs = {{"security.capability", std::string(20, '\1')}, {"user.a", ""}};
  seeds.push_back(EncodeInodeRecord(file));
  InodeRecord link;
  link.type = FileType::kSymlink;
  link.mode = 0777;
  link.target = "../lib";
  seeds.push_back(EncodeInodeRecord(link));
  return seeds;
}

// ---- tables of rows (mirfs/row_table.h tells the format)

using Row = std::pair<std::string, std::optional<std::string>>;

class VectorRows final : public RowCursor {
 public:
  explicit VectorRows(const std::vector<Row>& rows) : rows_(rows) {}
  bool valid() const override { return at_ < rows_.size(); }
  std::string_view key() const override { return rows_[at_].first; }
  std::optional<std::string_view> value() const override { return rows_[at_].second; }
  Status Next() override {
    ++at_;
    return {};
  }

 private:
  const std::vector<Row>& rows_;
  size_t at_ = 0;
};

constexpr std::string_view kTableMagic = "mirage rows 1   ";
constexpr size_t kTrailerBytes = 56;
constexpr size_t kMostRows = 20'000, kMostRowBytes = 4 << 20;  // that are visited: blocks may lie upon each other
constexpr size_t kMostLookups = 200;

struct TableLayout {
  size_t index = 0, filter = 0, trailer = 0;
};
std::optional<TableLayout> LayoutOf(std::string_view bytes) {
  if (bytes.size() < kTrailerBytes) return std::nullopt;
  const size_t trailer = bytes.size() - kTrailerBytes;
  const auto index = LoadAt<uint64_t>(bytes, trailer + 16), filter = LoadAt<uint64_t>(bytes, trailer + 24);
  if (index > filter || filter > trailer) return std::nullopt;
  return TableLayout{static_cast<size_t>(index), static_cast<size_t>(filter), trailer};
}
// The blocks of an index: of each its place, the length of its rows, and the key that it begins with by the index.
template <typename Visit>
void ForEachBlock(std::string_view bytes, const TableLayout& layout, const Visit& visit) {
  Decoder in(bytes.substr(layout.index, layout.filter - layout.index));
  while (in.left() > 0) {
    const auto at = in.Take<uint64_t>();
    const auto length = in.Take<uint32_t>();
    const std::string_view key = in.Bytes(in.Take<uint16_t>());
    if (!in.ok() || at > layout.index || length > layout.index - at) return;
    visit(static_cast<size_t>(at), size_t{length}, key);
  }
}

// A table whose checksums, magic and end are right, so that what lies behind them is reached.
std::string WithTableChecksums(std::string bytes) {
  const auto layout = LayoutOf(bytes);
  if (!layout) return bytes;
  std::string made = bytes;
  ForEachBlock(bytes, *layout, [&](size_t at, size_t length, std::string_view) {
    if (length + 8 <= layout->index - at) StoreAt(&made, at + length, Checksum(std::string_view(made).substr(at, length), at));
  });
  const std::string_view tail = std::string_view(made).substr(layout->index, layout->trailer - layout->index);
  made.replace(layout->trailer, kTableMagic.size(), kTableMagic);
  StoreAt(&made, layout->trailer + 32, layout->trailer);
  StoreAt(&made, layout->trailer + 40, Checksum(tail, 0));
  StoreAt(&made, layout->trailer + 48, Checksum(std::string_view(made).substr(layout->trailer, kTrailerBytes - 8), 0));
  return made;
}
// Its filter says of these keys that they may be there.
std::string WithFilterOf(const std::vector<Row>& rows, std::string bytes) {
  const auto layout = LayoutOf(bytes);
  if (!layout || layout->filter == layout->trailer) return bytes;
  const uint64_t bits = (layout->trailer - layout->filter) * 8;
  for (const auto& [key, value] : rows) {
    const XXH128_hash_t hash = XXH3_128bits(key.data(), key.size());
    for (uint64_t probe = 0; probe < 7; ++probe) {
      const uint64_t bit = (hash.low64 + probe * (hash.high64 | 1)) % bits;
      char& byte = bytes[layout->filter + bit / 8];
      byte = static_cast<char>(byte | (1 << (bit % 8)));
    }
  }
  return bytes;
}
// Every block has rows, and begins with the key that the index says.
bool IndexIsRight(std::string_view bytes) {
  const auto layout = LayoutOf(bytes);
  bool right = layout.has_value();
  if (!right) return false;
  ForEachBlock(bytes, *layout, [&](size_t at, size_t length, std::string_view key) {
    right &= length >= 7 + key.size() && LoadAt<uint16_t>(bytes, at + 1) == key.size() && bytes.substr(at + 7, key.size()) == key;
  });
  return right;
}

std::unique_ptr<RowTable> OpenTable(std::string_view bytes) {
  auto table = RowTable::Open(std::make_unique<MemoryFile>(bytes), "table");
  return table ? std::move(*table) : nullptr;
}
// All of its rows; none: it is damaged, or has too many.
std::optional<std::vector<Row>> RowsOf(const RowTable& table) {
  std::vector<Row> rows;
  size_t bytes = 0;
  auto cursor = table.Seek("");
  if (!cursor) return std::nullopt;
  while ((*cursor)->valid()) {
    rows.emplace_back((*cursor)->key(), (*cursor)->value());
    bytes += rows.back().first.size() + rows.back().second.value_or("").size();
    if (rows.size() > kMostRows || bytes > kMostRowBytes) return std::nullopt;
    if (!(*cursor)->Next()) return std::nullopt;
  }
  return rows;
}

// The table says of these rows what a walk said. It can only if they ascend and the index is right.
void RequireRows(const RowTable& table, const std::vector<Row>& rows) {
  const size_t step = rows.size() / kMostLookups + 1;
  for (size_t i = 0; i < rows.size(); i += step) {
    const auto& [key, value] = rows[i];
    const auto found = table.Find(key);
    Require(found && *found && **found == value, "a row is found by its key");
    const auto cursor = table.Seek(key);
    Require(cursor && (*cursor)->valid() && (*cursor)->key() == key, "a cursor begins where it is told");
  }
  std::vector<std::unique_ptr<RowCursor>> twice;
  for (int i = 0; i < 2; ++i) {
    auto cursor = table.Seek("");
    Require(cursor.has_value(), "a table that was walked is walked again");
    twice.push_back(std::move(*cursor));
  }
  size_t merged = 0;
  for (MergedRows both(std::move(twice)); both.valid(); ++merged) {
    Require(merged < rows.size() && both.key() == rows[merged].first, "a table merged with itself has the same rows");
    Require(both.Next().has_value(), "a table that was walked is walked again");
  }
  Require(merged == rows.size(), "a table merged with itself has the same rows");
}

void RunRowTable(std::string_view bytes) {
  const auto look = [](const RowTable& table) {
    for (const std::string_view key : {"", "a", "key 0100", "\xff"}) {
      static_cast<void>(table.Find(key));
      static_cast<void>(table.Seek(key));
    }
    return RowsOf(table);
  };
  if (const auto table = OpenTable(bytes)) static_cast<void>(look(*table));

  const std::string right = WithTableChecksums(std::string(bytes));
  const auto table = OpenTable(right);
  if (!table) return;
  const auto rows = look(*table);
  if (!rows) return;
  const std::string filtered = WithTableChecksums(WithFilterOf(*rows, right));
  const auto again = OpenTable(filtered);
  Require(again != nullptr, "a filter may say anything");
  const auto fall = std::adjacent_find(rows->begin(), rows->end(), [](const Row& a, const Row& b) { return a.first >= b.first; });
  const auto layout = LayoutOf(filtered);
  if (fall == rows->end() && layout->filter < layout->trailer && IndexIsRight(filtered)) return RequireRows(*again, *rows);
  for (size_t i = 0; i < rows->size(); i += rows->size() / 10 + 1) static_cast<void>(again->Find((*rows)[i].first));
}
std::string TableBytes(const std::vector<Row>& rows, bool deletions) {
  MemoryEnv env;
  VectorRows cursor(rows);
  Require(RowTable::Write(env, "table", cursor, deletions).has_value(), "a table");
  return *env.files.at("table");
}
std::vector<std::string> RowTableSeeds() {
  std::vector<Row> few{{"", "of no name"}, {"a", std::nullopt}, {"b", ""}, {"c", std::string(300, 'c')}};
  std::vector<Row> many;
  for (int i = 0; i < 300; ++i) many.push_back({fmt::format("key {:04}", i), std::string(static_cast<size_t>(i % 50), 'v')});
  return {TableBytes({}, true), TableBytes(few, true), TableBytes(few, false), TableBytes(many, true)};
}

// ---- the log of rows (mirfs/row_log.h), and the changes in its records

constexpr std::string_view kLogMagic = "mirage row log 1";
constexpr size_t kLogHeaderBytes = 40, kRecordHeaderBytes = 20;
constexpr const char* kStore = "db";
constexpr const char* kSegment = "db/log.00000001";

// A segment whose magic and checksums are right.
std::string WithLogChecksums(std::string bytes) {
  if (bytes.size() < kLogHeaderBytes) return bytes;
  bytes.replace(0, kLogMagic.size(), kLogMagic);
  const auto salt = LoadAt<uint64_t>(bytes, 16);
  StoreAt(&bytes, 32, Checksum(std::string_view(bytes).substr(0, 32), 0));
  for (size_t at = kLogHeaderBytes; bytes.size() - at >= kRecordHeaderBytes;) {
    const size_t length = LoadAt<uint32_t>(bytes, at + 16);
    if (length > bytes.size() - at - kRecordHeaderBytes) break;
    StoreAt(&bytes, at, Checksum(std::string_view(bytes).substr(at + 8, kRecordHeaderBytes - 8 + length), salt));
    at += kRecordHeaderBytes + length;
  }
  return bytes;
}

std::map<std::string, std::string> StateOf(const RowStore& store) {
  std::map<std::string, std::string> state;
  const auto visited = store.Scan("", [&](std::string_view key, std::string_view value) -> Result<bool> {
    Require(state.emplace(key, value).second, "a row is visited once");
    return true;
  });
  Require(visited.has_value(), "rows in memory are visited");
  return state;
}

// What was read of a segment is read again, and the log goes on behind it.
void RunRowLog(std::string_view bytes) {
  for (const std::string& segment : {std::string(bytes), WithLogChecksums(std::string(bytes))}) {
    MemoryEnv env;
    env.files[kSegment] = std::make_shared<std::string>(segment);
    std::map<std::string, std::string> state;
    uint64_t sequence = 0;
    {
      const auto store = RowStore::Open(env, kStore, false, {});
      if (!store) continue;
      sequence = (*store)->sequence();
      Require(env.files.contains(kSegment) == (sequence > 0), "a segment is kept for what it holds");
      state = StateOf(**store);
      RowStore::Batch batch;
      batch.Put("written later", "a value");
      Require((*store)->Write(batch).has_value(), "the log goes on");
    }
    state["written later"] = "a value";
    const auto again = RowStore::Open(env, kStore, false, {});
    Require(again.has_value(), "what was opened is opened again");
    Require((*again)->sequence() == sequence + 1 && StateOf(**again) == state, "what was read is read again");
  }
}
std::vector<std::string> RowLogSeeds() {
  MemoryEnv env;
  {
    const auto store = RowStore::Open(env, kStore, true, {});
    Require(store.has_value(), "a store");
    for (int i = 0; i < 4; ++i) {
      RowStore::Batch batch;
      batch.Put(fmt::format("row {}", i), std::string(static_cast<size_t>(i * 30), 'v'));
      batch.Put("", "of no name");
      if (i > 0) batch.Delete(fmt::format("row {}", i - 1));
      Require((*store)->Write(batch).has_value(), "a batch");
    }
    RowStore::Batch nothing;
    Require((*store)->Write(nothing).has_value(), "a batch");
  }
  const std::string segment = *env.files.at(kSegment);
  return {segment, segment.substr(0, segment.size() - 5), segment.substr(0, kLogHeaderBytes)};
}

// ---- what an overlay says of itself

void RunOverlayInfo(std::string_view bytes) {
  MemoryEnv env;
  env.files["library/overlays/0a/overlay.json"] = std::make_shared<std::string>(bytes);
  const auto overlays = ListOverlays(env, "library");
  Require(overlays && overlays->size() == 1 && overlays->front().id == "0a", "an overlay is listed, whatever is wrong with it");
}
std::vector<std::string> OverlayInfoSeeds() {
  const std::string hex(64, 'a');
  return {fmt::format(R"({{"schema":2,"branch":"debian","base":"{}","base_tag":"v1","state":"conflict","mountpoint":"/m\u00e9",)"
                      R"("message":"","tag":"","author":"eva","created":1700000000,"detached":true,"boot":"b","error":"",)"
                      R"("conflicts":["/etc/hosts: both changed its content"]}})",
                      hex),
          R"({"schema":1})"};
}

}  // namespace

const std::vector<FuzzTarget>& OverlayFuzzTargets() {
  static const std::vector<FuzzTarget> kTargets = {
      {"inode_record", RunInodeRecord, InodeRecordSeeds},
      {"row_table", RunRowTable, RowTableSeeds},
      {"row_log", RunRowLog, RowLogSeeds},
      {"overlay_info", RunOverlayInfo, OverlayInfoSeeds},
  };
  return kTargets;
}

}  // namespace mirage::testing
