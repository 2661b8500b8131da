#include "store/chunk_store.h"

#include <algorithm>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>

#include "store/sharded_cache.h"

namespace mirage {
namespace {

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
      : env(e), packs_directory(std::move(directory)), options(o), blocks(o.cache_bytes, kBlockTargetBytes) {}

  Result<std::shared_ptr<File>> OpenPack(PackNumber number);
  Result<std::shared_ptr<File>> OpenPackFile(PackNumber number);
  Result<std::shared_ptr<const Block>> Load(const Location& location);

  Env& env;
  const std::string packs_directory;
  const Options options;
  ShardedCache<BlockKey, Block, BlockKeyHash> blocks;  // self-synchronised

  struct OpenedPack {
    PackNumber number;
    std::shared_ptr<File> file;
  };
  std::mutex mutex;  // guards all below; never held while the disk is asked
  std::list<OpenedPack> used;  // the most recently used first
  std::unordered_map<PackNumber, std::list<OpenedPack>::iterator> opened;
  std::map<PackNumber, std::string> staged;
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

ChunkStore::ChunkStore(Env& env, std::string packs_directory, Options options)
    : impl_(std::make_unique<Impl>(env, std::move(packs_directory), options)) {}

ChunkStore::~ChunkStore() = default;

Result<std::shared_ptr<const Block>> ChunkStore::ReadBlock(const Location& location) const {
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
