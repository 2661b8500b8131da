#include "store/block_prefetcher.h"

#include <algorithm>
#include <utility>

#include "store/give_way.h"

namespace mirage {
namespace {

constexpr int64_t kCreditPerByte = 2;  // so that a reader who wants all is soon far ahead of itself

}  // namespace

BlockPrefetcher::BlockPrefetcher(size_t ahead_bytes, size_t window_bytes, unsigned threads, Read read)
    : ahead_bytes_(ahead_bytes), window_bytes_(window_bytes), thread_count_(threads), read_(std::move(read)) {}

BlockPrefetcher::~BlockPrefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void BlockPrefetcher::Note(const Location& location) {
  const std::lock_guard lock(mutex_);
  Stream* stream = nullptr;
  for (Stream& candidate : streams_) {
    if (candidate.pack != location.pack || location.offset < candidate.at) continue;
    if (location.offset == candidate.at) return;
    // Blocks between two that are wanted are stepped over, as far as they were asked for anyway.
    if (location.offset <= std::max(candidate.end, candidate.ahead)) stream = &candidate;
  }
  bool in_order = stream != nullptr;
  if (!in_order) {
    const int64_t credit = location.offset == kPackHeaderBytes ? CreditOfWhoIsThrough() : 0;
    in_order = credit > 0;
    stream = &*std::min_element(streams_.begin(), streams_.end(),
                                [](const Stream& a, const Stream& b) { return a.used < b.used; });
    if (stream->reading) return;  // all are busy: eight readers are served, a ninth is not read ahead for
    *stream = {};
    stream->pack = location.pack;
    stream->credit = credit;
  }
  stream->at = location.offset;
  stream->end = uint64_t{location.offset} + location.record_bytes;
  stream->ahead = std::max(stream->ahead, stream->end);
  stream->used = ++tick_;
  if (!in_order) return;
  stream->credit = std::min(stream->credit + kCreditPerByte * location.record_bytes, static_cast<int64_t>(ahead_bytes_));
  if (!Wants(*stream)) return;
  stream->reading = true;
  queue_.push_back(static_cast<size_t>(stream - streams_.data()));
  while (threads_.size() < thread_count_) threads_.emplace_back([this] { Run(); });
  wake_.notify_one();
}

int64_t BlockPrefetcher::CreditOfWhoIsThrough() {
  for (Stream& stream : streams_) {
    if (stream.exhausted && stream.end == stream.ahead) return std::exchange(stream.credit, 0);
  }
  return 0;
}

void BlockPrefetcher::Run() {
  GiveWay();
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    Stream& stream = streams_[queue_.front()];
    const size_t index = queue_.front();
    queue_.pop_front();
    const PackNumber pack = stream.pack;
    const uint64_t offset = stream.ahead;
    const auto size = std::min(window_bytes_, static_cast<size_t>(stream.credit));
    lock.unlock();
    const Window window = read_(pack, offset, size);
    lock.lock();
    stream.credit -= static_cast<int64_t>(window.next_offset - offset);
    stream.reading = false;
    if (window.next_offset <= offset) {
      stream.exhausted = true;
    } else {
      // Who reads may have come into this window, or past it, while it was read.
      stream.ahead = std::max(stream.ahead, window.next_offset);
      // The next window is another thread's to read while this one decodes.
      if (Wants(stream)) {
        stream.reading = true;
        queue_.push_back(index);
        wake_.notify_one();
      }
    }
    lock.unlock();
    if (window.decode) window.decode();
    lock.lock();
  }
}

}  // namespace mirage
