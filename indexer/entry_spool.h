// The entries of one import, taken in any order and given back in canonical order (a directory before what is in it,
// names as unsigned bytes). What exceeds the memory limit lies in sorted runs on disk, so that memory does not grow
// with the image. Files: "entries.N" in the given directory, whose owner removes them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "store/env.h"
#include "store/object.h"

namespace mirage {

class EntrySpool {
 public:
  EntrySpool(Env& env, std::string directory, size_t memory_bytes = 32 << 20);

  // The place of an entry in the order of arrival; of two entries with one path the one with the higher ticket holds.
  uint64_t Ticket() { return next_ticket_++; }
  // Thread-safe against itself. `path` without leading slash; "" is the root.
  Status Add(uint64_t ticket, std::string_view path, const Entry& entry);
  // Visits each path once, in canonical order; may be called again, and Add after it. The first error ends it.
  using Visit = std::function<Status(const std::string& path, Entry entry)>;
  Status ForEach(const Visit& visit);

 private:
  struct Record {
    std::string key;  // the path with NUL for '/', so that byte order is canonical order
    uint64_t ticket;
    std::string value;
  };
  class RunReader;
  static void Sort(std::vector<Record>& records);
  Status Spill();  // under mutex_

  Env& env_;
  const std::string directory_;
  const size_t memory_limit_;
  std::atomic<uint64_t> next_ticket_{1};
  std::mutex mutex_;
  std::vector<Record> records_;  // guarded by mutex_, like all below
  size_t memory_bytes_ = 0;
  std::vector<std::string> runs_;
};

}  // namespace mirage
