// Reads ahead in packs. Contents lie in packs in the order of the tree, so who reads a tree in order (grep, tar, a
// scanner), or a long file, reads blocks in order; the prefetcher sees two in a row and has the next ones read and
// decompressed by threads of its own, so that every core works and the disk is asked in long runs. Who reads at random
// starts nothing, and who reads one block in many (diff, of two versions that differ here and there) little: at most two bytes
// are read ahead for each that is wanted, and what is spent on blocks that are gone over is not earned by them.
//
// Knows streams, not bytes: what reading and decoding are is the caller's. Thread-safe. Threads start with the first
// prefetch.
#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "store/pack.h"

namespace mirage {

class BlockPrefetcher {
 public:
  // A run of a pack's bytes that was read and is not yet decoded.
  struct Window {
    uint64_t next_offset = 0;      // behind its last whole block; where it began: there is no more
    std::function<void()> decode;  // into the cache; runs on the thread that read, while another reads the next window
  };
  // Reads about `bytes` of the pack at `offset`, which is a block's. Called from the prefetcher's threads.
  using Read = std::function<Window(PackNumber pack, uint64_t offset, size_t bytes)>;

  BlockPrefetcher(size_t ahead_bytes, size_t window_bytes, unsigned threads, Read read);
  ~BlockPrefetcher();  // waits for what is being read

  // Somebody wants this block, cached or not. Cheap: most calls are for the block of the call before.
  void Note(const Location& location);

 private:
  // Where one reader is: it wanted the block at `at`, which ends at `end`, and all up to `ahead` is asked for.
  struct Stream {
    PackNumber pack = 0;
    uint64_t at = 0, end = 0, ahead = 0;
    uint64_t used = 0;     // tick of the last block, to choose which stream gives way
    int64_t credit = 0;    // bytes that may be read ahead
    bool reading = false;  // a thread has its next window
    bool exhausted = false;
  };
  static constexpr size_t kStreams = 8;

  void Run();
  // A reader who has wanted a pack to its end and now the first block of another goes on there: what it has earned
  // goes with it. 0: there is none. mutex_ held.
  int64_t CreditOfWhoIsThrough();
  bool Wants(const Stream& stream) const {
    return !stream.reading && !stream.exhausted && stream.credit > 0 && stream.ahead < stream.end + ahead_bytes_;
  }

  const size_t ahead_bytes_, window_bytes_;
  const unsigned thread_count_;
  const Read read_;

  std::mutex mutex_;  // guards all below; not held while reading or decoding
  std::condition_variable wake_;
  std::array<Stream, kStreams> streams_;
  uint64_t tick_ = 0;
  std::deque<size_t> queue_;  // streams that want a window
  std::vector<std::thread> threads_;
  bool stop_ = false;
};

// The size of the block that begins with these bytes (a whole header: 32); EIO: none does. Looks at limits only.
Result<size_t> BlockRecordBytes(std::string_view header, PackNumber pack, uint64_t offset);  // pack.cc

}  // namespace mirage
