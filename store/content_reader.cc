#include "store/content_reader.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

#include "store/sharded_cache.h"

namespace mirage {
namespace {

// A node made ready for lookups by offset.
struct SegmentList {
  uint8_t level = 0;
  std::vector<uint64_t> ends;  // of each segment, from the node's start
  std::vector<ObjectId> ids;

  uint64_t total_bytes() const { return ends.empty() ? 0 : ends.back(); }
  uint64_t start(size_t i) const { return i == 0 ? 0 : ends[i - 1]; }
  size_t memory_bytes() const { return ends.size() * (sizeof ends[0] + sizeof ids[0]); }
};

struct NodeKey {
  ObjectKind kind;  // a root is kept by its content's id, the others by their own
  ObjectId id;
  bool operator==(const NodeKey&) const = default;
};
struct NodeKeyHash {
  size_t operator()(const NodeKey& key) const { return ObjectIdHash{}(key.id) + static_cast<size_t>(key.kind); }
};

constexpr uint64_t kOneChunkBytes = 64 << 10;
constexpr int kRowsARead = 16;  // that one read goes on by, mostly
constexpr size_t kLargestNodeBytes = 40 << 10;  // 1024 segments

// Gets the chunk's id (zero: a hole), the chunk's place in the content and its length; false: enough.
using VisitChunk = std::function<Result<bool>(const ObjectId& chunk, uint64_t start, uint64_t length)>;

struct FoundBlock {
  std::shared_ptr<const Block> block;
  uint16_t slot;

  bool Holds(const ObjectId& chunk) const { return HoldsIn(slot, chunk); }
  bool HoldsIn(size_t row_slot, const ObjectId& chunk) const {
    if (row_slot >= block->rows().size()) return false;
    const BlockRow& row = block->rows()[row_slot];
    return row.kind == ObjectKind::kChunk && row.id == chunk;
  }
};

// The chunks of a content mostly lie one behind the other, and so do the contents of a tree: a look at the next row of the block
// before saves one into the index, a tenth of what a long read, or a scan of small files, takes.
std::optional<FoundBlock> NextIn(const std::optional<FoundBlock>& before, const ObjectId& chunk) {
  if (!before || !before->HoldsIn(before->slot + size_t{1}, chunk)) return std::nullopt;
  return FoundBlock{before->block, static_cast<uint16_t>(before->slot + 1)};
}

// Where the last few reads ended. Keeps their blocks alive. Thread-safe.
class RecentPlaces {
 public:
  std::optional<FoundBlock> Find(const ObjectId& chunk) {
    const std::lock_guard lock(mutex_);
    for (const auto& place : places_) {
      if (place && place->Holds(chunk)) return place;
      if (auto next = NextIn(place, chunk)) return next;
    }
    return std::nullopt;
  }
  void Note(const FoundBlock& last) {
    const std::lock_guard lock(mutex_);
    // Two may be in one block, each at its own place: who came here was a little before.
    auto place = std::find_if(places_.begin(), places_.end(), [&](const auto& p) {
      return p && p->block == last.block && p->slot <= last.slot && last.slot - p->slot <= kRowsARead;
    });
    if (place == places_.end()) --place;
    *place = last;
    std::rotate(places_.begin(), place, place + 1);  // the most recent first
  }

 private:
  std::mutex mutex_;
  std::array<std::optional<FoundBlock>, 4> places_;  // guarded by it
};

}  // namespace

struct ContentReader::Impl {
  const ChunkIndex& index;
  const ChunkStore& chunks;
  mutable ShardedCache<NodeKey, SegmentList, NodeKeyHash> nodes;
  mutable RecentPlaces recent;

