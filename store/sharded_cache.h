// A byte-limited cache of immutable values, least recently used out first. Several threads that ask for the same
// missing value wait for one of them to load it. Thread-safe; a load runs without any lock held.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "store/result.h"

namespace mirage {

// Value: has memory_bytes().
template <typename Key, typename Value, typename Hash>
class ShardedCache {
 public:
  using Pointer = std::shared_ptr<const Value>;
  struct Statistics {
    uint64_t hits = 0, misses = 0, cached_bytes = 0;
  };

  // `largest_value_bytes`: a shard holds many of them. With few, chance would fill one shard twice as much as another, and
  // what fits into the cache as a whole would be loaded again and again.
  ShardedCache(size_t limit_bytes, size_t largest_value_bytes)
      : shards_(std::clamp<size_t>(limit_bytes / (kLeastValues * largest_value_bytes), 1, kMaxShards)),
        shard_limit_bytes_(limit_bytes / shards_.size()) {}

  // `load` gives Result<Pointer>; its error goes to all who waited, and is not kept.
  template <typename Load>
  Result<Pointer> GetOrLoad(const Key& key, const Load& load) {
    Shard& shard = ShardOf(key);
    std::shared_ptr<Loading> loading;
    {
      std::unique_lock lock(shard.mutex);
      if (const auto found = shard.nodes.find(key); found != shard.nodes.end()) {
        ++shard.hits;
        shard.used.splice(shard.used.begin(), shard.used, found->second);
        return found->second->value;
      }
      auto [place, first] = shard.loading.try_emplace(key);
      if (!first) {
        ++shard.hits;
        loading = place->second;
        shard.loaded.wait(lock, [&] { return loading->result.has_value(); });
        return *loading->result;
      }
      ++shard.misses;
      loading = place->second = std::make_shared<Loading>();
    }
    Result<Pointer> result = load();
    const std::lock_guard lock(shard.mutex);
    loading->result = result;
    shard.loading.erase(key);
    shard.loaded.notify_all();
    if (result) Insert(shard, key, *result);
    return result;
  }

  void Erase(const Key& key) {
    Shard& shard = ShardOf(key);
    const std::lock_guard lock(shard.mutex);
    const auto found = shard.nodes.find(key);
    if (found == shard.nodes.end()) return;
    shard.bytes -= found->second->bytes;
    shard.used.erase(found->second);
    shard.nodes.erase(found);
  }

  Statistics statistics() const {
    Statistics sum;
    for (const Shard& shard : shards_) {
      const std::lock_guard lock(shard.mutex);
      sum.hits += shard.hits;
      sum.misses += shard.misses;
      sum.cached_bytes += shard.bytes;
    }
    return sum;
  }

 private:
  static constexpr size_t kMaxShards = 16, kLeastValues = 32;
  static constexpr size_t kNodeBytes = 160;  // what an entry costs beside its value

  struct Node {
    Key key;
    Pointer value;
    size_t bytes;
  };
  struct Loading {
    std::optional<Result<Pointer>> result;
  };
  struct Shard {
    mutable std::mutex mutex;  // guards all below
    std::condition_variable loaded;
    std::list<Node> used;  // the most recently used first
    std::unordered_map<Key, typename std::list<Node>::iterator, Hash> nodes;
    std::unordered_map<Key, std::shared_ptr<Loading>, Hash> loading;
    size_t bytes = 0;
    uint64_t hits = 0, misses = 0;
  };

  // High bits: the low ones choose the bucket in the shard's own table.
  Shard& ShardOf(const Key& key) { return shards_[(Hash{}(key) >> 48) % shards_.size()]; }

  void Insert(Shard& shard, const Key& key, const Pointer& value) {
    const size_t bytes = value->memory_bytes() + kNodeBytes;
    if (!shard.nodes.try_emplace(key).second) return;
    shard.used.push_front({key, value, bytes});
    shard.nodes[key] = shard.used.begin();
    shard.bytes += bytes;
    // The newest stays, even if it alone is over the limit.
    while (shard.bytes > shard_limit_bytes_ && shard.used.size() > 1) {
      shard.bytes -= shard.used.back().bytes;
      shard.nodes.erase(shard.used.back().key);
      shard.used.pop_back();
    }
  }

  std::vector<Shard> shards_;
  const size_t shard_limit_bytes_;
};

}  // namespace mirage
