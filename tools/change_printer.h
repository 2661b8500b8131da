// Prints the changes between two versions as they come, for `diff` and `overlay diff`, and counts them.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "store/diff.h"
#include "tools/command.h"

namespace mirage {

class ChangePrinter {
 public:
  struct Options {
    bool statistics = false;  // sizes beside each path
    bool patch = false;       // attributes, and a text patch
  };
  // Both must outlive it. `reader` must find the contents of both sides where there are patches.
  ChangePrinter(Session& session, const TreeReader& reader, Options options)
      : session_(session), out_(*session.out), reader_(reader), options_(options) {}

  Status Print(const Change& change);
  void PrintStatistics();  // the sum
  uint64_t total() const { return total_; }

 private:
  Result<std::string> Patch(const Change& change) const;

  Session& session_;
  Output& out_;
  const TreeReader& reader_;
  const Options options_;
  uint64_t total_ = 0, added_bytes_ = 0, removed_bytes_ = 0;
  std::map<char, uint64_t> counts_;
};

}  // namespace mirage
