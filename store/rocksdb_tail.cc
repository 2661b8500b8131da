#include "store/rocksdb_tail.h"

#include "store/encoding.h"

namespace mirage {
namespace {

constexpr size_t kBlockBytes = 32 << 10;
constexpr size_t kHeaderBytes = 7;  // checksum: 4, length: 2, type: 1
constexpr uint64_t kMostBytes = 256 << 20;
enum Type : uint8_t { kWhole = 1, kFirst, kMiddle, kLast };

}  // namespace

Result<bool> CutTornTail(Env& env, const std::string& path) {
  ASSIGN_OR_RETURN(std::string name, ReadWholeFile(env, path + "/CURRENT", 1 << 10));
  if (!name.starts_with("MANIFEST-") || name.find('/') != std::string::npos || name.back() != '\n') return false;
  name.pop_back();
  const std::string manifest = path + "/" + name;
  ASSIGN_OR_RETURN(const std::string bytes, ReadWholeFile(env, manifest, kMostBytes));
  const size_t last = bytes.find_last_not_of('\0');
  const size_t zeros = last == std::string::npos ? 0 : last + 1;
  if (zeros == bytes.size()) return false;
  // From fragment to fragment, to the record in which the zeros begin.
  size_t at = 0, record = 0;
  bool inside = false;  // behind a record's first fragment
  while (at + kHeaderBytes <= zeros) {
    const size_t left = kBlockBytes - at % kBlockBytes;
    if (left < kHeaderBytes) {
      at += left;
      if (!inside) record = at;
      continue;
    }
    const auto type = static_cast<uint8_t>(bytes[at + 6]);
    if (inside ? type != kMiddle && type != kLast : type != kWhole && type != kFirst) return false;
    const size_t end = at + kHeaderBytes + LoadAt<uint16_t>(bytes, at + 4);
    if (end > zeros) break;
    at = end;
    inside = type == kFirst || type == kMiddle;
    if (!inside) record = at;
  }
  if (record == 0) return false;  // the first is synced before CURRENT names the file
  ASSIGN_OR_RETURN(const auto file, env.Open(manifest, OpenMode::kReadWrite));
  TRY(file->Truncate(record));
  TRY(file->Sync());
  return true;
}

}  // namespace mirage
