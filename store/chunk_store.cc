#include "store/chunk_store.h"

#include <algorithm>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>

#include "store/block_prefetcher.h"
#include "store/sharded_cache.h"

namespace mirage {
namespace {

// What is asked for ahead of a reader in order, compressed: 48 blocks or so. The disk is asked for a window at a time, and four
// of them keep it and two processors at work (2 MiB: 3 to 6 % longer for 1 GiB, 8 MiB: the same).
constexpr size_t kAheadBytes = 4 << 20;
constexpr size_t kWindowBytes = 1 << 20;
constexpr size_t kBlockHeaderBytes = 32;

struct BlockKey {
  PackNumber pack;
  uint32_t offset;
  bool operator==(const BlockKey&) const = default;
};
struct BlockKeyHash {
  size_t operator()(const BlockKey& key) const {
    // Pack numbers are random, offsets are not: Fibonacci hashing spreads them over the high bits too.
    return (key.pack ^ key.offset) * 0x9e3779b97f4a7c15;
  }
};

}  // namespace

struct ChunkStore::Impl {
  Impl(Env& e, std::string directory, Options o)
      : env(e),
        packs_directory(std::move(directory)),
        options(o),
        blocks(o.cache_bytes, kBlockTargetBytes),
        prefetcher(std::min(kAheadBytes, o.cache_bytes / 16), kWindowBytes,
                   std::clamp(std::thread::hardware_concurrency(), 1U, 4U),
                   [this](PackNumber pack, uint64_t offset, size_t size) { return ReadWindow(pack, offset, size); }) {}

  Result<std::shared_ptr<File>> OpenPack(PackNumber number);
  Result<std::shared_ptr<File>> OpenPackFile(PackNumber number);
  Result<std::shared_ptr<const Block>> Load(const Location& location);
  BlockPrefetcher::Window ReadWindow(PackNumber pack, uint64_t offset, size_t bytes);

  Env& env;
  const std::string packs_directory;
  const Options options;
  ShardedCache<BlockKey, Block, BlockKeyHash> blocks;  // self-synchronised

  struct OpenedPack {
    PackNumber number;
    std::shared_ptr<File> file;
  };
  std::mutex mutex;            // guards all below; never held while the disk is asked
  std::list<OpenedPack> used;  // the most recently used first
  std::unordered_map<PackNumber, std::list<OpenedPack>::iterator> opened;
  std::map<PackNumber, std::string> staged;
  BlockPrefetcher prefetcher;  // last: its threads use what is above
};

// A staged pack moves to packs/ when its transaction is published.
Result<std::shared_ptr<File>> ChunkStore::Impl::OpenPackFile(PackNumber number) {
  std::string path;
  {
    const std::lock_guard lock(mutex);
    if (const auto found = staged.find(number); found != staged.end()) path = found->second;
  }
  if (!path.empty()) {
    auto file = env.Open(path, OpenMode::kRead);
    if (file || file.error().code != ENOENT) return file;
    const std::lock_guard lock(mutex);
    staged.erase(number);
  }
  return env.Open(packs_directory + "/" + PackFileName(number), OpenMode::kRead);
}

Result<std::shared_ptr<File>> ChunkStore::Impl::OpenPack(PackNumber number) {
  {
    const std::lock_guard lock(mutex);
    if (const auto found = opened.find(number); found != opened.end()) {
      used.splice(used.begin(), used, found->second);
      return found->second->file;
    }
  }
  ASSIGN_OR_RETURN(std::shared_ptr<File> file, OpenPackFile(number));
  const std::lock_guard lock(mutex);
  // Another may have opened it meanwhile.
  if (const auto found = opened.find(number); found != opened.end()) return found->second->file;
  used.push_front({number, file});
  opened[number] = used.begin();
  if (used.size() > std::max<size_t>(options.max_open_packs, 1)) {
    opened.erase(used.back().number);
    used.pop_back();  // who reads from it has it open until done
  }
  return file;
}

Result<std::shared_ptr<const Block>> ChunkStore::Impl::Load(const Location& location) {
  ASSIGN_OR_RETURN(const auto file, OpenPack(location.pack));
  // Kept a thread: a record of some hundred KiB is not worth an allocation each.
  thread_local std::string record;
  TRY(file->ReadAt(location.offset, location.record_bytes, &record));
  return Block::Decode(record, location.pack, location.offset);
}

// Errors end the run: who reads there meets them and says what they are.
BlockPrefetcher::Window ChunkStore::Impl::ReadWindow(PackNumber pack, uint64_t offset, size_t bytes) {
  const auto file = OpenPack(pack);
  thread_local std::string window;  // kept, as Load's; it is decoded by the thread that read it, before the next
  if (!file || !(*file)->ReadAt(offset, bytes, &window)) return {.next_offset = offset, .decode = {}};
  std::vector<std::pair<size_t, size_t>> records;  // place in the window, size
  size_t end = 0;
  for (;;) {
    const auto size = BlockRecordBytes(std::string_view(window).substr(end, kBlockHeaderBytes), pack, offset + end);
    if (size && end == 0 && *size > window.size() && window.size() == bytes) {  // one block beyond all measure
      if (!(*file)->ReadAt(offset, *size, &window)) break;
    }
    if (!size || *size > window.size() - end) break;
    records.emplace_back(end, *size);
    end += *size;
  }
  return {.next_offset = offset + end, .decode = [this, pack, offset, records] {
            for (const auto& [at, size] : records) {
              const auto place = static_cast<uint32_t>(offset + at);
              (void)blocks.GetOrLoad({pack, place}, [&] {
                return Block::Decode(std::string_view(window).substr(at, size), pack, place);
              });
            }
          }};
}

ChunkStore::ChunkStore(Env& env, std::string packs_directory, Options options)
    : impl_(std::make_unique<Impl>(env, std::move(packs_directory), options)) {}

ChunkStore::~ChunkStore() = default;

Result<std::shared_ptr<const Block>> ChunkStore::ReadBlock(const Location& location) const {
  impl_->prefetcher.Note(location);
  return impl_->blocks.GetOrLoad({location.pack, location.offset}, [&] { return impl_->Load(location); });
}

ChunkStore::Statistics ChunkStore::statistics() const {
  const auto statistics = impl_->blocks.statistics();
  return {.hits = statistics.hits, .misses = statistics.misses, .cached_bytes = statistics.cached_bytes};
}

void ChunkStore::AddPack(PackNumber number, std::string path) {
  const std::lock_guard lock(impl_->mutex);
  impl_->staged[number] = std::move(path);
}

}  // namespace mirage
