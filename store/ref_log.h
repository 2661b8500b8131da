// refs.log: every move of a ref, one line a record, each record's checksum chaining the one before. The fdatasync of a
// record is the library's one commit point (FORMAT.md, "refs.log"). An invalid last record was never committed and is
// cut off by the next writer; an invalid record with a valid one behind it is damage: EIO, never a silent rollback.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "store/env.h"
#include "store/metadata_db.h"

namespace mirage {

constexpr std::string_view kRefLogHeader = "mirage refs 1\n";

struct RefMove {
  std::string name;      // "branch" or "branch/tag"
  ObjectId from, to;     // zero: no such ref before / after
  bool operator==(const RefMove&) const = default;
};
struct RefRecord {
  uint64_t sequence = 0;
  int64_t time_sec = 0;
  uint32_t time_nsec = 0;
  std::string who;       // "user@host"; percent-encoded on disk
  std::string action;    // one word: import, commit, tag, branch, ...
  std::vector<RefMove> moves;  // applied together or not at all; none: RocksDB's rows came or went
};

// One record to its line and back; `chain` is the id of the record before (zero for the first).
std::string EncodeRefRecord(const RefRecord& record, const ObjectId& chain, ObjectId* new_chain);
Result<RefRecord> DecodeRefRecord(std::string_view line, const ObjectId& chain, ObjectId* new_chain);

class RefLog {
 public:
  static constexpr std::string_view kHeader = "mirage refs 1\n";
  RefLog(Env& env, std::string path) : env_(env), path_(std::move(path)) {}
  static Status Create(Env& env, const std::string& path);
  // Records behind `from`, in order; returns the position behind the last valid one. Readers call it under the shared
  // publish lock, so that what they see is whole.
  Result<LogPosition> Replay(const LogPosition& from, const std::function<Status(const RefRecord&)>& visit) const;
  // Under the exclusive lock: cuts an uncommitted tail behind `at`, appends and syncs. The commit point.
  Result<LogPosition> Append(const LogPosition& at, const RefRecord& record);
  // Whatever records it holds are safe: also those of a writer that died between writing and syncing.
  Status Sync();
  Result<uint64_t> SizeBytes() const;  // what a watcher compares
  const std::string& path() const { return path_; }

 private:
  Env& env_;
  std::string path_;
};

// Branch and tag names: letters, digits, . _ -, not starting with . or -, no "..", at most 128 bytes; "latest" is reserved for tags.
Status CheckBranchName(std::string_view name);
Status CheckTagName(std::string_view name);

}  // namespace mirage
