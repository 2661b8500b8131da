#include "store/map_node.h"

#include <algorithm>
#include <bit>
#include <deque>
#include <limits>

#include "store/encoding.h"
#include "store/map_limits.h"

namespace mirage {
namespace {

constexpr size_t kHeadBytes = 8;           // kind, version, level, 0, count
constexpr size_t kOffsetBytes = 4;         // of one item in the offset table
constexpr size_t kKeyLengthBytes = 2;
constexpr size_t kChildBytes = ObjectId::kSize + 8;
constexpr size_t kMaxKeyBytes = kMaxPathBytes;
constexpr size_t kMaxValueBytes = 128 << 10;

// Whether a node of `level` ends behind `key`: a question to the key alone, so that a change elsewhere moves no border.
bool EndsNode(std::string_view key, int level) {
  const ObjectId digest = HashBytes(key);
  int zeros = 8 + 6 * level;
  for (size_t i = ObjectId::kSize; i-- > 0 && zeros > 0; zeros -= 8) {
    const int mask = zeros >= 8 ? 0xff : (1 << zeros) - 1;
    if ((digest.bytes[i] & mask) != 0) return false;
  }
  return true;
}

// A name in a directory, or a path of a links map.
bool IsGoodKey(ObjectKind kind, std::string_view key) {
  if (key.empty() || key.find('\0') != std::string_view::npos) return false;
  if (kind != ObjectKind::kTree) return key.size() <= kMaxPathBytes && key.front() != '/' && key.back() != '/';
  return key.size() <= kMaxNameBytes && key.find('/') == std::string_view::npos && key != "." && key != "..";
}

}  // namespace

// One level's unfinished list. Until it is known that the list is too long for one node, nothing of it is cut.
struct MapBuilder::Impl {
  struct Item {
    std::string key, value;  // value: child id and pairs below it, on an inner level
    uint64_t pairs = 1;
    size_t encoded() const { return kOffsetBytes + kKeyLengthBytes + key.size() + value.size(); }
  };
  struct Level {
    std::vector<Item> items;
    size_t bytes = kHeadBytes;
    bool split = false;
  };

  ObjectWriter& writer;
  ObjectKind kind;
  std::deque<Level> levels{1};  // a deque: a level may grow another while it is being used
  std::string last_key;
  uint64_t count = 0;
  bool finished = false;

  Result<ObjectId> WriteNode(int level, const std::vector<Item>& items, size_t bytes) {
    std::string out{static_cast<char>(kind), '\1', static_cast<char>(level), '\0'};
    out.reserve(bytes);
    Put<uint32_t>(&out, static_cast<uint32_t>(items.size()));
    size_t offset = kHeadBytes + kOffsetBytes * items.size();
    for (const Item& item : items) {
      Put<uint32_t>(&out, static_cast<uint32_t>(offset));
      offset += item.encoded() - kOffsetBytes;
    }
    for (const Item& item : items) {
      Put<uint16_t>(&out, static_cast<uint16_t>(item.key.size()));
      out += item.key;
      out += item.value;
    }
    return writer.WriteObject(kind, out);
  }

  Status EndNode(size_t level) {
    Level& here = levels[level];
    ASSIGN_OR_RETURN(const ObjectId id, WriteNode(static_cast<int>(level), here.items, here.bytes));
    Item child{.key = {}, .value = {}, .pairs = 0};
    for (const Item& item : here.items) child.pairs += item.pairs;
    child.key = std::move(here.items.back().key);
    child.value = id.view();
    Put<uint64_t>(&child.value, child.pairs);
    here.items.clear();
    here.bytes = kHeadBytes;
    if (level + 1 == levels.size()) {
      if (level + 1 > kMaxMapLevel) return Fail(EFBIG, "map: more than {} levels", kMaxMapLevel);
      levels.emplace_back();
    }
    return Append(level + 1, std::move(child));
  }

  Status AppendSplit(size_t level, Item item) {
    Level& here = levels[level];
    // An inner node takes two children whatever their keys' length; otherwise long keys would build a tower.
    const size_t least = level == 0 ? 1 : 2;
    if (here.items.size() >= least && here.bytes + item.encoded() > kMapNodeMaxBytes) TRY(EndNode(level));
    const bool ends = EndsNode(item.key, static_cast<int>(level));
    here.bytes += item.encoded();
    here.items.push_back(std::move(item));
    return ends ? EndNode(level) : Status{};
  }

