// The entries of one import, and of regular files the fingerprints, taken in any order and given back in canonical order
// (path_spool.h). Files: "entries.N" in the given directory, whose owner removes them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "indexer/path_spool.h"
#include "store/fingerprint.h"
#include "store/object.h"

namespace mirage {

class EntrySpool {
 public:
  EntrySpool(Env& env, std::string directory, size_t memory_bytes = 32 << 20)
      : spool_(env, std::move(directory), "entries", memory_bytes) {}

  // The place of an entry in the order of arrival; of two entries with one path the one with the higher ticket holds.
  uint64_t Ticket() { return spool_.Ticket(); }
  // Thread-safe against itself. `path` without leading slash; "" is the root.
  Status Add(uint64_t ticket, std::string_view path, const Entry& entry, const Fingerprint& fingerprint = {});
  // Visits each path once, in canonical order; may be called again, and Add after it. The first error ends it. Thread-safe
  // against itself.
  using Visit = std::function<Status(const std::string& path, Entry entry, const Fingerprint& fingerprint)>;
  Status ForEach(const Visit& visit);

 private:
  PathSpool spool_;
};

}  // namespace mirage
