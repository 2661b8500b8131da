// Work that may as well not be done, by a thread of its own, which gives way to threads that somebody waits for: what is
// pushed to a full queue takes the place of the oldest. Thread-safe. The thread starts with the first push.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "store/give_way.h"

namespace mirage {

template <typename Step>
class BackgroundQueue {
 public:
  // `take` runs in the thread, one step after the other; of what it throws, memory that is short, it must have cleaned up.
  BackgroundQueue(size_t most, std::function<void(const Step&)> take) : most_(most), take_(std::move(take)) {}
  // Waits for the step that is being taken; the others are dropped.
  ~BackgroundQueue() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
  }
  BackgroundQueue(const BackgroundQueue&) = delete;
  BackgroundQueue& operator=(const BackgroundQueue&) = delete;

  // What it has no memory or thread for is dropped.
  void Push(const Step& step) noexcept {
    {
      const std::lock_guard lock(mutex_);
      try {
        if (steps_.size() >= most_) steps_.pop_front();
        steps_.push_back(step);
        if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
      } catch (const std::exception&) {
        return;
      }
    }
    wake_.notify_one();
  }

 private:
  void Run() {
    GiveWay();
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return stop_ || !steps_.empty(); });
      if (stop_) return;
      const Step step = steps_.front();
      steps_.pop_front();
      lock.unlock();
      try {
        take_(step);
      } catch (const std::exception&) {
      }
      lock.lock();
    }
  }

  const size_t most_;
  const std::function<void(const Step&)> take_;
  std::mutex mutex_;  // guards all below; not held while a step is taken
  std::condition_variable wake_;
  std::deque<Step> steps_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace mirage