  Result<std::optional<FoundBlock>> FindBlock(const ObjectId& chunk, std::optional<Location> location) const;
  Result<std::shared_ptr<const SegmentList>> LoadNode(const NodeKey& key) const;
  Result<std::shared_ptr<const SegmentList>> GetNode(const NodeKey& key) const {
    return nodes.GetOrLoad(key, [&] { return LoadNode(key); });
  }
  Result<bool> VisitNode(const ObjectId& content, const SegmentList& node, uint64_t base, uint64_t offset,
                         const VisitChunk& visit) const;
  // From the segment that holds `offset` on.
  Status VisitChunks(const ObjectId& content, uint64_t size, uint64_t offset, const VisitChunk& visit) const;
  // `before`: where the chunk before it was found, and then where this one was.
  Status AppendChunk(const ObjectId& chunk, uint64_t chunk_bytes, size_t from, size_t length, Pieces* out,
                     std::optional<FoundBlock>* before) const;
  static Status AppendFound(const FoundBlock& found, const ObjectId& chunk, uint64_t chunk_bytes, size_t from, size_t length,
                            Pieces* out);
};

// A collection may take a pack away between the two looks, if the snapshot was swapped meanwhile: then the new one knows
// where the chunk lies now.
Result<std::optional<FoundBlock>> ContentReader::Impl::FindBlock(const ObjectId& chunk,
                                                                 std::optional<Location> location) const {
  for (std::optional<Location> before;;) {
    if (!location) {
      ASSIGN_OR_RETURN(location, index.FindChunk(chunk));
    }
    if (!location) return std::optional<FoundBlock>();
    auto block = chunks.ReadBlock(*location);
    if (block) return std::optional<FoundBlock>({std::move(*block), location->slot});
    if (block.error().code != ENOENT) return tl::make_unexpected(std::move(block).error());
    if (before == location) return Fail(EIO, "chunk {}: {}; run fsck", chunk.Hex(), block.error().message);
    before = std::exchange(location, std::nullopt);
  }
}

Result<std::shared_ptr<const SegmentList>> ContentReader::Impl::LoadNode(const NodeKey& key) const {
  auto list = std::make_shared<SegmentList>();
  auto encoding = index.ReadObject(key.kind, key.id);
  if (!encoding && encoding.error().code == ENOENT && key.kind == ObjectKind::kContent) {
    // A content without a list is one chunk. That never changes, so it may be kept; where the chunk lies may not.
    ASSIGN_OR_RETURN(const auto found, FindBlock(key.id, std::nullopt));
    if (!found) return Fail(ENOENT, "content {}: the library has neither a list nor a chunk of it", key.id.Hex());
    if (found->slot >= found->block->rows().size()) {
      return Fail(EIO, "content {}: the index names a row that its block has not", key.id.Hex());
    }
    list->ends = {found->block->rows()[found->slot].length};
    list->ids = {key.id};
    return list;
  }
  if (!encoding) return tl::make_unexpected(std::move(encoding).error());
  ASSIGN_OR_RETURN(const ContentNode node, DecodeContentNode(*encoding));
  list->level = node.level;
  uint64_t end = 0;
  for (const Segment& segment : node.segments) {
    if (segment.length == 0 || segment.length > kMaxFileSize - end) {
      return Fail(EIO, "content list node {}: impossible lengths", key.id.Hex());
    }
    end += segment.length;
    list->ends.push_back(end);
    list->ids.push_back(segment.id);
  }
  return list;
}

Result<bool> ContentReader::Impl::VisitNode(const ObjectId& content, const SegmentList& node, uint64_t base,
                                            uint64_t offset, const VisitChunk& visit) const {
  const uint64_t skip = offset > base ? offset - base : 0;
  auto i = static_cast<size_t>(std::upper_bound(node.ends.begin(), node.ends.end(), skip) - node.ends.begin());
  for (; i < node.ids.size(); ++i) {
    const uint64_t start = base + node.start(i);
    const uint64_t length = node.ends[i] - node.start(i);
    if (node.level == 0) {
      ASSIGN_OR_RETURN(const bool more, visit(node.ids[i], start, length));
      if (!more) return false;
      continue;
    }
    auto child = GetNode({ObjectKind::kContentNode, node.ids[i]});
    if (!child) return Annotate(std::move(child).error(), fmt::format("content {}", content.Hex()));
    if ((*child)->level + 1 != node.level || (*child)->total_bytes() != length) {
      return Fail(EIO, "content {}: list node {} is not of the level and length its parent says", content.Hex(),
                  node.ids[i].Hex());
    }
    ASSIGN_OR_RETURN(const bool more, VisitNode(content, **child, start, offset, visit));
    if (!more) return false;
  }
  return true;
}

Status ContentReader::Impl::VisitChunks(const ObjectId& content, uint64_t size, uint64_t offset,
                                        const VisitChunk& visit) const {
  ASSIGN_OR_RETURN(const auto root, GetNode({ObjectKind::kContent, content}));
  if (root->total_bytes() != size) {
    return Fail(EIO, "content {}: {} bytes where the directory says {}", content.Hex(), root->total_bytes(), size);
  }
  ASSIGN_OR_RETURN([[maybe_unused]] const bool more, VisitNode(content, *root, 0, offset, visit));
  return {};
}

Status ContentReader::Impl::AppendChunk(const ObjectId& chunk, uint64_t chunk_bytes, size_t from, size_t length, Pieces* out,
                                        std::optional<FoundBlock>* before) const {
  auto found = *before ? NextIn(*before, chunk) : recent.Find(chunk);
  if (!found) {
    ASSIGN_OR_RETURN(found, FindBlock(chunk, std::nullopt));
  }
  if (!found) return Fail(EIO, "chunk {}: missing from the library", chunk.Hex());
  TRY(AppendFound(*found, chunk, chunk_bytes, from, length, out));
  *before = std::move(found);
  return {};
}

Status ContentReader::Impl::AppendFound(const FoundBlock& found, const ObjectId& chunk, uint64_t chunk_bytes, size_t from,
                                        size_t length, Pieces* out) {
  if (found.slot >= found.block->rows().size()) {
    return Fail(EIO, "chunk {}: the index names a row that its block has not", chunk.Hex());
  }
  if (!found.Holds(chunk) || found.block->rows()[found.slot].length != chunk_bytes) {
    return Fail(EIO, "chunk {}: another object lies where the index says", chunk.Hex());
  }
  out->Add(found.block->Bytes(found.slot).substr(from, length), found.block);
  return {};
}

ContentReader::ContentReader(const ChunkIndex& index, const ChunkStore& chunks, size_t list_cache_bytes)
    : impl_(new Impl{index, chunks, {list_cache_bytes, kLargestNodeBytes}, {}}) {}

ContentReader::~ContentReader() = default;

Status ContentReader::Read(const ObjectId& content, uint64_t size, uint64_t offset, size_t length,
                           std::string* out) const {
  Pieces pieces;
  TRY(Read(content, size, offset, length, &pieces));
  pieces.AppendTo(out);
  return {};
}

Status ContentReader::Read(const ObjectId& content, uint64_t size, uint64_t offset, size_t length, Pieces* out) const {
  if (offset >= size || length == 0) return {};
  if (size <= kOneChunkBytes) {
    // Most likely one chunk, whose id is then the content's: one look into the index, where the list's way takes three.
    auto found = impl_->recent.Find(content);
    if (!found) {
      ASSIGN_OR_RETURN(const auto location, impl_->index.FindChunk(content));
      if (location) {
        ASSIGN_OR_RETURN(found, impl_->FindBlock(content, location));
        if (!found) return Fail(EIO, "chunk {}: missing from the library", content.Hex());
      }
    }
    if (found) {
      impl_->recent.Note(*found);
      return Impl::AppendFound(*found, content, size, static_cast<size_t>(offset),
                               static_cast<size_t>(std::min<uint64_t>(length, size - offset)), out);
    }
  }
  const uint64_t end = offset + std::min<uint64_t>(length, size - offset);
  const size_t bytes_before = out->size();
  std::optional<FoundBlock> before;
  const Status status = impl_->VisitChunks(
      content, size, offset, [&](const ObjectId& chunk, uint64_t start, uint64_t chunk_bytes) -> Result<bool> {
        const uint64_t from = std::max(offset, start);
        const auto wanted = static_cast<size_t>(std::min(end, start + chunk_bytes) - from);
        if (chunk.IsZero()) {
          out->AddZeros(wanted);
        } else {
          TRY(impl_->AppendChunk(chunk, chunk_bytes, static_cast<size_t>(from - start), wanted, out, &before));
        }
        return start + chunk_bytes < end;
      });
  if (before) impl_->recent.Note(*before);
  if (!status) out->ShrinkTo(bytes_before);
  return status;
}

Status ContentReader::VisitSegments(const ObjectId& content, uint64_t size, uint64_t offset,
                                    const std::function<bool(uint64_t, uint64_t, bool)>& visit) const {
  if (offset >= size) return {};
  return impl_->VisitChunks(content, size, offset,
                            [&](const ObjectId& chunk, uint64_t start, uint64_t length) -> Result<bool> {
                              const uint64_t from = std::max(offset, start);
                              return visit(from, start + length - from, chunk.IsZero());
                            });
}

}  // namespace mirage
