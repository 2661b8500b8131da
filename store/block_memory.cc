#include "store/block_memory.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "store/chunker.h"
#include "store/pack.h"

namespace mirage {
namespace {

// A block is closed by the chunk that fills it.
constexpr size_t kPlaceBytes = kBlockTargetBytes + ChunkingParameters{}.max_bytes;
constexpr size_t kLeastBytes = kPlaceBytes / 4 * 3;  // a place is not spent on less
constexpr size_t kHugePageBytes = 2 << 20;
constexpr size_t kArenaBytes = 4 * kHugePageBytes;

bool UsesPlace(size_t size) { return size >= kLeastBytes && size <= kPlaceBytes; }

class Places {
 public:
  char* Take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) AddArena();
    char* const place = free_.back();
    free_.pop_back();
    return place;
  }
  void GiveBack(char* place) {
    const std::lock_guard lock(mutex_);
    free_.push_back(place);  // has room: AddArena saw to it
  }

 private:
  void AddArena() {
    constexpr size_t places = kArenaBytes / kPlaceBytes;
    free_.reserve((arenas_ + 1) * places);
    // With one huge page more an aligned arena fits in; the rest is never touched.
    void* const mapped =
        ::mmap(nullptr, kArenaBytes + kHugePageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    const auto first = (reinterpret_cast<uintptr_t>(mapped) + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
    char* const arena = reinterpret_cast<char*>(first);
    (void)::madvise(arena, kArenaBytes, MADV_HUGEPAGE);  // where there are none, small ones do
    ASAN_POISON_MEMORY_REGION(arena, kArenaBytes);
    ++arenas_;
    for (size_t i = places; i-- > 0;) free_.push_back(arena + i * kPlaceBytes);  // the first is used first
  }

  std::mutex mutex_;
  std::vector<char*> free_;
  size_t arenas_ = 0;
};

Places& ThePlaces() {
  static auto* const places = new Places;  // blocks may outlive what is destroyed at exit
  return *places;
}

}  // namespace

BlockMemory::BlockMemory(size_t size) : size_(size) {
  if (size == 0) return;
  if (UsesPlace(size)) {
    data_ = ThePlaces().Take();
    ASAN_UNPOISON_MEMORY_REGION(data_, size);
    return;
  }
  data_ = static_cast<char*>(std::malloc(size));
  if (data_ == nullptr) throw std::bad_alloc();
}

BlockMemory::~BlockMemory() {
  if (!UsesPlace(size_)) {
    std::free(data_);
    return;
  }
  ASAN_POISON_MEMORY_REGION(data_, size_);
  ThePlaces().GiveBack(data_);
}

size_t BlockMemory::taken_bytes() const { return UsesPlace(size_) ? kPlaceBytes : size_; }

}  // namespace mirage
