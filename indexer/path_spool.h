// Values by path, taken in any order and given back in canonical order (a directory before what is in it, names as
// unsigned bytes). What exceeds the memory limit lies in sorted runs on disk, so that memory does not grow with the
// number of paths. Files: "NAME.N" in the given directory, whose owner removes them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "store/env.h"

namespace mirage {

class PathSpool {
 public:
  PathSpool(Env& env, std::string directory, std::string name, size_t memory_bytes);

  // The place of a value in the order of arrival; of two values with one path the one with the higher ticket holds.
  uint64_t Ticket() { return next_ticket_++; }
  // Thread-safe against itself. `path` without leading slash; "" is the root.
  Status Add(uint64_t ticket, std::string_view path, std::string value);

 private:
  struct Record {
    std::string key;  // the path with NUL for '/', so that byte order is canonical order
    uint64_t ticket = 0;
    std::string value;
  };
  class RunReader;

 public:
  // Each path once, in canonical order. While one lives nothing may be added. Several may be read at once.
  class Cursor {
   public:
    explicit Cursor(PathSpool& spool);
    ~Cursor();
    Cursor(const Cursor&) = delete;
    Cursor& operator=(const Cursor&) = delete;
    // False at the end.
    Result<bool> Next();
    const std::string& path() const { return path_; }
    const std::string& key() const { return current_.key; }  // the path with NUL for '/': compares as the order is
    const std::string& value() const { return current_.value; }

   private:
    static bool Later(const std::unique_ptr<RunReader>& a, const std::unique_ptr<RunReader>& b);
    Status Open();
    Result<bool> Pull(Record* record);  // the least of all runs
    PathSpool& spool_;
    bool open_ = false, more_ = false;
    std::vector<std::unique_ptr<RunReader>> readers_;  // a heap with the least record on top
    size_t next_in_memory_ = 0;                        // of the records in memory, which are one more run
    Record current_, pending_;
    std::string path_;
  };

 private:
  static bool Before(const Record& a, const Record& b);
  void Sort();     // makes `order_` whole; under mutex_
  Status Spill();  // under mutex_

  Env& env_;
  const std::string directory_, name_;
  const size_t memory_limit_;
  std::atomic<uint64_t> next_ticket_{1};
  std::mutex mutex_;
  std::vector<Record> records_;  // guarded by mutex_, like all below
  std::vector<uint32_t> order_;  // of the first of them, as many as were there when they were last sorted
  size_t memory_bytes_ = 0;  // of records_ and order_
  std::vector<std::string> runs_;
};

// The path as PathSpool orders it.
std::string CanonicalKey(std::string_view path);

}  // namespace mirage