  Status Append(size_t level, Item item) {
    Level& here = levels[level];
    if (here.split) return AppendSplit(level, std::move(item));
    here.bytes += item.encoded();
    here.items.push_back(std::move(item));
    // One child alone is the root itself, so that it is not put into a node however long its key.
    if (here.bytes <= kMapNodeBytes || (level > 0 && here.items.size() == 1)) return {};
    here.split = true;
    here.bytes = kHeadBytes;
    for (Item& held : std::exchange(here.items, {})) TRY(AppendSplit(level, std::move(held)));
    return {};
  }
};

MapBuilder::MapBuilder(ObjectWriter& writer, ObjectKind kind)
    : impl_(std::make_unique<Impl>(Impl{.writer = writer, .kind = kind, .last_key = {}})) {}
MapBuilder::~MapBuilder() = default;
uint64_t MapBuilder::count() const { return impl_->count; }

Status MapBuilder::Add(std::string_view key, std::string_view value) {
  if (impl_->finished) return Fail(EINVAL, "map: a pair after the end");
  if (key.size() > kMaxKeyBytes || value.size() > kMaxValueBytes) return Fail(EINVAL, "map: a pair is too long");
  if (!IsGoodKey(impl_->kind, key)) return Fail(EINVAL, "\"{}\": not a possible name", key);
  if (impl_->count > 0 && key <= impl_->last_key) {
    return Fail(EINVAL, "\"{}\": not behind \"{}\"", key, impl_->last_key);
  }
  impl_->last_key = key;
  ++impl_->count;
  return impl_->Append(0, {std::string(key), std::string(value), 1});
}

Result<ObjectId> MapBuilder::Finish() {
  if (impl_->finished) return Fail(EINVAL, "map: finished twice");
  impl_->finished = true;
  for (size_t level = 0;; ++level) {
    Impl::Level& here = impl_->levels[level];
    if (here.split) {
      if (!here.items.empty()) TRY(impl_->EndNode(level));
    } else if (level > 0 && here.items.size() == 1) {
      return *ObjectId::FromBytes(std::string_view(here.items.front().value).substr(0, ObjectId::kSize));
    } else {
      return impl_->WriteNode(static_cast<int>(level), here.items, here.bytes);
    }
  }
}

Result<std::shared_ptr<const MapNode>> MapNode::Decode(ObjectKind kind, std::string bytes) {
  const size_t size = bytes.size();
  if (size < kHeadBytes || size > kMaxNodeBytes) return Fail(EIO, "map node: {} bytes", size);
  const auto head = LoadAt<uint32_t>(bytes, 0), count = LoadAt<uint32_t>(bytes, 4);
  const int level = static_cast<int>(head >> 16 & 0xff);
  if ((head & 0xff00ffffu) != (0x0100u | static_cast<uint8_t>(kind))) {
    return Fail(EIO, "map node: begins with {:#x}", head);
  }
  if (level > static_cast<int>(kMaxMapLevel)) return Fail(EIO, "map node: level {}", level);
  if (count > (size - kHeadBytes) / kOffsetBytes) {
    return Fail(EIO, "map node: {} bytes do not hold {} items", size, count);
  }
  if (count == 0 && (level > 0 || size != kHeadBytes)) return Fail(EIO, "map node: no items");

  auto node = std::shared_ptr<MapNode>(new MapNode);
  node->bytes_ = std::move(bytes);
  node->level_ = level;
  node->count_ = count;
  size_t expected = kHeadBytes + kOffsetBytes * count;
  uint64_t pairs = 0;
  std::string_view last_key;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = LoadAt<uint32_t>(node->bytes_, kHeadBytes + kOffsetBytes * i);
    const size_t end = i + 1 < count ? LoadAt<uint32_t>(node->bytes_, kHeadBytes + kOffsetBytes * (i + 1)) : size;
    if (begin != expected || end < begin || end > size || end - begin < kKeyLengthBytes) {
      return Fail(EIO, "map node: item {} lies at {}", i, begin);
    }
    expected = end;
    const size_t key_bytes = LoadAt<uint16_t>(node->bytes_, begin);
    const size_t rest = end - begin - kKeyLengthBytes;
    if (key_bytes > rest || (level > 0 && rest - key_bytes != kChildBytes) || rest - key_bytes > kMaxValueBytes) {
      return Fail(EIO, "map node: item {} has {} bytes", i, end - begin);
    }
    const std::string_view key = node->key(i);
    if (!IsGoodKey(kind, key)) return Fail(EIO, "map node: key {} is not a possible name", i);
    if (i > 0 && key <= last_key) return Fail(EIO, "map node: keys are not ascending");
    last_key = key;
    if (level == 0) continue;
    const uint64_t below = node->child_count(i);
    if (below == 0 || below > kMaxMapPairs - pairs) return Fail(EIO, "map node: child {} counts {} pairs", i, below);
    if (node->child(i).IsZero()) return Fail(EIO, "map node: child {} has a zero id", i);
    pairs += below;
  }
  return node;
}

std::string_view MapNode::At(size_t i) const {
  const size_t begin = LoadAt<uint32_t>(bytes_, kHeadBytes + kOffsetBytes * i);
  const size_t end = i + 1 < count_ ? LoadAt<uint32_t>(bytes_, kHeadBytes + kOffsetBytes * (i + 1)) : bytes_.size();
  return std::string_view(bytes_).substr(begin, end - begin);
}

std::string_view MapNode::key(size_t i) const {
  const std::string_view item = At(i);
  return item.substr(kKeyLengthBytes, LoadAt<uint16_t>(item, 0));
}

std::string_view MapNode::value(size_t i) const {
  const std::string_view item = At(i);
  return item.substr(kKeyLengthBytes + size_t{LoadAt<uint16_t>(item, 0)});
}

ObjectId MapNode::child(size_t i) const { return *ObjectId::FromBytes(value(i).substr(0, ObjectId::kSize)); }
uint64_t MapNode::child_count(size_t i) const { return LoadAt<uint64_t>(value(i), ObjectId::kSize); }

uint64_t MapNode::leaf_count() const {
  if (level_ == 0) return count_;
  uint64_t pairs = 0;
  for (size_t i = 0; i < count_; ++i) pairs += child_count(i);
  return pairs;
}

size_t MapNode::LowerBound(std::string_view wanted) const {
  size_t low = 0, high = count_;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (key(middle) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace mirage
